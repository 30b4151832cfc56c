"""The classifiers of fields and findings: logistic regression with a temperature (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Head:
    """Multinomial logistic regression with a calibrated temperature.

    Parameters
    ----------
    classes : tuple of str, C of them
        The same class may come several times, for pictures of several kinds; its probabilities are added up.
    weight : float array, shape (C, D)
    bias : float array, shape (C,)
    temperature : float
        Divides the logits.
    """

    classes: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray
    temperature: float = 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """The different classes, sorted: the columns of `probabilities`."""
        return tuple(sorted(set(self.classes)))

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Map features (N, D) to calibrated logits (N, C)."""
        return (features @ self.weight.T.astype(np.float32) + self.bias) / self.temperature

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Map features (N, D) to probabilities (N, len(names))."""
        logits = self.logits(features)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        named = np.array(self.classes)
        added = np.stack([odds[:, named == name].sum(1) for name in self.names], axis=1)
        return added / odds.sum(1, keepdims=True)

    def chances(
        self, parts: tuple[str, ...], features: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Return the mean probability of each class over the frames, from some parts of their features."""
        values = np.concatenate([features[part] for part in parts], axis=1)
        return dict(zip(self.names, map(float, self.probabilities(values).mean(0)), strict=True))


@dataclass(frozen=True, eq=False)
class FieldHead:
    """Head of a field, with what was measured of it.

    Parameters
    ----------
    head : Head
    parts : tuple of str
        Parts of the features that it takes, in order.
    sure : float
        Probability from which a value is named.
    measured : dict
        Scores on held-out pictures; "competence" is the lead over controls, with its lower bound "low".
    """

    head: Head
    parts: tuple[str, ...]
    sure: float = 0.5
    measured: Mapping[str, Any] = field(default_factory=dict)

    def chances(self, features: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the mean probability of each class over the frames."""
        return self.head.chances(self.parts, features)

    @property
    def is_competent(self) -> bool:
        """Whether the answers depend on the right picture, as far as measured."""
        return self.measured.get("competence", {}).get("low", 1.0) > 0


@dataclass(frozen=True, eq=False)
class FindingHead:
    """Head of a finding in one set of pictures.

    Parameters
    ----------
    finding, set : str
    head : Head
    parts : tuple of str
    limit : str
        From which pictures it was learnt, and how well, for people.
    measured : dict
    """

    finding: str
    set: str
    head: Head
    parts: tuple[str, ...]
    limit: str
    measured: Mapping[str, Any] = field(default_factory=dict)

    def chances(self, features: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the mean probability of each class over the frames."""
        return self.head.chances(self.parts, features)
