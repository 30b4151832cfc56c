"""What commands share: their errors, and the environment of a training."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from radfound.exceptions import RadFoundError

_Result = TypeVar("_Result")

TRAINING_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
}
"""For processes that train on a CPU with glibc, which reads it once, at their start.

Every step frees tensors of many megabytes. By default they go back to the system, which has to find and clear pages for
those of the next step. A training ends soon, and its memory with it, so that it may keep them.
"""


def run_command(main: Callable[[], _Result]) -> _Result:
    """Run a command and return its value; on a RadFoundError, print one line and exit with status 1."""
    try:
        return main()
    except RadFoundError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(1) from None
