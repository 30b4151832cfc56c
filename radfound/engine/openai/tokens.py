"""Chunks of a streamed chat completion as tokens, with log-probabilities where the server gives them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from radfound.engine.stream import Token

TOP = 20
"""Most likely tokens asked for at each place; vLLM refuses more."""


class Chunks:
    """Turns chunks into tokens, one after another.

    A server may send the stop token's log-probability before it says that the answer has stopped, so a token
    without text is kept until the next chunk. llama.cpp does not send it: the stop token then has none.
    """

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        """Why the answer ended: "stop", "length" or another word of the server; None before its end."""
        self._kept: Token | None = None

    def tokens(self, chunk: Mapping[str, Any]) -> Iterator[Token]:
        """Yield the tokens that a chunk completes."""
        choices = chunk.get("choices")
        if not choices:
            return
        choice = choices[0]
        delta = choice.get("delta") or {}
        found = list(_tokens(delta.get("content") or "", choice.get("logprobs"), delta))
        if self._kept is not None and found:
            yield self._kept
            self._kept = None
        if reason := choice.get("finish_reason"):
            self.finish_reason = str(reason)
            yield from self._last(found)
        elif found and not found[-1].text:
            self._kept = found.pop()
            yield from found
        else:
            yield from found

    def _last(self, found: Sequence[Token]) -> Iterator[Token]:
        ending = [*found, *([self._kept] if self._kept else [])]
        self._kept = None
        if self.finish_reason != "stop":
            yield from ending
            return
        stop = ending.pop() if ending and not ending[-1].text else Token("")
        yield from ending
        yield replace(stop, last=True)


def _tokens(
    text: str, logprobs: Mapping[str, Any] | None, delta: Mapping[str, Any]
) -> Iterator[Token]:
    entries = (logprobs or {}).get("content") or ()
    if delta.get("reasoning_content") or delta.get("reasoning"):
        entries = ()  # of the thinking, which is no part of the answer
    if not entries:
        if text:
            yield Token(text)
        return
    # Tokens that are parts of one character have no text of their own: the chunk's text is the last one's.
    words = [str(entry.get("token") or "") for entry in entries]
    pieces = words if "".join(words) == text else [*[""] * (len(entries) - 1), text]
    for entry, piece in zip(entries, pieces, strict=True):
        yield Token(piece, _number(entry.get("logprob")), entropy(entry.get("top_logprobs") or ()))


def entropy(top: Iterable[Mapping[str, Any]]) -> float | None:
    """Return a lower bound of a distribution's entropy from its most likely tokens.

    What is not among them counts as one token; splitting it could only raise the entropy.

    Parameters
    ----------
    top : iterable of mapping
        Entries with "logprob", in nats.

    Returns
    -------
    float or None
        In nats; None without entries.
    """
    values = [value for entry in top if (value := _number(entry.get("logprob"))) is not None]
    if not values:
        return None
    known = [math.exp(min(value, 0.0)) for value in values]
    rest = max(0.0, 1.0 - sum(known))
    return -sum(p * math.log(p) for p in (*known, rest) if p > 0)


def _number(value: object) -> float | None:
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None
