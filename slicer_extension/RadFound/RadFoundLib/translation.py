"""Text for the reader, in the reader's language where Slicer knows it."""

import os
import sys
from typing import Callable

_translators: list[Callable[[str, str], str]] = []


def use_translator(translate: Callable[[str, str], str]) -> None:
    """Let `translate(context, text)` put what this package says into the reader's language.

    The context is what Slicer calls a file of a package, folder and name: "net.client".
    """
    _translators[:] = [translate]


def _(text: str) -> str:
    """Return a text (a template for `str.format`) in the reader's language."""
    for translate in _translators:
        file = sys._getframe(1).f_code.co_filename
        folder, name = os.path.split(os.path.splitext(file)[0])
        return translate(f"{os.path.basename(folder)}.{name}", text) or text
    return text
