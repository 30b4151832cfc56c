"""What a backend must do: everything that the engine asks of a model.

Nothing above this module knows torch, tokens of a vocabulary or KV caches. A backend states in its
`Description` which verbs it can do; the others raise UnsupportedError, and what is not known is None,
never invented. Every call that gives text names its adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from radfound.engine.stream import Stream
from radfound.question import Question
from radfound.study.study import Study

if TYPE_CHECKING:
    from radfound.study.evidence_map import Evidence


@dataclass(frozen=True)
class Abilities:
    """What a backend can do besides answering.

    Parameters
    ----------
    probabilities : {"none", "top", "all"}
        Whether tokens come with log-probabilities. With "top", the entropy is a lower bound, because only
        the most likely tokens are known.
    score, choose, embed, evidence : bool
        Whether the verb of that name is supported.
    adapters : {"none", "at start", "while running"}
        Whether adapters can be used: none, those the server was started with, or any.
    examples : bool
        Whether worked examples can be shown before a question.
    """

    probabilities: Literal["none", "top", "all"]
    score: bool = False
    choose: bool = False
    embed: bool = False
    evidence: bool = False
    adapters: Literal["none", "at start", "while running"] = "none"
    examples: bool = False


@dataclass(frozen=True)
class Description:
    """A backend's model.

    Parameters
    ----------
    name : str
        Name in answers, such as "radfound-mini".
    revision : str
        Identifies the base weights; an adapter belongs to one revision.
    context_tokens : int or None
        Most tokens of prompt, pictures and answer together.
    max_images : int
        Most images in one study.
    vocabulary : int or None
        Number of different tokens, which scales the entropy.
    recipe : str
        Name of the recipe that turns a study into pictures and words.
    abilities : Abilities
    """

    name: str
    revision: str
    context_tokens: int | None
    max_images: int
    vocabulary: int | None
    recipe: str
    abilities: Abilities


class Backend(Protocol):
    """A model that answers questions about studies. Thread-safe."""

    def describe(self) -> Description:
        """Return the model's description; never blocks."""

    def check(
        self, question: Question, limit: int, *, images: int = 1, evidence: bool = False
    ) -> None:
        """Raise RequestError if a question is too long, before its study is loaded.

        Parameters
        ----------
        question : Question
        limit : int
            Most tokens of the answer.
        images : int
            Number of images in the study.
        evidence : bool
            Whether an evidence map is requested too.
        """

    def stream(
        self, study: Study, question: Question, *, adapter: str | None, limit: int
    ) -> Stream:
        """Queue a question and return its stream at once; errors are raised from the stream.

        Parameters
        ----------
        study : Study
        question : Question
        adapter : str or None
            An id given to `use_adapter`, or None for the base model.
        limit : int
            Most tokens of the answer.
        """

    def score(self, study: Study, question: Question, text: str, *, adapter: str | None) -> float:
        """Return the mean log-probability of the tokens of `text` as the answer."""

    def choose(
        self, study: Study, question: Question, options: Sequence[str], *, adapter: str | None
    ) -> Mapping[str, float]:
        """Return the probability of each option as the answer; they add up to 1."""

    def embed(self, study: Study) -> np.ndarray:
        """Return the embedding of a study: float32, shape (D,), length 1."""

    def evidence(
        self,
        study: Study,
        question: Question,
        text: str,
        *,
        adapter: str | None,
        before: str = "",
    ) -> Evidence:
        """Return the evidence maps for `text` as the answer, or as its part after `before`."""

    def use_adapter(self, adapter: str, folder: Path) -> None:
        """Make an adapter available under an id; does nothing if it already is.

        Raises
        ------
        AdapterError
            If it is damaged, does not fit, or does not change the model's probabilities.
        """

    def drop_adapter(self, adapter: str) -> None:
        """Forget an adapter; does nothing if it is unknown."""

    def close(self) -> None:
        """Cancel all answers and release the model."""
