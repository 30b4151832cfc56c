"""Whether a study resembles the studies that a head was fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_DIRECTIONS = 20
_FOLDS = 5
_INSIDE = 0.98  # share of studies of the same kind that are taken for such


@dataclass(frozen=True, eq=False)
class Nearness:
    """The span of the main directions of some features; a study outside it is of another kind.

    The distance is the length of what the main directions leave over. The limit is a quantile of the distances of
    studies that were held out.

    Parameters
    ----------
    mean : float64 array, shape (D,)
    directions : float64 array, shape (R, D)
    farthest : float
    """

    mean: np.ndarray
    directions: np.ndarray
    farthest: float

    @classmethod
    def of(cls, features: np.ndarray) -> Nearness:
        """Fit to features (N, D)."""
        features = np.asarray(features, dtype=np.float64)
        folds = np.arange(len(features)) % _FOLDS
        held = np.concatenate(
            [
                _distances(features[folds == fold], *_span(features[folds != fold]))
                for fold in range(_FOLDS)
            ]
        )
        return cls(*_span(features), float(np.quantile(held, _INSIDE)))

    def holds(self, features: np.ndarray) -> bool:
        """Return whether a study with features (D,) is near."""
        return bool(_distances(features[None], self.mean, self.directions)[0] <= self.farthest)


def _span(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = features.mean(0)
    return mean, np.linalg.svd(features - mean, full_matrices=False)[2][:_DIRECTIONS]


def _distances(features: np.ndarray, mean: np.ndarray, directions: np.ndarray) -> np.ndarray:
    centred = features - mean
    return np.asarray(np.linalg.norm(centred - (centred @ directions.T) @ directions, axis=1))
