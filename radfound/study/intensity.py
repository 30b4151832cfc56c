"""Scale grey values to [0, 1]: windows for CT, robust percentiles for other images."""

from __future__ import annotations

import math

import numpy as np

from radfound.exceptions import IntensityError

_SAMPLE_SIZE = 1_000_000
_JUDGED_SIZE = 250_000
_BACKGROUND_SHARE = 0.05
_FEWEST_FOREGROUND_VOXELS = 16
# CT numbers of air, noise included, and those of partial volume only.
_AIR_HU = (-1100, -900)
_BELOW_FAT_HU = (-600, -300)
_LEAST_AIR = 0.005 / 200
_AIR_PEAK = 1.25


def check_finite(voxels: np.ndarray, name: str = "voxels") -> None:
    """Raise IntensityError if any voxel is NaN or infinite; `name` begins the message."""
    if voxels.dtype.kind != "f" or voxels.size == 0:
        return
    # Minimum and maximum propagate NaN and need no copy, unlike isfinite over the whole volume.
    with np.errstate(invalid="ignore"):
        if np.isfinite(voxels.min()) and np.isfinite(voxels.max()):
            return
    bad = int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
    raise IntensityError(
        f"{name}: {bad:,} of {voxels.size:,} voxels are NaN or infinite; "
        "expected finite values; replace them by the background value"
    )


def apply_window(hu: np.ndarray, center_hu: float, width_hu: float) -> np.ndarray:
    """Map CT numbers linearly to [0, 1], clipping outside the window.

    Parameters
    ----------
    hu : array, shape (D, H, W), Hounsfield units
    center_hu, width_hu : float, HU; the width must be positive

    Returns
    -------
    float32 array, shape (D, H, W), in [0, 1]

    Raises
    ------
    IntensityError
        If width_hu <= 0, either is not finite, or hu holds NaN or infinity.
    """
    if not (math.isfinite(center_hu) and math.isfinite(width_hu) and width_hu > 0):
        raise IntensityError(
            f"window of centre {center_hu} and width {width_hu} HU; "
            "expected finite numbers and a positive width"
        )
    hu = np.asarray(hu)
    check_finite(hu, "window")
    return _scale(hu, center_hu - width_hu / 2, center_hu + width_hu / 2)


def percentile_range(
    voxels: np.ndarray, low: float = 0.5, high: float = 99.5
) -> tuple[float, float]:
    """Return two robust percentiles of the grey values, for `scale_between`; equal if all voxels are equal.

    If at least 5 % of the voxels hold exactly the smallest value, as in a skull-stripped brain or a
    collimated radiograph, they are excluded as background: otherwise they would dominate the percentiles.
    Large volumes are sampled regularly, at about a million voxels.

    Parameters
    ----------
    voxels : array of any real type
    low, high : float, percent, 0 <= low < high <= 100

    Raises
    ------
    IntensityError
        If the percentiles are out of order, or voxels hold NaN or infinity.
    """
    if not 0 <= low < high <= 100:
        raise IntensityError(
            f"percentiles {low} and {high}; expected 0 <= low < high <= 100 in that order"
        )
    voxels = np.asarray(voxels)
    check_finite(voxels, "percentiles")
    if voxels.size == 0:
        return 0.0, 0.0
    smallest, largest = float(voxels.min()), float(voxels.max())
    sample = _sample(voxels)
    foreground = sample[sample > smallest]
    background_share = 1 - foreground.size / sample.size
    if background_share < _BACKGROUND_SHARE or foreground.size < _FEWEST_FOREGROUND_VOXELS:
        foreground = sample
    bottom, top = (float(value) for value in np.percentile(foreground, (low, high)))
    if not top > bottom:
        # Nearly all voxels are equal: show the few that differ.
        bottom, top = smallest, largest
    return bottom, top


def scale_between(voxels: np.ndarray, bottom: float, top: float) -> np.ndarray:
    """Map [bottom, top] to [0, 1] in float32, clipping outside; zeros where the two are equal."""
    if not top > bottom:
        return np.zeros(voxels.shape, np.float32)
    return _scale(voxels, bottom, top)


def looks_like_hounsfield(voxels: np.ndarray) -> bool:
    """Return whether values are CT numbers, for files that do not name their modality.

    True if there is soft tissue near zero, nothing far outside the range of tissue, bone and metal, and a
    separate peak of air near -1000. Difference images, field maps, phase maps and z-scores have negative
    values too, but without such a peak. In doubt the result is False.
    """
    voxels = np.asarray(voxels)
    if voxels.size == 0 or voxels.dtype.kind not in "if":
        return False
    sample = _sample(voxels, _JUDGED_SIZE).astype(np.float32)
    air, between = (_share_per_hu(sample, *limits) for limits in (_AIR_HU, _BELOW_FAT_HU))
    soft_tissue = np.mean((sample >= -150) & (sample <= 300))
    lowest, highest = sample.min(), np.percentile(sample, 99)
    return bool(
        air >= _LEAST_AIR
        and air > _AIR_PEAK * between
        and soft_tissue >= 0.02
        and lowest >= -10_000
        and 0 < highest < 3_000
    )


def _share_per_hu(sample: np.ndarray, low: float, high: float) -> float:
    return float(np.mean((sample >= low) & (sample < high))) / (high - low)


def _scale(voxels: np.ndarray, bottom: float, top: float) -> np.ndarray:
    """Map [bottom, top] to [0, 1] in float32, in place."""
    # In float64 if float32 cannot resolve the range, as with large 32-bit counts.
    exact = np.float32(top) - np.float32(bottom) > 1e-3 * max(abs(top), abs(bottom), 1e-30)
    scaled = voxels.astype(np.float32 if exact else np.float64)
    np.subtract(scaled, bottom, out=scaled)
    np.divide(scaled, top - bottom, out=scaled)
    np.clip(scaled, 0, 1, out=scaled)
    return scaled.astype(np.float32, copy=False)


def _sample(voxels: np.ndarray, size: int = _SAMPLE_SIZE) -> np.ndarray:
    """Return about `size` voxels at regular steps; all voxels of a small volume."""
    step = max(1, voxels.size // size)
    while math.gcd(step, voxels.shape[-1] if voxels.ndim else 1) != 1:
        # A step that shares a factor with the row length would sample some columns only.
        step += 1
    return voxels.ravel()[::step]
