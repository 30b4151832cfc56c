"""DICOM pixel spacing: choose among the elements that hold it, and describe invalid ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SPACING_KEYWORDS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_CENTIMETRES = 3


def pixel_spacing(header: Dataset) -> tuple[float, float] | None:
    """Return the distances between columns and between rows, mm; None if no element holds them.

    The first usable element counts. If none is usable, the numbers of the first element that has
    any are returned, for the caller to reject or ignore.
    """
    found = [_column_row(header, keyword) for keyword in _SPACING_KEYWORDS]
    stated = [spacing_mm for spacing_mm in (*found, _of_ultrasound(header)) if spacing_mm]
    return next(filter(is_usable, stated), stated[0] if stated else None)


def is_usable(spacing_mm: tuple[float, float] | None) -> bool:
    """Whether both distances are positive and finite."""
    return spacing_mm is not None and min(spacing_mm) > 0 and bool(np.isfinite(spacing_mm).all())


def spacing_fault(header: Dataset) -> str:
    """Describe the fault of the first spacing element; empty text if there is none."""
    for keyword in _SPACING_KEYWORDS:
        if keyword not in header:
            continue
        spacing_mm = _column_row(header, keyword)
        if spacing_mm is None:
            return f"{keyword} holds no two numbers"
        if not is_usable(spacing_mm):
            return f"{keyword} is {spacing_mm[1]:g} x {spacing_mm[0]:g} mm"
    return ""


def _column_row(header: Dataset, keyword: str) -> tuple[float, float] | None:
    """Swap DICOM's (between rows, between columns) to (between columns, between rows)."""
    try:
        rows_mm, columns_mm = (float(value) for value in header.get(keyword) or ())
    except (TypeError, ValueError):
        return None
    return columns_mm, rows_mm


def _of_ultrasound(header: Dataset) -> tuple[float, float] | None:
    for region in header.get("SequenceOfUltrasoundRegions") or []:
        # Other regions show curves over time.
        units = {region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")}
        if units == {_CENTIMETRES}:
            across, down = float(region.PhysicalDeltaX), float(region.PhysicalDeltaY)
            return 10 * abs(across), 10 * abs(down)
    return None
