"""Regions of interest: a box or a plane in a study, in mm."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.dataclasses import dataclass

from radfound.validation import CONFIG, Number, validate


def _three_numbers(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError:
        raise ValueError("expected three finite numbers, x, y and z in mm") from None


Point = Annotated[tuple[Number, Number, Number], WrapValidator(_three_numbers)]
"""x, y and z in mm, RAS."""


def _two_corners(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError("expected two corners, [[x0, y0, z0], [x1, y1, z1]]")
    return value


def _rising(corners: tuple[Point, Point]) -> tuple[Point, Point]:
    for axis, low, high in zip("xyz", *corners, strict=True):
        if low >= high:
            raise ValueError(
                f"{axis} runs from {low:g} to {high:g} mm; expected the lower value first"
            )
    return corners


def _of_length_one(vector: Point) -> Point:
    length = math.hypot(*vector)
    if not 1e-6 < length < math.inf:
        raise ValueError(f"vector of length {length:g}; expected a direction")
    if abs(length - 1) < 1e-9:  # dividing again would change the last digit
        return vector
    x, y, z = vector
    return x / length, y / length, z / length


@dataclass(frozen=True, config=CONFIG)
class Box:
    """A box along the axes of the patient.

    Parameters
    ----------
    box_mm : ((x0, y0, z0), (x1, y1, z1))
        Lowest and highest corner, RAS, mm.
    """

    box_mm: Annotated[tuple[Point, Point], BeforeValidator(_two_corners), AfterValidator(_rising)]


@dataclass(frozen=True, config=CONFIG)
class PointAndNormal:
    """A point of a plane in mm, RAS, and its normal, which is scaled to length 1."""

    point: Point
    normal: Annotated[Point, AfterValidator(_of_length_one)]


@dataclass(frozen=True, config=CONFIG)
class Plane:
    """A plane through the study, such as the slice on display."""

    slice_mm: PointAndNormal


def _kind(value: object) -> str | None:
    if isinstance(value, (Box, Plane)):
        value = asdict(value)
    if isinstance(value, Mapping) and len(value) == 1:
        return str(next(iter(value)))
    return None


Region = Annotated[
    Annotated[Box, Tag("box_mm")] | Annotated[Plane, Tag("slice_mm")],
    Discriminator(
        _kind,
        custom_error_type="region",
        custom_error_message="expected an object with either box_mm or slice_mm",
    ),
]
"""A box or a plane; hashable, as part of cache keys."""

_ADAPTER: TypeAdapter[Box | Plane | None] = TypeAdapter(Region | None)


def region_from_json(value: object) -> Box | Plane | None:
    """Parse a region; None stands for the whole study.

    Parameters
    ----------
    value : object
        {"box_mm": [[x0, y0, z0], [x1, y1, z1]]}, {"slice_mm": {"point": …, "normal": …}} or None.

    Raises
    ------
    RequestError
        If the value is neither a box nor a plane, or has no extent; the message names the field.
    """
    return validate(_ADAPTER, value, "region", within="region")


def region_to_json(region: Box | Plane | None) -> dict[str, Any] | None:
    """Return a region as JSON, for `region_from_json`."""
    return None if region is None else json.loads(region_key(region) or "")


def region_key(region: Box | Plane | None) -> str | None:
    """Return a region as canonical one-line JSON; None for the whole study."""
    return None if region is None else json.dumps(asdict(region), sort_keys=True)
