"""Active learning: rank unread studies by the model's uncertainty and by distance to corrected ones."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_EXPLORED = 0.2  # share of hybrid choices that are left to chance
_LESS_SURE = "the model is less sure here than in most studies"
_SAMPLED = 1000  # unread studies, sampled at each hybrid choice, that the choice must represent


@dataclass(frozen=True, eq=False)
class Score:
    """The scores of a study before a reader has seen it.

    Parameters
    ----------
    uncertainty : float or None
        Highest uncertainty of the model's answers, in [0, 1] (`Answer.uncertainty`).
    question : str or None
        The question of that answer; None for a caption or report.
    embedding : float32 array, shape (D,), or None
        Embedding of the study; need not have unit norm.
    """

    uncertainty: float | None = None
    question: str | None = None
    embedding: np.ndarray | None = None


@dataclass(frozen=True)
class Choice:
    """A study and the reason for proposing it."""

    image: str
    reason: str


def by_name(images: Sequence[str]) -> list[Choice]:
    """Return the studies in alphabetical order."""
    return [
        Choice(each, f"first by name of {len(images)} unread studies") for each in sorted(images)
    ]


def at_random(images: Sequence[str], chance: random.Random, why: str = "") -> list[Choice]:
    """Return the studies in random order; `why` is the reason for it."""
    reason = f"at random from {len(images)} unread studies" + (f": {why}" if why else "")
    return [Choice(each, reason) for each in chance.sample(list(images), len(images))]


def by_uncertainty(
    images: Sequence[str], scores: Mapping[str, Score], chance: random.Random
) -> list[Choice]:
    """Return the studies by decreasing uncertainty, those without a score last.

    Ties are broken by name. If no study has a score, the order is random, and the reason says so.
    """
    scored, rest = _split(
        images, {each: scores[each].uncertainty for each in images if each in scores}
    )
    if not scored:
        return at_random(images, chance, "the model has seen none of them yet")
    scored.sort(key=lambda item: (-item[1], item[0]))
    rank = f"the model is least sure here, of {len(scored)} unread studies"
    chosen = [Choice(each, rank + _question_text(scores[each])) for each, _ in scored]
    return chosen + at_random(rest, chance, "the model has not seen it yet")


def by_diversity(
    images: Sequence[str],
    scores: Mapping[str, Score],
    corrected: Collection[str],
    chance: random.Random,
) -> list[Choice]:
    """Return the studies farthest from every corrected one first (farthest-point sampling).

    If no study is corrected yet, the study nearest to the mean embedding comes first.
    """
    near, rest = _split(images, _distances(images, scores, corrected))
    if not near:
        return at_random(images, chance, "the model has seen none of them yet")
    near.sort(key=lambda item: (-item[1], item[0]))
    known = _embedded(corrected, scores)
    if known:
        reason = f"most unlike the {len(known)} corrected studies, of {len(near)} unread studies"
    else:
        reason = f"most typical of {len(near)} unread studies"
    chosen = [Choice(each, reason) for each, _ in near]
    return chosen + at_random(rest, chance, "the model has not seen it yet")


def by_both(
    images: Sequence[str],
    scores: Mapping[str, Score],
    corrected: Collection[str],
    chance: random.Random,
) -> list[Choice]:
    """Return the studies by the share of uncertainty that they represent far from corrected studies.

    A study represents the studies that are nearer to it than to any corrected study, each weighted with
    its uncertainty times the gain in distance (facility location, Wei et al., ICML 2015). One choice in five
    is random, to explore beyond the scores. Without embeddings the order is by uncertainty alone.
    """
    if chance.random() < _EXPLORED:
        return at_random(images, chance, "one choice in five is left to chance")
    near, rest = _split(images, _represented(images, scores, corrected, chance))
    if not near:
        return by_uncertainty(images, scores, chance)
    near.sort(key=lambda item: (-item[1], item[0]))
    what = f"typical of {len(near)} unread studies that are unlike the corrected ones"
    unsure = _unsure(images, scores)
    chosen = [
        Choice(each, what + f"; {_LESS_SURE}{_question_text(scores[each])}" * (each in unsure))
        for each, _ in near
    ]
    return chosen + at_random(rest, chance, "the model has not seen it yet")


def reasons_to_read(
    images: Sequence[str], scores: Mapping[str, Score], corrected: Collection[str]
) -> dict[str, str]:
    """Return what is known for or against reading each unread study next, as one sentence.

    A study is called less sure than most, or unlike the corrected ones, if it is so more than half of
    `images` are. Studies of which nothing is known are left out.
    """
    unsure = _unsure(images, scores)
    is_placed = bool(_embedded(corrected, scores))
    distances = _distances(images, scores, corrected) if is_placed else {}
    far = _upper_half(distances)
    found = {}
    for image in unsure | distances.keys():
        if image in unsure:
            alone = ", and no similar one was corrected" * (image in far)
            found[image] = f"{_LESS_SURE.capitalize()}{alone}{_question_text(scores[image], '.')}"
        elif image in far:
            found[image] = "No similar study was corrected."
        else:
            found[image] = "A similar study was corrected."
    return found


def _question_text(score: Score, otherwise: str = "") -> str:
    return f": {score.question}" if score.question else otherwise


def _unsure(images: Sequence[str], scores: Mapping[str, Score]) -> set[str]:
    known, _ = _split(images, {each: scores[each].uncertainty for each in images if each in scores})
    return _upper_half(dict(known))


def _upper_half(values: Mapping[str, float]) -> set[str]:
    """Return the images whose value is above the median."""
    median = np.median(list(values.values())) if values else 0.0
    return {image for image, value in values.items() if value > median}


def _split(
    images: Sequence[str], values: Mapping[str, float | None]
) -> tuple[list[tuple[str, float]], list[str]]:
    """Return the images that have a value, each with its value, and the other images."""
    known = [(each, value) for each in images if (value := values.get(each)) is not None]
    return known, [each for each in images if values.get(each) is None]


def _embedded(images: Collection[str], scores: Mapping[str, Score]) -> dict[str, np.ndarray]:
    found = {each: scores[each].embedding for each in images if each in scores}
    return {each: vector for each, vector in found.items() if vector is not None}


def _distances(
    images: Sequence[str], scores: Mapping[str, Score], corrected: Collection[str]
) -> dict[str, float]:
    """Return each image's distance to the nearest corrected one, or minus the distance to the mean."""
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
    """Return each image's share of the uncertainty far from corrected studies, as `by_both` ranks them."""
    unread, known = _embedded(images, scores), _embedded(corrected, scores)
    if not unread:
        return {}
    points = _stacked(unread)
    sample = chance.sample(range(len(points)), min(_SAMPLED, len(points)))
    to_others = _between(points, points[sample])
    nearest = (
        _between(points[sample], _stacked(known)).min(1)
        if known
        else np.full(len(sample), to_others.max() or 1.0, np.float32)
    )
    values = [scores[image].uncertainty for image in unread]
    mean = np.mean([value for value in values if value is not None] or [1.0])
    weights = np.array([mean if value is None else value for value in values], np.float32)[sample]
    gained = np.maximum(nearest - to_others, 0.0) @ weights
    shares = gained / max(float(nearest @ weights), 1e-12)
    return dict(zip(unread, map(float, shares), strict=True))


def _stacked(vectors: Mapping[str, np.ndarray]) -> np.ndarray:
    found: np.ndarray[Any, Any] = np.stack(list(vectors.values())).astype(np.float32)
    return found


def _between(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the distances of points, shape (N, D), to others, shape (M, D): shape (N, M)."""
    squares = (points**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * points @ others.T
    distances: np.ndarray[Any, Any] = np.sqrt(np.maximum(squares, 0.0))
    return distances
