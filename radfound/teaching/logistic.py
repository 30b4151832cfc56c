"""Multinomial logistic regression for few examples with many features, by numpy and scipy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Logistic:
    """A fitted classifier of K classes.

    Parameters
    ----------
    mean, scale : float64 arrays, shape (D,)
        Standardisation of the features.
    weights : float64 array, shape (D, K)
    bias : float64 array, shape (K,)
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: np.ndarray

    def log_probabilities(
        self, features: np.ndarray, offset: np.ndarray | float = 0.0
    ) -> np.ndarray:
        """Map features (N, D), and an offset of the logits (N, K), to log-probabilities (N, K)."""
        logits = ((features - self.mean) / self.scale) @ self.weights + self.bias + offset
        return np.asarray(log_softmax(logits, axis=1))


@dataclass(frozen=True, eq=False)
class Span:
    """Standardised examples in the space that they span: no larger than their number.

    Parameters
    ----------
    mean, scale : float64 arrays, shape (D,)
    reduced : float64 array, shape (N, R)
        Coordinates of the examples, R <= N.
    back : float64 array, shape (R, D)
        Unit vectors of the coordinates.
    """

    mean: np.ndarray
    scale: np.ndarray
    reduced: np.ndarray
    back: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Span:
        """Standardise features (N, D) and rotate them into their span."""
        features = np.asarray(features, dtype=np.float64)
        mean, scale = features.mean(0), features.std(0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        left, singular, right = np.linalg.svd((features - mean) / scale, full_matrices=False)
        kept = singular > 1e-9 * max(1.0, float(singular.max(initial=0.0)))
        return cls(mean, scale, left[:, kept] * singular[kept], right[kept])

    def fit(
        self,
        labels: np.ndarray,
        classes: int,
        penalty: float,
        offset: np.ndarray | float = 0.0,
    ) -> Logistic:
        """Fit a classifier of the original features to all examples."""
        weights, bias = fit(self.reduced, labels, classes, penalty, offset)
        return Logistic(self.mean, self.scale, self.back.T @ weights, bias)


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    penalty: float,
    offset: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit weights (D, K) and bias (K,); every class weighs the same, however often it occurs.

    Parameters
    ----------
    features : float array, shape (N, D)
        Standardised.
    labels : int array, shape (N,)
        From 0 to K - 1; each occurs.
    classes : int
        K.
    penalty : float
        Of the squared weights, beside the sum of N losses.
    offset : float array, shape (N, K), optional
        Of the logits: what is known of each example without the features.
    """
    counts = np.bincount(labels, minlength=classes)
    weight = len(labels) / (classes * np.maximum(counts, 1))[labels]
    target = np.eye(classes)[labels]
    size = features.shape[1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        both = flat.reshape(size + 1, classes)
        log_p = log_softmax(features @ both[:-1] + both[-1] + offset, axis=1)
        error = weight[:, None] * (np.exp(log_p) - target)
        gradient = np.vstack([features.T @ error + penalty * both[:-1], error.sum(0)])
        value = -(weight * (log_p * target).sum(1)).sum() + penalty / 2 * (both[:-1] ** 2).sum()
        return float(value), gradient.ravel()

    start = np.zeros((size + 1) * classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": _TOLERANCE})
    both = found.x.reshape(size + 1, classes)
    return both[:-1], both[-1]
