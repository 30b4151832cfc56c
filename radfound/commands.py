"""Error handling shared by the `python -m` commands."""

from __future__ import annotations

import sys
from collections.abc import Callable

from radfound.exceptions import RadFoundError


def run_command(main: Callable[[], object]) -> None:
    """Run a command; on a RadFoundError, print one line and exit with status 1."""
    try:
        main()
    except RadFoundError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(1) from None
