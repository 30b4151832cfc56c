"""Elements of a DICOM header as numbers, texts and vectors; damage is a ValueError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def values(value: Any) -> list:
    """Return the values of an element of any multiplicity; none where there is no element."""
    if value is None:
        return []
    return [value] if isinstance(value, str | bytes | int | float) else list(value)


def count(value: Any) -> int:
    """Return the first value as an integer; 0 if there is none."""
    first = next(iter(values(value)), 0)
    return int(first or 0)


def number(value: Any, default: float) -> float:
    """Return one number, or the default if there is none."""
    return default if value is None or value == "" else float(value)


def vector(value: Any, size: int) -> np.ndarray | None:
    """Return a vector of `size` numbers, or None if there is none."""
    if not value:
        return None
    found = np.array([float(part) for part in value])
    if found.size != size:
        raise ValueError("multiplicity")
    return found


def directions(value: Any) -> np.ndarray | None:
    """Return the unit vectors along a row and along a column, shape (2, 3)."""
    cosines = vector(value, 6)
    if cosines is None:
        return None
    axes = cosines.reshape(2, 3)
    lengths = np.linalg.norm(axes, axis=1, keepdims=True)
    if not lengths.min() > 0:
        raise ValueError("orientation")
    return axes / lengths


def column_row(value: Any) -> tuple[float, float] | None:
    """Swap DICOM's (between rows, between columns) to (between columns, between rows)."""
    found = vector(value, 2)
    return None if found is None else (float(found[1]), float(found[0]))


def first_item(group: Mapping, *sequences: str) -> Mapping:
    """Follow nested sequences to the first item of the last one; empty if one is missing."""
    for sequence in sequences:
        items = group.get(sequence)
        group = items[0] if items else {}
    return group


def element(group: Any, *path: str) -> Any:
    """Follow nested sequences to an element; None if it is missing, empty or damaged."""
    *sequences, keyword = path
    try:
        value = first_item(group, *sequences).get(keyword)
        return None if value is None or value == "" or value == [] else value
    except Exception:  # pydicom passes on any error of its parsers
        return None


def private_element(header: Any, group: int, creator: str, element: int) -> Any:
    """Return the value of a private element, or None."""
    try:
        return header.private_block(group, creator)[element].value
    except KeyError:
        return None
