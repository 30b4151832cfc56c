"""Translate texts of the panel into the language of Slicer."""

import os
import string
import sys
from typing import Callable, Optional

_translators: list[Callable[[str, str], str]] = []


def use_translator(translate: Callable[[str, str], str]) -> None:
    """Translate this package's texts with `translate(context, text)`.

    The context is Slicer's name for a file of a package, such as "net.client".
    """
    _translators[:] = [translate]


def _(text: str) -> str:
    """Return the translation of a text (a template for `str.format`).

    A translation with other placeholders than the text's would fail in `format`; the text itself
    is returned then.
    """
    for translate in _translators:
        file = sys._getframe(1).f_code.co_filename
        folder, name = os.path.split(os.path.splitext(file)[0])
        translated = translate(f"{os.path.basename(folder)}.{name}", text) or text
        return translated if _placeholders(translated) == _placeholders(text) else text
    return text


def _placeholders(text: str) -> Optional[set[Optional[str]]]:
    try:
        return {name for _text, name, _spec, _how in string.Formatter().parse(text)} - {None}
    except ValueError:
        return None
