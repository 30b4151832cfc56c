"""How a model version answers questions with known answers, and how it is kept on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from training.corrections.frozen.kept import Kept
from training.corrections.frozen.scoring import AnswerScores


@dataclass(frozen=True)
class Said:
    """An answer of a model version, decoded greedily.

    Parameters
    ----------
    text : str
    log_probability : float
        Mean over its tokens, in nats, stop token included.
    complete : bool
        Whether it ended with the stop token within the limit.
    """

    text: str
    log_probability: float
    complete: bool

    @property
    def probability(self) -> float:
        """Length-normalised."""
        return math.exp(self.log_probability)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a model version scores on the regression set.

    Parameters
    ----------
    name : str
        Such as "a-0003", or `BASE_MODEL`.
    with_image, with_blank : AnswerScores
        Scores of the right answers, with their own image and with a blank one.
    stops : list of bool
        For some answers of its own, whether they end with the stop token.
    said : tuple of Said
        Its own answers to all questions; empty for a checkpoint without a regression set.
    """

    name: str
    with_image: AnswerScores
    with_blank: AnswerScores
    stops: list[bool]
    said: tuple[Said, ...] = ()


_SCORES = ("correct", "log_probability", "least_probability")


def to_tensors(evaluation: Evaluation) -> dict[str, torch.Tensor]:
    """Return an evaluation, but for its name, as it is kept."""
    found = {"stops": torch.tensor(evaluation.stops, dtype=torch.bool)}
    for part in ("with_image", "with_blank"):
        for score in _SCORES:
            values = getattr(getattr(evaluation, part), score)
            dtype = torch.bool if score == "correct" else torch.float64
            found[f"{part}.{score}"] = torch.tensor(values, dtype=dtype)
    said = evaluation.said
    texts = [each.text.encode() for each in said]
    found["said.bytes"] = torch.tensor(list(b"".join(texts)), dtype=torch.uint8)
    found["said.lengths"] = torch.tensor([len(each) for each in texts], dtype=torch.int64)
    found["said.log_probability"] = torch.tensor(
        [each.log_probability for each in said], dtype=torch.float64
    )
    found["said.complete"] = torch.tensor([each.complete for each in said], dtype=torch.bool)
    return found


def from_tensors(name: str, kept: Mapping[str, torch.Tensor]) -> Evaluation:
    """Return an evaluation of `to_tensors`; KeyError or ValueError if it is none."""
    parts = [
        AnswerScores(*(kept[f"{part}.{score}"].tolist() for score in _SCORES))
        for part in ("with_image", "with_blank")
    ]
    content, texts, start = bytes(kept["said.bytes"].tolist()), [], 0
    for length in kept["said.lengths"].tolist():
        texts.append(content[start : start + length].decode("utf-8"))
        start += length
    said = zip(
        texts, kept["said.log_probability"].tolist(), kept["said.complete"].tolist(), strict=True
    )
    return Evaluation(
        name, parts[0], parts[1], kept["stops"].tolist(), tuple(Said(*each) for each in said)
    )


def sampled(count: int, most: int) -> Sequence[int]:
    """Return the numbers of at most `most` of `count` things, evenly spread."""
    return range(count)[:: max(1, count // most)][:most]


class Evaluations:
    """Evaluations by key, in memory and between runs.

    Parameters
    ----------
    kept : Kept
    """

    def __init__(self, kept: Kept):
        self._kept = kept
        self._known: dict[str, Evaluation] = {}

    def are_kept(self, key: str) -> bool:
        """Whether there is one under a key, of this run or an earlier one."""
        return key in self._known or self._kept.has(key)

    def known(self, key: str) -> Evaluation | None:
        """Return that of this run, if there is one."""
        return self._known.get(key)

    def get(self, name: str, key: str) -> Evaluation | None:
        """Return that of this run or an earlier one, which gets the name; None without one."""
        if key not in self._known and (kept := self._kept.get(key)) is not None:
            try:
                self._known[key] = from_tensors(name, kept)
            except (KeyError, ValueError):
                self._kept.drop(key)
        return self._known.get(key)

    def put(self, key: str, evaluation: Evaluation) -> None:
        """Keep one, for later runs too."""
        self._known[key] = evaluation
        self._kept.put(key, to_tensors(evaluation))
