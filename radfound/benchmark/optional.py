"""Libraries that only RadVLBench and reader studies need."""

from __future__ import annotations

import importlib
from typing import Any

from radfound.exceptions import RequestError


def library(name: str, extra: str = "bench") -> Any:
    """Import a module of an optional library.

    Raises
    ------
    RequestError
        If it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RequestError(
            f"{name.partition('.')[0]}: not installed, and needed here; run `pip install 'radfound[{extra}]'`"
        ) from error
