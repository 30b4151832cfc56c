"""Frames of DICOM files and their positions, from header, functional groups or frame vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from radfound.reading.dicom import nuclear as dicom_nuclear
from radfound.reading.dicom.elements import (
    column_row,
    directions,
    first_item,
    number,
    vector,
)
from radfound.reading.dicom.spacing import pixel_spacing
from radfound.reading.dicom.types import Frame, ImageFile, Sheet

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PROJECTIONS = {"CR", "DX", "RF"}
_CLIPS = {"MG", "XA", "US"}
_CROSS_SECTIONAL = {"CT", "MR", "PT", "NM"}
_FRAME_TIMES = {"FrameTime", "FrameTimeVector"}


def frames_of(file: ImageFile) -> Iterator[Frame]:
    """Build the frames of a file; raises ValueError and the like for invalid elements."""
    if file.header.get("PerFrameFunctionalGroupsSequence"):
        return _grouped_frames(file)
    if file.sheet:
        return _tiles(file, file.sheet)
    if dicom_nuclear.is_nuclear(file):
        return _nuclear_frames(file)
    return _plain_frames(file)


def _plain_frames(file: ImageFile) -> Iterator[Frame]:
    header, (frames, *_) = file.header, file.shape
    position = vector(header.get("ImagePositionPatient"), 3)
    axes = directions(header.get("ImageOrientationPatient"))
    offsets_mm = _slice_offsets_mm(header, frames)
    if file.modality in _PROJECTIONS or (frames > 1 and file.modality in _CLIPS):
        offsets_mm = None
    for index in range(frames):
        offset_mm = None if offsets_mm is None else offsets_mm[index]
        yield _frame(file, index, **_place(file, position, axes, offset_mm))


def _slice_offsets_mm(header: Dataset, frames: int) -> np.ndarray | None:
    """Return the offset of each frame along the normal, or None for frames in time."""
    if frames == 1:
        return np.zeros(1)
    pointers = _pointers(header)
    if pointers & _FRAME_TIMES:
        return None
    places = vector(header.get("SliceLocationVector"), frames)
    if places is not None and "SliceLocationVector" in pointers:
        return places - places[0]
    # Cone beam CT, for example, states the first slice and the distance.
    between = header.get("SpacingBetweenSlices") or header.get("SliceThickness")
    return np.arange(frames) * float(between) if between else None


def _pointers(header: Dataset) -> set[str]:
    from pydicom.datadict import keyword_for_tag

    found = header.get("FrameIncrementPointer")
    tags = [found] if isinstance(found, int) else list(found or [])
    return {keyword_for_tag(tag) for tag in tags}


def _nuclear_frames(file: ImageFile) -> Iterator[Frame]:
    header, vectors = file.header, dicom_nuclear.frame_vectors(file)
    step_mm = number(header.get("SpacingBetweenSlices") or header.get("SliceThickness"), 0.0)
    reconstructed = dicom_nuclear.is_reconstructed(header)
    for index, numbers in enumerate(vectors):
        detector = dicom_nuclear.detector_of(header, numbers)
        position = vector(detector.get("ImagePositionPatient"), 3)
        axes = directions(detector.get("ImageOrientationPatient"))
        offset_mm = None
        if reconstructed and (step_mm or len(vectors) == 1):
            # With a negative distance the slices run against the normal.
            offset_mm = (numbers.get("SliceVector", 1) - 1) * step_mm
        groups = (numbers, detector)
        yield _frame(file, index, groups=groups, **_place(file, position, axes, offset_mm))


def _place(
    file: ImageFile,
    position: np.ndarray | None,
    axes: np.ndarray | None,
    offset_mm: float | None,
) -> dict[str, Any]:
    """Return the geometry of a frame, given the first slice and the offset along the normal."""
    in_patient = position is not None and axes is not None
    if not in_patient and file.shape[0] > 1 and file.modality in _CROSS_SECTIONAL:
        # The slices of one file form a stack, though its position is unknown.
        position, axes = np.zeros(3), np.eye(3)[:2]
    if position is None or axes is None or offset_mm is None:
        return {"position_mm": None, "directions": None}
    across, down = axes
    return {
        "position_mm": position + offset_mm * np.cross(across, down),
        "directions": axes,
        "in_patient": in_patient,
    }


def _tiles(file: ImageFile, sheet: Sheet) -> Iterator[Frame]:
    for index, position in enumerate(sheet.positions_mm):
        yield _frame(file, index, position_mm=position, directions=sheet.directions)


def _frame(file: ImageFile, index: int, **place: Any) -> Frame:
    header = file.header
    return Frame(
        file=file,
        index=index,
        spacing_mm=pixel_spacing(header),
        slope=number(header.get("RescaleSlope"), 1.0),
        intercept=number(header.get("RescaleIntercept"), 0.0),
        **place,
    )


def _grouped_frames(file: ImageFile) -> Iterator[Frame]:
    header = file.header
    shared = first_item(header, "SharedFunctionalGroupsSequence")
    groups = header.PerFrameFunctionalGroupsSequence
    if len(groups) != file.shape[0]:
        raise ValueError("functional groups")
    for index, own in enumerate(groups):

        def find(*path: str, own: Mapping = own) -> Any:
            *sequences, keyword = path
            for group in (own, shared):
                value = first_item(group, *sequences).get(keyword)
                if value is not None:
                    return value
            return None

        position = find("PlanePositionSequence", "ImagePositionPatient")
        axes = find("PlaneOrientationSequence", "ImageOrientationPatient")
        in_patient = bool(position)
        if not in_patient:
            position = find("PlanePositionVolumeSequence", "ImagePositionVolume")
            axes = find("PlaneOrientationVolumeSequence", "ImageOrientationVolume")
        rescale = "PixelValueTransformationSequence"
        spacing = column_row(find("PixelMeasuresSequence", "PixelSpacing"))
        slope, intercept = find(rescale, "RescaleSlope"), find(rescale, "RescaleIntercept")
        converted = (
            first_item(own, "UnassignedPerFrameConvertedAttributesSequence"),
            first_item(shared, "UnassignedSharedConvertedAttributesSequence"),
        )
        yield Frame(
            file=file,
            index=index,
            position_mm=vector(position, 3),
            directions=directions(axes),
            spacing_mm=spacing or pixel_spacing(header),
            slope=number(slope, number(header.get("RescaleSlope"), 1.0)),
            intercept=number(intercept, number(header.get("RescaleIntercept"), 0.0)),
            groups=(own, shared, *converted),
            in_patient=in_patient,
        )
