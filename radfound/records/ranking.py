"""Which study to read next: what the model is least certain of, what is unlike the studies known."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_EXPLORED = 0.2  # share of hybrid choices that are left to chance
_STOOD_FOR = 1000  # unread studies, drawn anew each time, that a hybrid choice is to stand for


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
    """Return the studies first that stand for most of what is uncertain and unlike the corrected ones.

    A study stands for those that it is nearer to than any corrected study is: each counts with its
    uncertainty, times how much nearer (a facility location function, as Wei et al., ICML 2015). One choice in
    five is left to chance, to find what the scores do not see. Without embeddings uncertainty alone decides.
    """
    if chance.random() < _EXPLORED:
        return at_random(images, chance, "one choice in five explores")
    near, rest = _split(images, _represented(images, scores, corrected, chance))
    if not near:
        return by_uncertainty(images, scores, chance)
    near.sort(key=lambda item: (-item[1], item[0]))
    is_asked = any(scores[each].uncertainty is not None for each, _ in near)
    told = f"of {'the uncertainty in ' * is_asked}{len(near)} unread studies that no correction is near"
    chosen = [
        Choice(each, f"stands for {share:.0%} {told}{_here(scores[each])}") for each, share in near
    ]
    return chosen + at_random(rest, chance, "the scored ones are taken")


def _here(score: Score) -> str:
    return "" if score.uncertainty is None else f"; here: {_said(score)}"


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
    points = _stacked(unread)
    if not known:
        centred = np.linalg.norm(points - points.mean(0), axis=1)
        return dict(zip(unread, map(float, -centred), strict=True))
    return dict(zip(unread, map(float, _between(points, _stacked(known)).min(1)), strict=True))


def _represented(
    images: Sequence[str],
    scores: Mapping[str, Score],
    corrected: Collection[str],
    chance: random.Random,
) -> dict[str, float]:
    """Return the share of the uncertainty that is not near a corrected study which each image would bring near."""
    unread, known = _embedded(images, scores), _embedded(corrected, scores)
    if not unread:
        return {}
    points = _stacked(unread)
    some = chance.sample(range(len(points)), min(_STOOD_FOR, len(points)))
    to_others = _between(points, points[some])
    nearest = (
        _between(points[some], _stacked(known)).min(1)
        if known
        else np.full(len(some), to_others.max() or 1.0, np.float32)
    )
    told = [scores[each].uncertainty for each in unread]
    mean = np.mean([each for each in told if each is not None] or [1.0])
    weights = np.array([mean if each is None else each for each in told], np.float32)[some]
    gained = np.maximum(nearest - to_others, 0.0) @ weights
    shares = gained / max(float(nearest @ weights), 1e-12)
    return dict(zip(unread, map(float, shares), strict=True))


def _stacked(vectors: Mapping[str, np.ndarray]) -> np.ndarray:
    found: np.ndarray[Any, Any] = np.stack(list(vectors.values())).astype(np.float32)
    return found


def _between(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the distances of points, shape (N, D), to others, shape (M, D): shape (N, M)."""
    squares = (some**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * some @ others.T
    distances: np.ndarray[Any, Any] = np.sqrt(np.maximum(squares, 0.0))
    return distances
