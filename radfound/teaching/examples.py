"""Worked examples: corrected studies that a large model is shown before the same question about another study.

They are off unless they were measured to win on held-out corrections (`python -m training.teaching.examples`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radfound.correction import Correction
from radfound.exceptions import RadFoundError
from radfound.question import WorkedExample
from radfound.records.measured import MeasuredFile
from radfound.study.study import Study
from radfound.teaching.heads import Features
from radfound.teaching.recall import confirmed_rows

logger = logging.getLogger(__name__)

EXAMPLES = MeasuredFile(
    "examples.json", ("radfound.examples/1",), "python -m training.teaching.examples"
)
MOST_EXAMPLES = 2
_LONGEST_ANSWER = 300  # characters, which bounds the tokens of the prompt
_READ_AHEAD = 3  # corrections for each example, as the files of some may be gone


@dataclass(frozen=True)
class ExamplesGain:
    """What held-out corrections say about worked examples before one model's questions.

    Parameters
    ----------
    revision : str
        Weights that were measured; nothing is known of others.
    count : int
        Most examples before a question.
    corrections, patients : int
    without, shown : float
        Share of right answers without and with examples.
    low, high : float
        95 % interval of the difference, by patient.
    """

    revision: str
    count: int
    corrections: int
    patients: int
    without: float
    shown: float
    low: float
    high: float

    @property
    def wins(self) -> bool:
        """Whether the answers are better with examples beyond chance."""
        return self.low > 0

    def told(self) -> str:
        """Return the comparison in words."""
        verdict = "they are shown" if self.wins else "they are not shown"
        return (
            f"{100 * self.shown:.1f} % right with {self.count} worked examples, {100 * self.without:.1f} % without, "
            f"difference {100 * self.low:.1f} to {100 * self.high:.1f} points, {self.corrections} corrections of "
            f"{self.patients} patients: {verdict}"
        )

    def write(self, folder: Path) -> Path:
        """Write `examples.json` into a folder and return its path; StorageError if that fails."""
        content = asdict(self)
        return EXAMPLES.write(folder, content.pop("revision"), content)

    @classmethod
    def read(cls, folder: Path, revision: str) -> ExamplesGain | None:
        """Return what was measured in a folder; None or CheckpointError as for `MeasuredFile.read`."""

        def parse(data: dict[str, Any]) -> ExamplesGain:
            return cls(revision, **data)

        return EXAMPLES.read(folder, revision, parse)


def nearest_corrections(
    rows: Sequence[Correction],
    digest: str | None,
    vector: np.ndarray | None = None,
    features: Features | None = None,
) -> list[Correction]:
    """Return the corrections of a question that may be shown before it, the nearest studies first.

    Parameters
    ----------
    rows : sequence of Correction
        Of one question, those that hold, oldest first.
    digest : str or None
        Of the study that is asked about, which is no example of itself.
    vector : float array, shape (D,), optional
        Its features.
    features : callable, optional
        From another study's digest to its features. Studies without any come last, the newest first.
    """
    usable = [
        row
        for row in rows
        if row.image_hash not in (None, digest) and len(row.text) <= _LONGEST_ANSWER
    ]

    def distance(row: Correction) -> float:
        other = features(row.image_hash or "") if features and vector is not None else None
        if other is None or vector is None or other.shape != vector.shape:
            return float("inf")
        lengths = float(np.linalg.norm(other) * np.linalg.norm(vector))
        return 1 - float(other @ vector) / max(lengths, 1e-9)

    return sorted(reversed(usable), key=distance)


def worked_examples(
    rows: Sequence[Correction],
    study: Study,
    read: Callable[[tuple[str, ...]], Study],
    features: Features | None = None,
    *,
    confirm: int = 1,
    count: int = MOST_EXAMPLES,
) -> tuple[WorkedExample, ...]:
    """Return the nearest corrected studies of a question, with the readers' answers.

    Parameters
    ----------
    rows : sequence of Correction
        All corrections of the question that hold, as `Memory.asked` returns them.
    study : Study
        That the question is about.
    read : callable
        From the ids of images to their study; a study that it cannot read (RadFoundError) is left out.
    features : callable, optional
        From a study's digest to its features.
    confirm : int
        Number of readers who must agree on an answer.
    count : int
        Most examples.
    """
    vector = features(study.digest) if features else None
    nearest = nearest_corrections(confirmed_rows(rows, confirm), study.digest, vector, features)
    found: list[WorkedExample] = []
    for row in nearest[: _READ_AHEAD * count]:
        try:
            other = read(row.images)
        except RadFoundError as error:
            logger.info("a worked example is left out: %s", error.code)
            continue
        # A file may have been replaced under the same id since the correction.
        if other.digest == row.image_hash and row.question:
            source = f"{row.author}, {row.created[:10]}"
            found.append(WorkedExample(row.id, other, row.question, row.text.strip(), source))
        if len(found) == count:
            break
    return tuple(found)
