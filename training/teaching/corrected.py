"""A simulated reader's corrections of a ward's studies."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from radfound.correction import Correction
from radfound.teaching.questions import same_answer
from training.teaching.wards import Ward


def judged(
    ward: Ward,
    row: int,
    question: str,
    answer: str,
    *,
    author: str = "Dr A",
    right: str | None = None,
) -> Correction:
    """Return the correction of one answer; `right` is the reader's answer, by default the ward's."""
    right = str(ward.right[row]) if right is None else right
    accepts = same_answer(answer, right)
    return Correction(
        images=(f"i{row}",),
        task="vqa",
        question=question,
        model_text=answer,
        verdict="accepted" if accepts else "edited",
        text="" if accepts else right,
        author=author,
        image_hash=str(ward.digests[row]),
        id=f"{author.replace(' ', '')}-{row:05d}",
    )


def read_until(ward: Ward, order: Iterable[int], wrong: int) -> list[Correction]:
    """Judge the model's answers to the ward's question until `wrong` of them were wrong; accepted ones are kept too."""
    found: list[Correction] = []
    for row in order:
        found.append(judged(ward, row, ward.question, str(ward.base[ward.question][row])))
        wrong -= found[-1].verdict == "edited"
        if wrong == 0:
            break
    return found


def balanced(right: np.ndarray, given: np.ndarray) -> float:
    """Return the mean over the answers of the share of right ones, ignoring case."""
    right, given = (np.char.lower(np.asarray(each, dtype=str)) for each in (right, given))
    return float(np.mean([(given == right)[right == each].mean() for each in np.unique(right)]))


def accuracy(right: np.ndarray, given: np.ndarray) -> float:
    """Return the share of right answers, ignoring case."""
    right, given = (np.char.lower(np.asarray(each, dtype=str)) for each in (right, given))
    return float((given == right).mean())
