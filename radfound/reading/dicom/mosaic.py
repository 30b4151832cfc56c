"""Mosaics: single pictures with all slices of a volume as tiles."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from radfound.exceptions import GeometryError
from radfound.reading.dicom.elements import (
    column_row,
    count,
    directions,
    private_element,
    values,
    vector,
)
from radfound.reading.dicom.types import ImageFile, Sheet

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

HEADER_TAGS = [0x00190010, 0x0019100A]
_SIEMENS_CSA = [0x00290010, 0x00291010]
_WORDS = {"MOSAIC": "a mosaic", "VFRAME": "a sheet of tiles (VFRAME)"}
_PARALLEL = 0.99


def sheet_of(file: ImageFile) -> Sheet | None:
    """Return the sheet of a file; None if it is no mosaic, or cannot be split."""
    if not is_sheet(file.header):
        return None
    try:
        return _read_sheet(file)
    except GeometryError:
        return None


def refuse_sheet(file: ImageFile) -> None:
    """Raise GeometryError, with the reason, for a mosaic that cannot be split."""
    if is_sheet(file.header) and file.sheet is None:
        _read_sheet(file)


def is_sheet(header: Dataset) -> bool:
    """Whether the header marks a picture as a mosaic."""
    if header.get("PerFrameFunctionalGroupsSequence"):
        return False  # already split, though the image type may still say MOSAIC
    if count(_siemens_count(header)) > 1:
        return True
    return any(word in values(header.get("ImageType")) for word in _WORDS)


def _siemens_count(header: Dataset) -> Any:
    return private_element(header, 0x0019, "SIEMENS MR HEADER", 0x0A)


def _read_sheet(file: ImageFile) -> Sheet:
    header, (frames, rows, columns) = file.header, file.shape
    slices, normal = _siemens_mosaic(file)
    side = math.ceil(math.sqrt(slices))
    position = vector(header.get("ImagePositionPatient"), 3)
    axes = directions(header.get("ImageOrientationPatient"))
    spacing = column_row(header.get("PixelSpacing"))
    between = header.get("SpacingBetweenSlices") or header.get("SliceThickness")
    if slices < 1 or frames > 1:
        raise _cannot_unfold(file, "the number of its slices is unknown")
    if rows % side or columns % side:
        fault = f"{slices} slices do not divide {columns} x {rows} pixels into equal tiles"
        raise _cannot_unfold(file, fault)
    if position is None or axes is None or spacing is None or not between:
        raise _cannot_unfold(
            file, "its position, orientation, spacing or slice distance is unknown"
        )
    through = np.cross(*axes)
    if normal is not None:
        if abs(through @ normal) < _PARALLEL:
            raise _cannot_unfold(file, "Siemens' slice normal does not fit the orientation")
        through = through * np.sign(through @ normal)
    tile = rows // side, columns // side
    # Image Position is the corner of a sheet-sized picture centred on the slice.
    across = axes[0] * spacing[0] * (columns - tile[1]) / 2
    down = axes[1] * spacing[1] * (rows - tile[0]) / 2
    steps = np.arange(slices)[:, np.newaxis] * through * abs(float(between))
    return Sheet(tile, position + across + down + steps, axes)


def _cannot_unfold(file: ImageFile, fault: str) -> GeometryError:
    kinds = values(file.header.get("ImageType"))
    found = next((words for word, words in _WORDS.items() if word in kinds), "a mosaic")
    return GeometryError(
        f"{file.name}: {found}, all slices of a volume side by side in one picture, but {fault}; "
        "expected a Siemens mosaic with its private header; export it unchanged, or one picture per slice"
    )


def _siemens_mosaic(file: ImageFile) -> tuple[int, np.ndarray | None]:
    """Return the number of slices (0 if unknown) and the slice normal."""
    slices = count(_siemens_count(file.header))
    csa = _csa_header(file)
    slices = slices or count(_csa_values(csa, "NumberOfImagesInMosaic"))
    normal = _csa_values(csa, "SliceNormalVector")
    return slices, np.array(normal, dtype=float) if len(normal) == 3 else None


def _csa_values(csa: dict, name: str) -> list:
    return csa.get("tags", {}).get(name, {}).get("items", [])


def _csa_header(file: ImageFile) -> dict:
    """Load Siemens' private header, which is too large to keep for every slice."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # nibabel warns about its DICOM support; only a parser is used
        from nibabel.nicom import csareader
    with open(file.source.path, "rb") as opened:
        header = pydicom.dcmread(
            opened, stop_before_pixels=True, force=True, specific_tags=_SIEMENS_CSA
        )
    stored = private_element(header, 0x0029, "SIEMENS CSA HEADER", 0x10)
    if not isinstance(stored, bytes) or not stored:
        return {}
    try:
        return csareader.read(stored)
    except Exception:  # a parser of an undocumented format may raise any error
        return {}
