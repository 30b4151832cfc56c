"""Where in a study a question, or its correction, looks."""

from __future__ import annotations

import json
import math
from typing import Any

from radfound.exceptions import RequestError
from radfound.shapes import number_of, object_of


def parse_region(value: object) -> dict[str, Any] | None:
    """Check a region of interest.

    Returns
    -------
    dict or None
        {"box_mm": [[x0, y0, z0], [x1, y1, z1]]} with x0 < x1 and so on, or
        {"slice_mm": {"point": [x, y, z], "normal": [x, y, z]}} with a normal of length 1; RAS, mm.

    Raises
    ------
    RequestError
        If it is neither a box nor a slice, or has no extent; the message names the part.
    """
    if value is None:
        return None
    data = object_of("region", value)
    if set(data) == {"box_mm"}:
        return {"box_mm": _box(data["box_mm"])}
    if set(data) == {"slice_mm"}:
        plane = object_of("region.slice_mm", data["slice_mm"])
        point = _vector("region.slice_mm.point", plane.get("point"))
        return {"slice_mm": {"point": point, "normal": _normal(plane.get("normal"))}}
    found = ", ".join(sorted(str(key)[:40] for key in data)) or "nothing"
    raise RequestError(f"region: found {found}; expected either box_mm or slice_mm")


def region_key(region: dict[str, Any] | None) -> str | None:
    """Return a region as text that is equal for equal regions; None for the whole study."""
    return None if region is None else json.dumps(region, sort_keys=True)


def _box(value: object) -> list[list[float]]:
    name = "region.box_mm"
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise RequestError(f"{name}: expected two corners, [[x0, y0, z0], [x1, y1, z1]]")
    low, high = (_vector(f"{name}[{index}]", corner) for index, corner in enumerate(value))
    for axis, start, end in zip("xyz", low, high, strict=True):
        if start >= end:
            raise RequestError(f"{name}: {axis} runs from {start:g} to {end:g} mm; expected a rise")
    return [low, high]


def _normal(value: object) -> list[float]:
    name = "region.slice_mm.normal"
    vector = _vector(name, value)
    length = math.hypot(*vector)
    if not 1e-6 < length < math.inf:
        raise RequestError(f"{name}: its length is {length:g}; expected a direction")
    if abs(length - 1) < 1e-9:  # dividing again would change the last digit
        return vector
    return [part / length for part in vector]


def _vector(name: str, value: object) -> list[float]:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise RequestError(f"{name}: expected three numbers, x, y and z in mm")
    return [number_of(name, part) for part in value]
