"""Hide the text between thinking marks, also while it is streamed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from radfound.engine.stream import Token


class HiddenText:
    """Removes the tokens between marks from a stream of tokens.

    Tokens that may begin a mark are held back until the next one decides.

    Parameters
    ----------
    marks : sequence of (str, str)
        Begin and end of text that is not part of the answer.
    begins_inside : bool
        Whether the prompt ends with a begin mark, as some chat templates do.
    """

    def __init__(self, marks: Sequence[tuple[str, str]], begins_inside: bool = False):
        self._marks = tuple(marks)
        self._end: tuple[str, ...] = tuple(end for _, end in marks) if begins_inside else ()
        self._held: list[Token] = []
        self._strip = False

    @property
    def is_hiding(self) -> bool:
        """Whether the text is inside marks."""
        return bool(self._end)

    def feed(self, token: Token) -> list[Token]:
        """Return the visible tokens that a new one completes."""
        if token.last:
            return [*self.flush(), token]
        if not self._marks:
            return [token]
        self._held.append(token)
        visible = []
        while True:
            text = "".join(each.text for each in self._held)
            marks = self._end or tuple(begin for begin, _ in self._marks)
            place, mark = min(
                ((text.find(each), each) for each in marks if each in text), default=(-1, "")
            )
            if not mark:
                break
            if not self.is_hiding:
                visible += self._cut(self._held, 0, place)
                self._end = tuple(end for begin, end in self._marks if begin == mark)
            else:
                self._end, self._strip = (), True
            self._held = self._cut(self._held, place + len(mark), None, strip=False)
        undecided = _longest_start(text, marks)
        if self.is_hiding:
            self._held = self._cut(self._held, len(text) - undecided, None, strip=False)
            return visible
        safe = len(text) - undecided
        # A token without text, such as half a character, is decided with the text after it.
        if undecided:
            visible += self._cut(self._held, 0, safe)
            self._held = self._cut(self._held, safe, None, strip=False)
        else:
            visible += self._cut(self._held, 0, None)
            self._held = []
        return visible

    def flush(self) -> list[Token]:
        """Return the visible tokens that are held back; call it at the end of the text."""
        visible = [] if self.is_hiding else self._cut(self._held, 0, None)
        self._held = []
        return visible

    def _cut(
        self, tokens: Iterable[Token], start: int, stop: int | None, *, strip: bool = True
    ) -> list[Token]:
        """Return the tokens of text[start:stop]; one that straddles an edge keeps its numbers."""
        found, at = [], 0
        for token in tokens:
            first, at = at, at + len(token.text)
            piece = token.text[
                max(start - first, 0) : None if stop is None else max(stop - first, 0)
            ]
            if not piece and token.text:
                continue
            if not token.text and (first < start or (stop is not None and first >= stop)):
                continue
            if strip and self._strip:
                piece = piece.lstrip()
                if not piece:
                    continue
                self._strip = False
            found.append(replace(token, text=piece))
        return found


def hide(text: str, marks: Sequence[tuple[str, str]]) -> str:
    """Return a whole text without what is between marks."""
    hidden = HiddenText(marks)
    visible = [*hidden.feed(Token(text)), *hidden.feed(Token("", last=True))]
    return "".join(token.text for token in visible)


def _longest_start(text: str, marks: Iterable[str]) -> int:
    """Return the length of the longest end of a text that begins a mark."""
    return max(
        (n for mark in marks for n in range(1, len(mark)) if text.endswith(mark[:n])), default=0
    )
