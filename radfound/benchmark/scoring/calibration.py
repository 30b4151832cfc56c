"""Calibration error of a model, and the fit of calibration curves.

Expected calibration error after Naeini et al. (2015) and Guo et al. (2017): 15 bins of equal width,
weighted by their number of answers. The curve is sigmoid(logit(p) / temperature + bias) of the
length-normalised probability p, fitted by likelihood on validation questions, one for each
`calibration_group`. The bias is kept if it lowers the loss in five-fold cross-validation by patient:
temperature alone cannot correct a confident model that is wrong more often than not.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from radfound.engine.confidence import Curve, logit

logger = logging.getLogger(__name__)

BINS = 15
FOLDS = 5
FEWEST = 30  # fewest questions for a fit


@dataclass(frozen=True)
class Reliability:
    """Accuracy of answers by confidence.

    Parameters
    ----------
    ece : float
        Expected calibration error, in [0, 1].
    counts, confidence, accuracy : tuples of `BINS` numbers
        For each bin the number of answers, their mean confidence and accuracy; NaN for an empty bin.
    """

    ece: float
    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]


def reliability(confidence: Sequence[float], right: Sequence[float]) -> Reliability:
    """Compare confidence with accuracy, in bins of equal width.

    Parameters
    ----------
    confidence : sequence of N floats in [0, 1]
    right : sequence of N numbers, 1 for a correct answer and 0 for a wrong one
    """
    sure, hits = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(places, sure, BINS) / counts
        accuracy = np.bincount(places, hits, BINS) / counts
    ece = float(np.nansum(counts * np.abs(mean - accuracy)) / max(len(sure), 1))
    return Reliability(ece, tuple(counts.tolist()), tuple(mean.tolist()), tuple(accuracy.tolist()))


def fit_curve(
    probabilities: Sequence[float], right: Sequence[float], clusters: Sequence[str]
) -> Curve | None:
    """Fit temperature, and a bias if cross-validation prefers it; None for fewer than `FEWEST` questions.

    Parameters
    ----------
    probabilities : sequence of N floats
        Length-normalised probabilities of answers to validation questions.
    right : sequence of N numbers, 1 or 0
    clusters : sequence of N str
        Patients; the questions of one patient share a fold.
    """
    if len(right) < FEWEST:
        logger.warning(
            "%d validation questions are too few for a calibration; expected %d or more",
            len(right),
            FEWEST,
        )
        return None
    odds = np.array([logit(p) for p in probabilities])
    hits = np.asarray(right, dtype=float)
    folds = np.array([int(hashlib.sha256(c.encode()).hexdigest(), 16) % FOLDS for c in clusters])
    losses = {biased: _held_out_loss(odds, hits, folds, biased) for biased in (False, True)}
    temperature, bias = _fit(odds, hits, biased=losses[True] < losses[False])
    return Curve(temperature, bias, len(hits))


def _held_out_loss(odds: np.ndarray, hits: np.ndarray, folds: np.ndarray, biased: bool) -> float:
    losses = np.zeros(len(hits))
    for fold in np.unique(folds):
        held = folds == fold
        if held.all():
            return 0.0  # one patient: no fold to hold out, so no bias
        temperature, bias = _fit(odds[~held], hits[~held], biased)
        losses[held] = _losses(odds[held] / temperature + bias, hits[held])
    return float(losses.mean())


def _fit(odds: np.ndarray, hits: np.ndarray, biased: bool) -> tuple[float, float]:
    # Platt's targets keep the curve finite if all answers are correct or all wrong.
    targets = np.where(
        hits > 0, (hits.sum() + 1) / (hits.sum() + 2), 1 / (len(hits) - hits.sum() + 2)
    )

    def loss(parameters: np.ndarray) -> float:
        bias = parameters[1] if biased else 0.0
        return float(_losses(odds * np.exp(-parameters[0]) + bias, targets).mean())

    found = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-3, 5), (-10, 10)]).x
    return float(np.exp(found[0])), float(found[1]) if biased else 0.0


def _losses(odds: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return each answer's cross-entropy."""
    sure = np.clip(expit(odds), 1e-9, 1 - 1e-9)
    return -(targets * np.log(sure) + (1 - targets) * np.log(1 - sure))
