"""Templates of reports: text files in `.radfound/templates` beside the studies."""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_TEMPLATES = 100
MAX_BYTES = 20_000


def read_templates(folder: Path) -> list[tuple[str, str]]:
    """Return (name, text) of each template in a folder, by name; none if there is no folder.

    A template is a file NAME.txt in UTF-8; a question in braces is a blank that the model fills. A
    file that is too large or no text is left out, and logged.
    """
    found = []
    for path in sorted(folder.glob("*.txt"))[:MAX_TEMPLATES]:
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            found.append((path.stem, path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            logger.warning("left out the template %s: %s", path.name, error)
    return found
