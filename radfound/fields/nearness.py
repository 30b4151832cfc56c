"""The test of distance to the pictures that the classifiers were fitted to.

The distance to the nearest training pictures (Sun et al. 2022, arXiv 2204.06507) and the relative distance to the nearest
kind of picture (Ren et al. 2021, arXiv 2106.09022), in plain numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Subspace:
    """The main directions of the training pictures' features.

    Parameters
    ----------
    mean, scale : float arrays, shape (D,)
    vectors : float array, shape (D, K)
        Principal directions of the standardised features.
    spread : float array, shape (K,)
        Standard deviation along each.
    """

    mean: np.ndarray
    scale: np.ndarray
    vectors: np.ndarray
    spread: np.ndarray

    def project(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map features (N, D) to whitened coordinates (N, K) and to the length of what these leave out (N,).

        The length is that of "virtual logits" (Wang et al. 2022, arXiv 2203.10807).
        """
        standard = (features - self.mean) / self.scale
        along = standard @ self.vectors
        left = np.maximum((standard**2).sum(1) - (along**2).sum(1), 0.0)
        return along / self.spread, np.sqrt(left)


@dataclass(frozen=True, eq=False)
class Kinds:
    """The kinds of training pictures as normal distributions of one shape around different centres.

    Parameters
    ----------
    names : tuple of C str
        Their modalities.
    turn : float array, shape (K, K)
        Maps whitened coordinates to those in which every kind has unit variance.
    centres : float array, shape (C, K)
        Centre of each kind, turned.
    """

    names: tuple[str, ...]
    turn: np.ndarray
    centres: np.ndarray

    def relative(self, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map whitened coordinates (N, K) to the nearest kind and how near it is, shape (N,) each.

        Returns
        -------
        nearest : int array
            Index into `names`.
        distance : float array
            Squared distance to the nearest kind less that to all pictures together.
        """
        turned = along @ self.turn
        squares = (turned**2).sum(1)[:, None] + (self.centres**2).sum(1)[None]
        squares = squares - 2 * turned @ self.centres.T
        return squares.argmin(1), squares.min(1) - (along**2).sum(1)


@dataclass(frozen=True, eq=False)
class Nearness:
    """Distance of a picture to the training pictures, between what is typical of its kind and what held-out pictures keep.

    Parameters
    ----------
    inner, pooled : Subspace
        Of the features "inner", which tell how a picture is made, and "pooled", which tell what it shows.
    kinds : Kinds
        In the whitened inner coordinates.
    references : float array, shape (R, K)
        Whitened inner coordinates of some training pictures.
    sets : int array, shape (R,)
        Index into `names`: the set of each reference.
    names : tuple of str
        Names of the sets.
    set_limits : float array, shape (len(names),)
        For each set, the distance within which 95 % of its held-out pictures lie.
    typical, limits : float arrays, shape (C, 4)
        For each kind, the median of each of the distances that `raw` returns, and the limit of one that is alone beyond it.
    """

    inner: Subspace
    pooled: Subspace
    kinds: Kinds
    references: np.ndarray
    sets: np.ndarray
    names: tuple[str, ...]
    set_limits: np.ndarray
    typical: np.ndarray
    limits: np.ndarray

    neighbours = 3

    def strangeness(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return how far pictures are from all training pictures, shape (N,); above 1 a kind is not known.

        The length of what the distances are beyond the typical ones, in units of the limits of the nearest kind: several
        distances that are each somewhat too long count as one that is far too long.
        """
        raw, nearest = self.raw(features)
        typical = self.typical[nearest]
        beyond = np.maximum((raw - typical) / (self.limits[nearest] - typical), 0.0)
        return np.sqrt((beyond**2).sum(1))

    def nearest_kinds(self, features: Mapping[str, np.ndarray]) -> set[str]:
        """Return the modalities that the pictures are nearest to."""
        return {self.kinds.names[index] for index in self.raw(features)[1]}

    def raw(self, features: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return four distances, shape (N, 4), and the nearest kind, int array, shape (N,).

        To the nearest references of any set; the lengths left out by `inner` and `pooled`; relative to the nearest kind.
        """
        along, left = self.inner.project(features["inner"])
        _, left_pooled = self.pooled.project(features["pooled"])
        nearest = self._nearest(along, np.ones(len(self.sets), dtype=bool))
        kind, relative = self.kinds.relative(along)
        return np.stack([nearest, left, left_pooled, relative], axis=1), kind

    def to_sets(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the distance to each set, in units of the set's limit, shape (N, len(names))."""
        along, _ = self.inner.project(features["inner"])
        distances = [self._nearest(along, self.sets == k) for k in range(len(self.names))]
        return np.stack(distances, axis=1) / self.set_limits

    def _nearest(self, along: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        references = self.references[chosen]
        squares = (along**2).sum(1)[:, None] + (references**2).sum(1)[None]
        squares = squares - 2 * along @ references.T
        nearest = np.sort(np.maximum(squares, 0.0), axis=1)[:, : self.neighbours]
        return np.sqrt(nearest).mean(1)
