"""Which study to read next: what the model is least certain of, what is unlike the studies known."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_EXPLORED = 0.2  # share of hybrid choices that are left to chance


@dataclass(frozen=True, eq=False)
class Score:
    """What is known about a study before a reader has seen it.

    Parameters
    ----------
    uncertainty : float or None
        Of the answer the model was least certain of, in [0, 1] (`Answer.uncertainty`).
    question : str or None
        What that answer was to; None for a caption or report.
    embedding : float32 array, shape (D,), or None
        Where the study lies among others; of any length.
    """

    uncertainty: float | None = None
    question: str | None = None
    embedding: np.ndarray | None = None


@dataclass(frozen=True)
class Choice:
    """A study and why it is proposed."""

    image: str
    reason: str


def by_name(images: Sequence[str]) -> list[Choice]:
    """Return the studies in alphabetical order."""
    return [
        Choice(each, f"first by name of {len(images)} unread studies") for each in sorted(images)
    ]


def at_random(images: Sequence[str], chance: random.Random, why: str = "") -> list[Choice]:
    """Return the studies in any order; `why` says why chance decides."""
    reason = f"at random from {len(images)} unread studies" + (f": {why}" if why else "")
    return [Choice(each, reason) for each in chance.sample(list(images), len(images))]


def by_uncertainty(
    images: Sequence[str], scores: Mapping[str, Score], chance: random.Random
) -> list[Choice]:
    """Return the studies the model is least certain of first, and those without a score last.

    Ties are broken by name. Where no study has a score, chance decides, and the reason says so.
    """
    scored, rest = _split(
        images, {each: scores[each].uncertainty for each in images if each in scores}
    )
    if not scored:
        return at_random(images, chance, "none has been scored yet")
    scored.sort(key=lambda item: (-item[1], item[0]))
    chosen = [
        Choice(each, f"least certain of {len(scored)}: {_said(scores[each])}") for each, _ in scored
    ]
    return chosen + at_random(rest, chance, "the scored ones are taken")


def by_diversity(
    images: Sequence[str],
    scores: Mapping[str, Score],
    corrected: Collection[str],
    chance: random.Random,
) -> list[Choice]:
    """Return the studies farthest from every corrected one first (farthest-point sampling).

    Where nothing is corrected yet, the most typical study comes first: the one nearest to the mean.
    """
    near, rest = _split(images, _distances(images, scores, corrected))
    if not near:
        return at_random(images, chance, "none has been scored yet")
    near.sort(key=lambda item: (-item[1], item[0]))
    known = _embedded(corrected, scores)
    if known:
        told = f"most unlike the {len(known)} corrected studies, of {len(near)}"
        chosen = [Choice(each, f"{told}: distance {distance:.2f}") for each, distance in near]
    else:
        chosen = [Choice(each, f"most typical of {len(near)} unread studies") for each, _ in near]
    return chosen + at_random(rest, chance, "the scored ones are taken")


def by_both(
    images: Sequence[str],
    scores: Mapping[str, Score],
    corrected: Collection[str],
    chance: random.Random,
) -> list[Choice]:
    """Return the studies that are both uncertain and unlike the corrected ones first.

    The two ranks count alike; one choice in five is left to chance, to find what neither sees.
    """
    if chance.random() < _EXPLORED:
        return at_random(images, chance, "one choice in five explores")
    uncertain = {each: scores[each].uncertainty for each in images if each in scores}
    ranks = [_ranks(uncertain), _ranks(_distances(images, scores, corrected))]
    both, rest = _split(
        images,
        {each: -(ranks[0][each] + ranks[1][each]) for each in ranks[0] if each in ranks[1]},
    )
    if not both:
        return by_uncertainty(images, scores, chance)
    both.sort(key=lambda item: (-item[1], item[0]))
    chosen = [
        Choice(
            each,
            f"of {len(both)} studies number {ranks[0][each]} by uncertainty "
            f"({_said(scores[each])}) and number {ranks[1][each]} by difference from what is known",
        )
        for each, _ in both
    ]
    return chosen + at_random(rest, chance, "the scored ones are taken")


def _said(score: Score) -> str:
    return (
        f"'{score.question}' {score.uncertainty:.2f}"
        if score.question
        else f"{score.uncertainty:.2f}"
    )


def _split(
    images: Sequence[str], values: Mapping[str, float | None]
) -> tuple[list[tuple[str, float]], list[str]]:
    """Return the images that have a value, with it, and the others."""
    known = [(each, value) for each in images if (value := values.get(each)) is not None]
    return known, [each for each in images if values.get(each) is None]


def _ranks(values: Mapping[str, float | None]) -> dict[str, int]:
    """Return 1 for the largest value, 2 for the next one, ..."""
    known, _ = _split(list(values), values)
    known.sort(key=lambda item: (-item[1], item[0]))
    return {each: rank for rank, (each, _) in enumerate(known, start=1)}


def _embedded(images: Collection[str], scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    found = {each: scores[each].embedding for each in images if each in scores}
    return {each: vector for each, vector in found.items() if vector is not None}


def _distances(
    images: Sequence[str], scores: Mapping[str, Score], corrected: Collection[str]
) -> dict[str, float]:
    """Return each image's distance to the nearest corrected one, or its nearness to the mean."""
    unread, known = _embedded(images, scores), _embedded(corrected, scores)
    if not unread:
        return {}
    points: np.ndarray[Any, Any] = np.stack(list(unread.values())).astype(np.float32)
    if not known:
        centred = np.linalg.norm(points - points.mean(0), axis=1)
        return dict(zip(unread, map(float, -centred), strict=True))
    others = np.stack(list(known.values())).astype(np.float32)
    squares = (points**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * points @ others.T
    nearest = np.sqrt(np.maximum(squares.min(1), 0.0))
    return dict(zip(unread, map(float, nearest), strict=True))
