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
        Module of an optional library, or of this package if it imports one.
    extra : str
        Its extra in `extras_require` of setup.py.

    Raises
    ------
    RequestError
        If the module or one of its imports is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        raise RequestError(
            f"{missing}: not installed; run `pip install '.[{extra}]'` in the folder of RadFound"
        ) from error
