"""Confidence and uncertainty of an answer, from its token probabilities.

Length-normalised probability and entropy after Malinin and Gales (arXiv 2002.07650): no extra forward
pass, and comparable between short and long answers. A `Calibration`, fitted on questions with known
answers, maps the probability to the probability of a correct answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from radfound.records.measured import MeasuredFile

CALIBRATION = MeasuredFile(
    "calibration.json", ("radfound.calibration/1",), "radfound bench --calibrate"
)
_EPSILON = 1e-6  # probabilities are clipped to [epsilon, 1 - epsilon]
_ASKS_YES_OR_NO = frozenset(
    "is are was were am does do did has have had can could will would should any".split()
)


def length_normalised_probability(log_probabilities: Sequence[float]) -> float | None:
    """Return the geometric mean of the tokens' probabilities, in [0, 1]; None for no tokens."""
    if not log_probabilities:
        return None
    return math.exp(sum(log_probabilities) / len(log_probabilities))


def normalised_entropy(entropies: Sequence[float], vocabulary: int) -> float | None:
    """Return the tokens' mean entropy (nats) over that of a uniform choice, in [0, 1]; None for no tokens."""
    if not entropies:
        return None
    return min(1.0, max(0.0, sum(entropies) / len(entropies) / math.log(vocabulary)))


def logit(probability: float) -> float:
    """Return log(p / (1 - p)), finite for 0 and 1 too."""
    clipped = min(max(probability, _EPSILON), 1 - _EPSILON)
    return math.log(clipped / (1 - clipped))


def calibration_group(task: str, question: str | None) -> str | None:
    """Return the calibration group of a question: "closed", "open", or None for captions and reports.

    A question is closed if its first word asks for yes or no.
    """
    if task != "vqa":
        return None
    words = (question or "").lower().replace("/", " ").split()
    return "closed" if words and words[0] in _ASKS_YES_OR_NO else "open"


@dataclass(frozen=True)
class Curve:
    """Maps a length-normalised probability p to the probability of a correct answer.

    sigmoid(logit(p) / temperature + bias), after Guo et al. (2017) and Platt (1999).
    """

    temperature: float
    bias: float
    fitted_on: int

    def apply(self, probability: float) -> float:
        """Return the probability of a correct answer, in (0, 1)."""
        return 1 / (1 + math.exp(-(logit(probability) / self.temperature + self.bias)))


@dataclass(frozen=True)
class Calibration:
    """Calibration curves of one model, by `calibration_group`.

    Parameters
    ----------
    revision : str
        Weights that the curves were fitted to; invalid for other weights.
    curves : dict of str to Curve
    """

    revision: str
    curves: Mapping[str, Curve]

    def confidence(
        self, task: str, question: str | None, probability: float | None
    ) -> float | None:
        """Return the calibrated probability that an answer is right, or None without a curve."""
        curve = self.curves.get(calibration_group(task, question) or "")
        return None if curve is None or probability is None else curve.apply(probability)

    def write(self, folder: Path) -> Path:
        """Write `calibration.json` beside the weights of a checkpoint or an adapter; errors as for `MeasuredFile.write`."""
        curves = {name: asdict(curve) for name, curve in self.curves.items()}
        return CALIBRATION.write(folder, self.revision, {"curves": curves})

    @classmethod
    def read(cls, folder: Path, revision: str) -> Calibration | None:
        """Return the calibration of a checkpoint or an adapter; None or CheckpointError as for `MeasuredFile.read`."""

        def parse(data: dict[str, Any]) -> Calibration:
            curves = data["curves"].items()
            return cls(revision, {name: Curve(**curve) for name, curve in curves})

        return CALIBRATION.read(folder, revision, parse)
