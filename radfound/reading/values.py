"""Convert stored values to grey values: rescale, colour to luminance, choice of dtype."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radfound.exceptions import IntensityError, RequestError, StudyAmbiguousError

_MOST_LISTED = 12


def rescale(stored: np.ndarray, slope: float, intercept: float, name: str) -> np.ndarray:
    """Apply slope and intercept; integers stay integers if the result is integral.

    Integers keep their type for slope 1 and intercept 0, take the smallest sufficient signed type
    for an integral intercept, and become float32 otherwise.
    """
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
        raise IntensityError(
            f"{name}: rescale slope {slope} and intercept {intercept}; "
            "expected finite numbers and a slope other than 0; export it again"
        )
    if slope == 1 and intercept == 0:
        return plain_type(stored)
    if slope == 1 and stored.dtype.kind in "iu" and is_whole(intercept):
        return shift(stored, int(intercept))
    # Use float64 if float32 cannot resolve neighbouring stored values.
    is_exact = stored.dtype.itemsize <= (4 if stored.dtype.kind == "f" else 2)
    values: np.ndarray = stored.astype(np.float32 if is_exact else np.float64)
    values *= slope
    values += intercept
    return values.astype(np.float32, copy=False)


def is_whole(intercept: float) -> bool:
    """Whether the intercept is integral and small enough to keep integers."""
    return float(intercept).is_integer() and abs(intercept) < 2**31


def shift(stored: np.ndarray, offset: int) -> np.ndarray:
    """Add a whole number to integers, in the smallest of int16, int32 and int64 that holds them."""
    if offset == 0 or stored.size == 0:
        return stored
    low, high = int(stored.min()) + offset, int(stored.max()) + offset
    types = (np.dtype(np.int16), np.dtype(np.int32), np.dtype(np.int64))
    dtype = next(
        (kind for kind in types[:2] if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max),
        types[-1],
    )
    # Intermediate wrap-around is harmless: the sum fits.
    shifted = stored.astype(dtype)
    np.add(shifted, np.array(offset).astype(dtype), out=shifted)
    return shifted


def plain_type(values: np.ndarray) -> np.ndarray:
    """Return values in native byte order, floats as float32; copies only if necessary."""
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    if values.dtype.kind == "b":
        return values.view(np.uint8)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def luminance(colour: np.ndarray) -> np.ndarray:
    """Convert RGB (and unused alpha) along the last axis to luminance (ITU-R 601)."""
    is_whole = colour.dtype.kind in "iu"
    exact = np.float32 if colour.dtype.itemsize <= 2 else np.float64
    weights = np.array([0.299, 0.587, 0.114], exact)
    grey = np.empty(colour.shape[:-1], colour.dtype if is_whole else exact)
    for row, colours in enumerate(colour):  # row by row, to avoid a float copy of the picture
        values = colours[..., :3].astype(exact) @ weights
        grey[row] = np.rint(values) if is_whole else values
    return grey


def rgb_of_ybr(ybr: np.ndarray, bits: int, *, is_partial: bool = False) -> np.ndarray:
    """Convert luma and two colour differences along the last axis to RGB.

    Parameters
    ----------
    ybr : unsigned integer array, shape (..., 3)
    bits : int
        Bits per sample; colour differences of zero are stored as half the range.
    is_partial : bool
        Whether values use a reduced range (PS3.3 C.7.6.3.1.2, YBR_PARTIAL): luma from 16 to 235,
        differences from 16 to 240 of 8 bits.
    """
    top, scale = (1 << bits) - 1, 2.0 ** (bits - 8)
    luma, blue, red = np.moveaxis(ybr.astype(np.float32), -1, 0)
    blue, red = blue - 128 * scale, red - 128 * scale
    if is_partial:
        luma = (luma - 16 * scale) * (255 / 219)
        blue, red = blue * (255 / 224), red * (255 / 224)
    colour = np.stack(
        [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1
    )
    return np.rint(colour.clip(0, top)).astype(ybr.dtype)


def choose_volume(count: int, volume: int | None, name: str, words: Sequence[str] = ()) -> int:
    """Return the index of the volume to load out of `count`; raise if the choice is open.

    Parameters
    ----------
    count : int
    volume : int or None
    name : str
        Names the file or series in messages.
    words : sequence of str, optional
        Description of each volume, such as "echo 2, TE 90 ms".

    Raises
    ------
    StudyAmbiguousError
        If there are several and none was chosen.
    RequestError
        If the chosen volume does not exist.
    """
    if volume is None:
        if count == 1:
            return 0
        listed = "".join(f"; {index}: {text}" for index, text in enumerate(words[:_MOST_LISTED]))
        more = "; ..." if len(words) > _MOST_LISTED else ""
        raise StudyAmbiguousError(
            f"{name}: holds {count} volumes; expected one; choose with volume=0 to {count - 1}"
            f"{listed}{more}",
            [str(index) for index in range(count)],
            argument="volume",
            words=words,
        )
    if isinstance(volume, bool) or not isinstance(volume, int | np.integer):
        raise RequestError(f"volume: {volume!r} is no whole number; expected 0 to {count - 1}")
    if not 0 <= volume < count:
        raise RequestError(
            f"volume: {volume} of {name}, which holds {count}; expected 0 to {count - 1}"
        )
    return int(volume)
