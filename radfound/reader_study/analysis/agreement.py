"""Agreement of readers: with each other, with themselves, and with automatic metrics."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import stats

from radfound.benchmark.scoring.statistics import DRAWS, LEVEL, Interval
from radfound.optional import library
from radfound.reader_study.analysis.effects import OVERALL, PREFERENCE, mean_of
from radfound.reader_study.analysis.table import Ratings
from radfound.reader_study.design.plan import SCALE

_NONE = float("nan")


def between_readers(ratings: Ratings, draws: int = DRAWS) -> list[dict[str, Any]]:
    """Return the agreement of the readers on each criterion, and on preferences.

    Returns
    -------
    list of dict
        "alpha" is Krippendorff's for ordinal data with its 95 % interval (bootstrap over cases); "icc_single" and
        "icc_mean" are ICC(2,1) and ICC(2,k) of Shrout and Fleiss (1979), absolute agreement with readers
        as random effects, with their F-based intervals, over the texts that all readers have rated. "texts" counts
        the texts rated by two readers or more; for preferences, the pairs.
    """
    rows = []
    for k, criterion in enumerate(ratings.criteria):
        scores = ratings.scores[0, ..., k]
        icc = intraclass(scores.reshape(len(scores), -1).T)
        row = {"criterion": criterion.key, **alpha_with_interval(scores, SCALE, draws)}
        rows.append(row | icc)
    if np.isfinite(ratings.preferences[0]).any():
        # each pair in both directions: the order of the sources must not create a majority
        preferences = np.concatenate([ratings.preferences[0], -ratings.preferences[0]], axis=-1)
        found = alpha_with_interval(preferences, (-1, 0, 1), draws)
        rows.append({"criterion": PREFERENCE, **found, "texts": found["texts"] // 2})
    return rows


def within_readers(ratings: Ratings, draws: int = DRAWS) -> list[dict[str, Any]]:
    """Return the agreement of readers with themselves on repeated cases, pooled and for each reader.

    Returns
    -------
    list of dict
        "reader" is None for the pooled rows; "alpha" as in `between_readers`, of the two showings; "same" and
        "within_one" are the shares of score pairs that are equal, and at most one point apart.
    """
    rows = []
    for k, criterion in enumerate(ratings.criteria):
        both = ratings.scores[..., k]
        pooled = np.stack([np.concatenate(list(showing), axis=-1) for showing in both])
        apart = np.abs(both[0] - both[1])
        for reader, scores, gaps in (
            (None, pooled, apart),
            *((name, both[:, r], apart[r]) for r, name in enumerate(ratings.readers)),
        ):
            gaps = gaps[np.isfinite(gaps)]
            if len(gaps):
                row = {
                    "criterion": criterion.key,
                    "reader": reader,
                    "pairs": len(gaps),
                    "same": float((gaps == 0).mean()),
                    "within_one": float((gaps <= 1).mean()),
                    **alpha_with_interval(scores, SCALE, draws if reader is None else 0),
                }
                rows.append(row)
    return rows


def with_metrics(
    ratings: Ratings, scores: Mapping[str, np.ndarray], draws: int = DRAWS
) -> list[dict[str, Any]]:
    """Return the rank correlation of automatic metrics with the readers' scores.

    Parameters
    ----------
    ratings : Ratings
    scores : dict of str to float array, shape (C, S)
        By metric, oriented so that higher is better; NaN if a text has no score.
    draws : int

    Returns
    -------
    list of dict
        Kendall's tau-b of a metric and the readers' mean, oriented so that higher is better, over all texts, with p;
        for the mean of all criteria also with a 95 % interval (bootstrap over cases).
    """
    readers = {
        criterion.key: mean_of(ratings.scores[0, ..., k], axis=0)
        * (1 if criterion.better == "high" else -1)
        for k, criterion in enumerate(ratings.criteria)
    }
    readers[OVERALL] = mean_of(ratings.goodness, axis=0)
    rows = []
    for metric, values in scores.items():
        for criterion, mean in readers.items():
            both = np.stack([values, mean], axis=-1)
            tau, p = _kendall(both)
            texts = int(np.isfinite(both).all(-1).sum())
            row = {"metric": metric, "criterion": criterion, "texts": texts, "tau": tau, "p": p}
            if criterion == OVERALL and np.isfinite(tau):
                low, high = _over_cases(lambda drawn: _kendall(drawn)[0], both, draws)
                row |= {"low": low, "high": high}
            rows.append(row)
    return rows


def alpha(said: np.ndarray, values: Sequence[float]) -> float:
    """Return Krippendorff's alpha for ordinal data; NaN if nothing can be compared or nothing varies.

    Parameters
    ----------
    said : float array, shape (R, N)
        Ratings of N units by R readers, NaN if missing.
    values : sequence of float
        All possible ratings, in order.
    """
    return _alpha(_counts(said, values), values)


def _counts(scores: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """Count the readers with each value for each unit: (R, ...) to (..., V)."""
    return (scores[..., None] == np.asarray(values, dtype=float)).sum(0)


def _alpha(counts: np.ndarray, values: Sequence[float]) -> float:
    paired = counts[counts.sum(-1) >= 2]
    if (paired.sum(0) > 0).sum() < 2:
        return _NONE
    return float(
        library("krippendorff", "reader-study").alpha(
            value_counts=paired, level_of_measurement="ordinal", value_domain=list(values)
        )
    )


def alpha_with_interval(said: np.ndarray, values: Sequence[float], draws: int) -> dict[str, Any]:
    """Return alpha of ratings, shape (R, C) or (R, C, S), with its interval over cases."""
    counts = _counts(said, values).reshape(said.shape[1], -1, len(values))
    low, high = _over_cases(lambda drawn: _alpha(drawn, values), counts, draws)
    texts = int((counts.sum(-1) >= 2).sum())
    return {"texts": texts, "alpha": _alpha(counts, values), "low": low, "high": high}


def intraclass(said: np.ndarray) -> dict[str, Any]:
    """Return ICC(2,1) and ICC(2,k), each with its interval, or None if undefined.

    They are ICC(A,1) and ICC(A,k) in McGraw and Wong (1996), and in the library.

    Parameters
    ----------
    said : float array, shape (N, R)
        Texts by readers; texts with a missing rating are left out.
    """
    whole = said[np.isfinite(said).all(1)]
    nothing = {"icc_texts": len(whole), "icc_single": None, "icc_mean": None}
    if len(whole) < 3 or whole.shape[1] < 2 or np.ptp(whole) == 0:
        return nothing
    pandas = library("pandas", "reader-study")
    texts, readers = np.indices(whole.shape)
    long = pandas.DataFrame(
        {"text": texts.ravel(), "reader": readers.ravel(), "score": whole.ravel()}
    )
    with warnings.catch_warnings():  # with perfect agreement, F divides by zero
        warnings.simplefilter("ignore", RuntimeWarning)
        table = library("pingouin", "reader-study").intraclass_corr(
            data=long, targets="text", raters="reader", ratings="score"
        )
    found = {}
    for name, kind in (("icc_single", "ICC(A,1)"), ("icc_mean", "ICC(A,k)")):
        row = table[table["Type"] == kind].iloc[0]
        low, high = row["CI95"]
        found[name] = asdict(Interval(float(row["ICC"]), float(low), float(high)))
    return nothing | found


def _kendall(both: np.ndarray) -> tuple[float, float]:
    """Return Kendall's tau-b and its p of pairs, shape (..., 2); NaN if one of the two does not vary."""
    pairs = both.reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(1)]
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return _NONE, _NONE
    found = stats.kendalltau(pairs[:, 0], pairs[:, 1])
    return float(found.statistic), float(found.pvalue)


def _over_cases(
    value: Callable[[np.ndarray], float], cases: np.ndarray, draws: int, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a value over cases (the first axis)."""
    drawn = np.random.default_rng(seed).integers(len(cases), size=(draws, len(cases)))
    found = np.array([value(cases[chosen]) for chosen in drawn])
    found = found[np.isfinite(found)]
    if not len(found):
        return _NONE, _NONE
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
