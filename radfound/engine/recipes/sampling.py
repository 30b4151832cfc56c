"""Which slices of many are shown: functions from (number of slices, most) to sorted indices."""

from __future__ import annotations

import numpy as np

from radfound.study.slices import evenly


def middles(count: int, most: int) -> list[int]:
    """Cut the volume into equal shares and take the middle of each."""
    return evenly(0, count, most)


def ends_of_shares(count: int, most: int) -> list[int]:
    """Cut the volume into equal shares and take the end of each, as MedGemma 1.5 was trained.

    The first slice is never taken, unless all are. Google's notebook high_dimensional_ct_hugging_face.
    """
    if count <= most:
        return list(range(count))
    return [round(i / most * (count - 1)) for i in range(1, most + 1)]


def first_to_last(count: int, most: int) -> list[int]:
    """Take evenly spaced slices that include the first and the last, rounded down, as Hulu-Med does."""
    return [int(index) for index in np.linspace(0, count - 1, min(count, most), dtype=int)]
