"""Error handling shared by the `python -m` commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from radfound.exceptions import RadFoundError

_Result = TypeVar("_Result")


def run_command(main: Callable[[], _Result]) -> _Result:
    """Run a command and return its value; on a RadFoundError, print one line and exit with status 1."""
    try:
        return main()
    except RadFoundError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(1) from None
