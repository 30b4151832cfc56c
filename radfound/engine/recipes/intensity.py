"""From stored grey values to 8-bit RGB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from radfound.study.intensity import apply_window, percentile_range, scale_between
from radfound.study.study import StudyImage

Greys = Callable[[np.ndarray], np.ndarray]
"""From stored values (H, W) to uint8 (H, W, 3)."""


class Intensity(Protocol):
    """A mapping of grey values that a recipe can name."""

    def of(self, image: StudyImage) -> tuple[Greys, str]:
        """Return the mapping for an image, and its description for people."""


@dataclass(frozen=True)
class Windows:
    """Three CT windows, as red, green and blue.

    Parameters
    ----------
    ranges_hu : three (lowest, highest) pairs in HU
    """

    ranges_hu: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]

    def of(self, image: StudyImage) -> tuple[Greys, str]:
        """Return the mapping for a CT in HU, and its description."""
        ranges = list(dict.fromkeys(self.ranges_hu))
        words = ", ".join(f"{low:g}..{high:g}" for low, high in ranges)

        def greys(hu: np.ndarray) -> np.ndarray:
            channels = {
                (low, high): _bytes(apply_window(hu, (low + high) / 2, high - low))
                for low, high in ranges
            }
            return np.stack([channels[each] for each in self.ranges_hu], axis=-1)

        return greys, f"{'windows' if len(ranges) > 1 else 'window'} {words} HU"


@dataclass(frozen=True)
class MinMax:
    """From the smallest to the largest value, of the whole acquisition or of each slice.

    Parameters
    ----------
    each_slice : bool
    truncate : bool
        Round down rather than to the nearest grey value.
    """

    each_slice: bool = False
    truncate: bool = False

    def of(self, image: StudyImage) -> tuple[Greys, str]:
        """Return the mapping for an image, and its description."""
        whole = None if self.each_slice else (float(image.voxels.min()), float(image.voxels.max()))

        def greys(values: np.ndarray) -> np.ndarray:
            low, high = whole or (float(values.min()), float(values.max()))
            scaled = scale_between(values, low, high)
            return _grey(np.floor(scaled * 255) / 255 if self.truncate else scaled)

        return greys, f"smallest to largest value of the {'slice' if self.each_slice else 'volume'}"


@dataclass(frozen=True)
class Percentiles:
    """Between two robust percentiles of the image; 8-bit pictures stay as they are."""

    low: float = 0.5
    high: float = 99.5

    def of(self, image: StudyImage) -> tuple[Greys, str]:
        """Return the mapping for an image, and its description."""
        if image.voxels.dtype == np.uint8 and not image.is_volume:
            return lambda values: np.repeat(values[..., None], 3, axis=-1), "8-bit picture"
        bottom, top = percentile_range(image.voxels, self.low, self.high)
        words = f"percentiles {self.low:g} to {self.high:g}"
        return lambda values: _grey(scale_between(values, bottom, top)), words


def _bytes(scaled: np.ndarray) -> np.ndarray:
    return np.rint(scaled * 255).astype(np.uint8)


def _grey(scaled: np.ndarray) -> np.ndarray:
    return np.repeat(_bytes(scaled)[..., None], 3, axis=-1)
