"""The folder of a server's state: where `.radfound` with corrections, adapters and uploads is.

Imports the standard library and `radfound.exceptions` only, because `make serve` looks for the folder before it
installs anything.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from radfound.exceptions import StorageError

_MISSED = ("corrections.sqlite", "adapters", "uploads")
"""What would be missed if a server went on without it; logs and caches would not."""


def state_folder(studies: Path, chosen: str = "") -> Path:
    """Return the folder of the server's state: the folder of studies, if writable.

    Parameters
    ----------
    studies : Path
    chosen : str
        The setting `state`.

    Raises
    ------
    StorageError
        If the folder of studies already holds state but is no longer writable.
    """
    if chosen:
        return Path(chosen)
    if is_writable(studies):
        return studies
    if any((studies / ".radfound" / name).exists() for name in _MISSED):
        raise StorageError(
            f"{studies}: cannot be written, and .radfound in it holds corrections; make it writable, or "
            "name another folder for new ones with --conf state DIR"
        )
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    key = hashlib.sha256(os.fsencode(studies.resolve())).hexdigest()[:12]
    return data / "radfound" / f"{studies.resolve().name}-{key}"


def is_writable(folder: Path) -> bool:
    """Whether files can be created in a folder; permissions alone do not show that."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
