"""Limits of one model server's answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from radfound.validation import CONFIG

_Seconds = Annotated[float, Field(gt=0, le=86_400)]


@dataclass(frozen=True, config=CONFIG)
class Limits:
    """Limits of a model behind a server.

    Parameters
    ----------
    pictures : int or None
        Most pictures in one question; None for what the recipe and the server allow.
    context_tokens : int or None
        Most tokens of prompt and answer; None for what the server states.
    at_once : int
        Questions sent at once; others wait.
    connect_s : float
        Time to connect.
    silence_s : float
        Longest time without a byte: until the first token, and between tokens.
    answer_s : float
        Longest time of a whole answer.
    """

    pictures: Annotated[int, Field(ge=1, le=10_000)] | None = None
    context_tokens: Annotated[int, Field(ge=16)] | None = None
    at_once: Annotated[int, Field(ge=1, le=1_000)] = 32
    connect_s: _Seconds = 5.0
    silence_s: _Seconds = 120.0
    answer_s: _Seconds = 600.0
