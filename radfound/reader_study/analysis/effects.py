"""Differences between sources, with intervals and tests.

The sampling unit is the case: ratings of a case are averaged over the readers, and intervals and tests are over
cases. So they generalise to other cases with these readers. Two texts are compared within each reader, so that a
lenient reader who has rated only one of them has no effect.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import stats

from radfound.benchmark.scoring.metrics import parts_of_mean, ratio
from radfound.benchmark.scoring.statistics import DRAWS, Interval, bootstrap
from radfound.optional import library
from radfound.reader_study.analysis.table import Ratings

OVERALL, PREFERENCE = "overall", "preference"
"""Names of the mean of all criteria (oriented so that 5 is good) and of the preferences."""

_ALL_SIGNS = 13  # up to this number of differences, the test enumerates all signs


def means(ratings: Ratings, draws: int = DRAWS) -> list[dict[str, Any]]:
    """Return each source's mean on each criterion with its 95 % interval (bootstrap over cases)."""
    return [
        {"criterion": name, "better": better, "source": source, **_mean(scores[..., s], draws)}
        for name, better, scores in _by_criterion(ratings)
        for s, source in enumerate(ratings.sources)
    ]


def comparisons(ratings: Ratings, draws: int = DRAWS) -> list[dict[str, Any]]:
    """Compare each pair of sources on each criterion, and by preference.

    Returns
    -------
    list of dict
        "difference" is the first source's mean less the second's over the cases that have both; "p" is of
        Wilcoxon's signed-rank test of the cases' differences, "p_holm" is corrected for all rows (Holm 1979).
        For preferences the difference is the share that preferred the first, less the share that preferred
        the second.
    """
    rows: list[dict[str, Any]] = [
        {
            "criterion": name,
            "better": better,
            "first": ratings.sources[a],
            "second": ratings.sources[b],
            **_difference(scores[..., a] - scores[..., b], draws),
        }
        for name, better, scores in _by_criterion(ratings)
        for a, b in ratings.pairs
    ]
    for p, (a, b) in enumerate(ratings.pairs):
        signs = ratings.preferences[0, :, :, p]
        if np.isfinite(signs).any():
            names = {"first": ratings.sources[a], "second": ratings.sources[b]}
            row = {"criterion": PREFERENCE, "better": "high", **names, **_difference(signs, draws)}
            rows.append(row)
    tested = [row for row in rows if np.isfinite(row["p"])]
    for row in rows:
        row["p_holm"] = float("nan")
    if tested:
        _, corrected = library("pingouin", "reader-study").multicomp(
            [row["p"] for row in tested], method="holm"
        )
        for row, p in zip(tested, corrected, strict=True):
            row["p_holm"] = float(p)
    return rows


def win_rates(ratings: Ratings, draws: int = DRAWS) -> list[dict[str, Any]]:
    """Return the win rate of each source, against each other source and against all others.

    A tie counts as half a win. "against" is None for all others together.
    """
    rows: list[dict[str, Any]] = []
    for s, source in enumerate(ratings.sources):
        rivals: dict[str | None, np.ndarray] = {}
        for p, (a, b) in enumerate(ratings.pairs):
            if s in (a, b):
                sign = 1 if s == a else -1
                other = ratings.sources[b if s == a else a]
                rivals[other] = sign * ratings.preferences[0, :, :, p]
        if len(rivals) > 1:
            rivals[None] = np.concatenate(list(rivals.values()))
        for against, signs in rivals.items():
            wins, ties, losses = (int((signs == sign).sum()) for sign in (1, 0, -1))
            if wins + ties + losses:
                counts = {"wins": wins, "ties": ties, "losses": losses}
                rate = _mean((signs + 1) / 2, draws)
                rows.append({"source": source, "against": against, **counts, **rate})
    return rows


def mean_of(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean of the finite values; NaN if there are none."""
    there = np.isfinite(values)
    counts = there.sum(axis)
    sums = np.where(there, values, 0.0).sum(axis)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _by_criterion(ratings: Ratings) -> list[tuple[str, str, np.ndarray]]:
    """Return name, good end and scores, shape (R, C, S), of each criterion and of all."""
    found = [
        (criterion.key, criterion.better, ratings.scores[0, ..., k])
        for k, criterion in enumerate(ratings.criteria)
    ]
    if len(found) > 1:
        found.append((OVERALL, "high", ratings.goodness))
    return found


def _mean(values: np.ndarray, draws: int) -> dict[str, Any]:
    """Return the mean over cases, each averaged over readers, with its interval; `values` has shape (R, C)."""
    cases = _cases(values)
    if not len(cases):
        return {"cases": 0, **asdict(Interval(*[float("nan")] * 3))}
    interval = bootstrap(
        ratio, parts_of_mean(cases.tolist()), [str(k) for k in range(len(cases))], draws
    )
    return {"cases": len(cases), **asdict(interval)}


def _difference(differences: np.ndarray, draws: int) -> dict[str, Any]:
    """Return the mean of within-reader differences, shape (R, C), with its interval and p."""
    found = _mean(differences, draws)
    return {
        "cases": found["cases"],
        "difference": found["value"],
        "low": found["low"],
        "high": found["high"],
        "p": wilcoxon(_cases(differences)),
    }


def _cases(values: np.ndarray) -> np.ndarray:
    """Return the readers' mean of each rated case."""
    cases = mean_of(values, axis=0)
    return cases[np.isfinite(cases)]


def wilcoxon(differences: np.ndarray) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; 1 if all differences are 0, NaN if there are none.

    Differences are rounded first, since the test ranks them and rounding errors would break ties. Zeros are left
    out, as Wilcoxon does.
    """
    rounded = np.round(differences, 9)
    if not len(rounded):
        return float("nan")
    moved = rounded[rounded != 0]
    if len(moved) < 2:  # both signs are equally likely
        return 1.0
    if len(moved) > _ALL_SIGNS:
        return float(stats.wilcoxon(moved).pvalue)
    # Exact over all signs, with ties: `scipy.stats.wilcoxon` does the same, a hundred times slower.
    signed_ranks = stats.rankdata(np.abs(moved)) * np.sign(moved)
    found = stats.permutation_test(
        (signed_ranks,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**_ALL_SIGNS,
    )
    return float(found.pvalue)
