"""Confidence intervals by cluster bootstrap over patients (Efron and Tibshirani 1993).

Patients are drawn with replacement with all their items, because answers about one patient are correlated.
The statistics of a `Metric` are additive, so a draw needs no new scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 1000
LEVEL = 0.95

Value = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A score with its 95 % interval; NaN without scored items."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """A difference of two scores on the same items.

    `p` is twice the share of draws on the other side of zero, at least 2 / (draws + 1).
    """

    p: float


def draw_counts(clusters: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Return the count of each cluster in each draw, shape (draws, clusters)."""
    chances = np.full(clusters, 1 / clusters)
    return np.random.default_rng(seed).multinomial(clusters, chances, size=draws)


def cluster_sums(parts: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """Sum the statistics of the items of each cluster: (N, K) to (C, K)."""
    names, rows = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((len(names), parts.shape[1]))
    np.add.at(sums, rows, parts)
    return sums


def bootstrap(
    value: Value, parts: np.ndarray, clusters: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Return a score with its interval.

    Parameters
    ----------
    value : callable
        From sums of statistics, shape (..., K), to scores, shape (...), as `Metric.value`.
    parts : array, shape (N, K)
        Statistics of the items, as `Metric.statistics` returns them.
    clusters : sequence of N str
        The patient of each item; items of one patient are drawn together.
    draws, seed : int
    """
    sums = cluster_sums(parts, clusters)
    scores = value(draw_counts(len(sums), draws, seed) @ sums)
    return Interval(float(value(sums.sum(0))), *_ends(scores))


def paired(
    value: Value,
    ours: np.ndarray,
    theirs: np.ndarray,
    clusters: Sequence[str],
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """Return the difference of the scores of `ours` and `theirs`, on the same items and draws."""
    one, other = cluster_sums(ours, clusters), cluster_sums(theirs, clusters)
    counts = draw_counts(len(one), draws, seed)
    found = value(counts @ one) - value(counts @ other)
    observed = float(value(one.sum(0)) - value(other.sum(0)))
    kept = found[np.isfinite(found)]
    side = min((kept <= 0).sum(), (kept >= 0).sum()) if len(kept) else 0
    p = min(1.0, 2 * (int(side) + 1) / (len(kept) + 1)) if len(kept) else float("nan")
    return Difference(observed, *_ends(found), p)


def _ends(scores: np.ndarray) -> tuple[float, float]:
    kept = scores[np.isfinite(scores)]
    if len(kept) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
