"""Slices in space: sorted along their normal, checked for gaps, and their affine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from radfound.exceptions import GeometryError
from radfound.reading.dicom_header import Frame
from radfound.reading.geometry import ras_affine
from radfound.reading.values import choose_volume

_SAME_DIRECTION = 2e-3
_SAME_SPACING = 1e-3
_SAME_PLACE_MM = 1e-3
# Positions are often rounded to a tenth of a millimetre, the first and the last as well.
_ROUNDING_MM = 0.11
_ROUNDED_UNEVENNESS = 0.2
_UNEVENNESS = 0.1


def arrange(frames: Sequence[Frame], name: str, volume: int | None) -> list[Frame]:
    """Return the slices of one volume, sorted by position along their normal.

    Parameters
    ----------
    frames : sequence of Frame, all with position and direction
    name : str
        The series, for messages.
    volume : int or None
        Which one, where several volumes (phases, echoes, diffusion weights) lie at the same place.

    Raises
    ------
    GeometryError
        If the slices differ in size, direction or spacing, or some positions hold more than others.
    StudyAmbiguousError
        If several volumes lie at the same place and none was chosen.
    """
    usual = _most_common(frames)
    for frame in frames:
        _check_alike(usual, frame)
    normal = np.cross(*frames[0].directions)
    depth = {id(frame): float(normal @ frame.position_mm) for frame in frames}
    ordered = sorted(frames, key=lambda frame: depth[id(frame)])
    places = [[ordered[0]]]
    for frame in ordered[1:]:
        if depth[id(frame)] - depth[id(places[-1][0])] <= _SAME_PLACE_MM:
            places[-1].append(frame)
        else:
            places.append([frame])
    fewest, most = min(places, key=len), max(places, key=len)
    if len(fewest) != len(most):
        found = " and ".join(frame.file.name for frame in most[:2])
        raise GeometryError(
            f"{name}: {len(most)} slices at one position ({found}) and {len(fewest)} at another "
            f"({fewest[0].file.name}); expected as many at each; select one series or remove them"
        )
    index = choose_volume(len(most), volume, name)
    return [sorted(place, key=lambda frame: frame.order)[index] for place in places]


def stack_affine(slices: Sequence[Frame], name: str) -> np.ndarray:
    """Return the affine to RAS of sorted slices; gantry tilt becomes shear.

    Raises
    ------
    GeometryError
        If the slices are not evenly spaced along a line, or the pixels have no size.
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


def _most_common(frames: Sequence[Frame]) -> Frame:
    """Return a frame of the kind that most are of, so that messages name the odd one."""

    def kind(frame: Frame) -> tuple:
        directions = np.rint(frame.directions * 100).ravel()
        return frame.file.shape[1:], tuple(directions), frame.spacing_mm

    ((common, _),) = Counter(kind(frame) for frame in frames).most_common(1)
    return next(frame for frame in frames if kind(frame) == common)


def _check_alike(first: Frame, other: Frame) -> None:
    """Raise GeometryError where a frame cannot belong to the same volume as the first."""
    mine, its = first.file.shape[1:], other.file.shape[1:]
    if mine != its:
        raise GeometryError(
            f"{other.file.name}: {its[1]} x {its[0]} pixels, but {first.file.name} has "
            f"{mine[1]} x {mine[0]}; expected slices of one size; select one series"
        )
    if np.abs(first.directions - other.directions).max() > _SAME_DIRECTION:
        raise GeometryError(
            f"{other.file.name}: lies in another direction than {first.file.name}; "
            "expected parallel slices; give each direction in a folder of its own"
        )
    if (first.spacing_mm is None) != (other.spacing_mm is None) or (
        first.spacing_mm is not None
        and not np.allclose(first.spacing_mm, other.spacing_mm, rtol=_SAME_SPACING)
    ):
        raise GeometryError(
            f"{other.file.name}: pixel spacing differs from that of {first.file.name}; "
            "expected one spacing; select one series"
        )


def _check_even(
    positions: np.ndarray, step: np.ndarray, slices: Sequence[Frame], name: str
) -> None:
    """Raise GeometryError where slices are missing or shifted."""
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
