"""Size and padding of pictures, and montages."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image


def fit(
    pixels: np.ndarray,
    aspect: float,
    *,
    side: int | None,
    square: bool,
    most_pixels: float | None = None,
) -> np.ndarray:
    """Resize a picture to square pixels and a size that the model takes.

    Parameters
    ----------
    pixels : uint8 array, shape (H, W, 3)
    aspect : float
        Height of a pixel over its width.
    side : int or None
        The longer side of the result; None keeps the size.
    square : bool
        Pad with black to a square.
    most_pixels : float or None
        Shrink to at most this many pixels, before padding.

    Returns
    -------
    uint8 array, shape (H', W', 3)
    """
    height, width = pixels.shape[0] * max(aspect, 1.0), pixels.shape[1] / min(aspect, 1.0)
    scale = 1.0 if side is None else side / max(height, width)
    if most_pixels is not None:
        scale = min(scale, math.sqrt(most_pixels / (height * width)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size != (pixels.shape[1], pixels.shape[0]):
        image = Image.fromarray(np.ascontiguousarray(pixels))
        pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    return _padded(pixels, max(size)) if square else np.ascontiguousarray(pixels)


def montage(tiles: Sequence[np.ndarray], side: int) -> np.ndarray:
    """Arrange pictures row by row in a grid of the given side; uint8, shape (side, side, 3)."""
    columns = math.ceil(math.sqrt(len(tiles)))
    tile = side // columns
    whole = np.zeros((side, side, 3), np.uint8)
    for number, pixels in enumerate(tiles):
        row, column = divmod(number, columns)
        small = fit(pixels, 1.0, side=tile, square=True)
        whole[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile] = small
    return whole


def _padded(pixels: np.ndarray, side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    whole = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    whole[top : top + height, left : left + width] = pixels
    return whole
