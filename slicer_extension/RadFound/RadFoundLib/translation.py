"""Text for the reader, in the reader's language where Slicer knows it."""

from typing import Callable

_translators: list[Callable[[str], str]] = []


def use_translator(translate: Callable[[str], str]) -> None:
    """Let `translate` put what this package says into the reader's language."""
    _translators[:] = [translate]


def _(text: str) -> str:
    """Return a text (a template for `str.format`) in the reader's language."""
    for translate in _translators:
        return translate(text)
    return text
