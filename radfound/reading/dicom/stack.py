"""Stacks of parallel slices: sorted along the normal, checked for gaps, and their affine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radfound.exceptions import GeometryError
from radfound.reading.dicom.types import Frame
from radfound.reading.geometry import ras_affine

_SAME_DIRECTION = 2e-3
_SAME_SPACING = 1e-3
_SAME_PLACE_MM = 0.01
# Positions are often rounded to 0.1 mm, including the first and the last.
_ROUNDING_MM = 0.11
_ROUNDED_UNEVENNESS = 0.2
_UNEVENNESS = 0.1


def places_of(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group parallel frames by position and sort the groups along the normal."""
    normal = np.cross(*frames[0].directions)
    depth = {id(frame): float(normal @ frame.position_mm) for frame in frames}
    ordered = sorted(frames, key=lambda frame: depth[id(frame)])
    places = [[ordered[0]]]
    for frame in ordered[1:]:
        if depth[id(frame)] - depth[id(places[-1][0])] <= _SAME_PLACE_MM:
            places[-1].append(frame)
        else:
            places.append([frame])
    return places


def check_one_each(places: Sequence[Sequence[Frame]], name: str) -> None:
    """Raise GeometryError if a position holds several slices of one volume."""
    fewest, most = min(places, key=len), max(places, key=len)
    found = " and ".join(frame.file.name for frame in most[:2])
    if len(fewest) != len(most):
        raise GeometryError(
            f"{name}: {len(most)} slices at one position ({found}) and {len(fewest)} at another "
            f"({fewest[0].file.name}); expected the same number at each; select one series or remove the extra slices"
        )
    if len(most) > 1:
        raise GeometryError(
            f"{name}: {len(most)} slices at each position ({found}), and no header says which "
            "belong together; expected echoes, b-values, times or the like to tell them apart; "
            "load the slices of each volume separately"
        )


def stacks_of(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group frames by size, direction and spacing.

    Raises
    ------
    GeometryError
        If one frame differs from all others.
    """
    stacks: list[list[Frame]] = []
    for frame in frames:
        for stack in stacks:
            if _difference(stack[0], frame) is None:
                stack.append(frame)
                break
        else:
            stacks.append([frame])
    largest = max(stacks, key=len)
    lone = next((stack[0] for stack in stacks if len(stack) == 1), None)
    if lone is not None and len(largest) > 1:
        raise GeometryError(f"{lone.file.name}: {_difference(largest[0], lone)}")
    return stacks


def describe(stack: Sequence[Frame]) -> str:
    """Return plane, number and size of parallel slices in words."""
    first = stack[0]
    plane = ("sagittal", "coronal", "axial")[int(np.abs(np.cross(*first.directions)).argmax())]
    rows, columns = first.shape
    size = f"{len(stack)} image{'s' if len(stack) > 1 else ''} of {columns} x {rows}"
    if first.spacing_mm is None:
        return f"{plane}, {size}"
    return f"{plane}, {size}, {first.spacing_mm[0]:.3g} mm a pixel"


def stack_affine(slices: Sequence[Frame], name: str) -> np.ndarray:
    """Return the affine to RAS of sorted slices; gantry tilt becomes shear.

    Raises
    ------
    GeometryError
        If the slices are not evenly spaced along a line, or have no pixel spacing.
    """
    first = slices[0]
    if first.spacing_mm is None:
        raise GeometryError(
            f"{first.file.name}: no pixel spacing; expected the size of a pixel in mm; "
            "export the series with its whole header"
        )
    positions = np.stack([piece.position_mm for piece in slices])
    if len(slices) > 1:
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
        _check_even(positions, step, slices, name)
    else:
        step = np.cross(*first.directions) * first.file.thickness_mm
    across, down = first.directions
    columns = np.stack([across * first.spacing_mm[0], down * first.spacing_mm[1], step], axis=1)
    return ras_affine(columns, positions[0], name)


def _difference(first: Frame, other: Frame) -> str | None:
    """Return why a frame cannot belong to the same volume as the first, or None."""
    mine, its = first.shape, other.shape
    if mine != its:
        return (
            f"{its[1]} x {its[0]} pixels, but {first.file.name} has "
            f"{mine[1]} x {mine[0]}; expected slices of one size; select one series"
        )
    if np.abs(first.directions - other.directions).max() > _SAME_DIRECTION:
        return (
            f"lies in another direction than {first.file.name}; "
            "expected parallel slices; put each direction into a folder of its own"
        )
    if not _is_same_spacing(first.spacing_mm, other.spacing_mm):
        return (
            f"pixel spacing differs from that of {first.file.name}; "
            "expected one spacing; select one series"
        )
    return None


def _is_same_spacing(mine: tuple[float, float] | None, its: tuple[float, float] | None) -> bool:
    if mine is None or its is None:
        return mine is its
    return bool(np.allclose(mine, its, rtol=_SAME_SPACING))


def _check_even(
    positions: np.ndarray, step: np.ndarray, slices: Sequence[Frame], name: str
) -> None:
    """Raise GeometryError if slices are missing or shifted."""
    regular = positions[0] + np.arange(len(slices))[:, np.newaxis] * step
    offsets_mm = np.linalg.norm(positions - regular, axis=1)
    spacing_mm = np.linalg.norm(step)
    rounding_mm = min(_ROUNDING_MM, _ROUNDED_UNEVENNESS * spacing_mm)
    if offsets_mm.max() <= max(_UNEVENNESS * spacing_mm, rounding_mm):
        return
    gaps_mm = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    widest = int(gaps_mm.argmax())
    before, after = slices[widest].file.name, slices[widest + 1].file.name
    raise GeometryError(
        f"{name}: slice spacing varies from {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm (widest "
        f"between {before} and {after}); expected even spacing; add the missing slices, resample "
        "it or select one series"
    )
