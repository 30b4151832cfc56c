"""Libraries that only some commands need, installed by an extra of this package."""

from __future__ import annotations

import importlib
from typing import Any

from radfound.exceptions import RequestError


def library(name: str, extra: str) -> Any:
    """Import a module that needs an extra.

    Parameters
    ----------
    name : str
        Of an optional library, or of a module of this package that imports some.
    extra : str
        Of `extras_require` in setup.py.

    Raises
    ------
    RequestError
        If something that it imports is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        raise RequestError(
            f"{missing}: not installed, and needed here; run `pip install '.[{extra}]'` in the folder "
            "of RadFound"
        ) from error
