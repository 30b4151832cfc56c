"""Load DICOM files as images: choose the series, sort its slices, build a volume or views."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from radfound.exceptions import (
    GeometryError,
    RequestError,
    StudyAmbiguousError,
    StudyError,
    StudyUnreadableError,
)
from radfound.reading.dicom.header import DicomFile, read_header
from radfound.reading.dicom.kinds import KINDS, split
from radfound.reading.dicom.nuclear import is_nuclear
from radfound.reading.dicom.spacing import is_usable, spacing_fault
from radfound.reading.dicom.stack import stack_affine
from radfound.reading.dicom.types import Frame
from radfound.reading.dicom.views import view_of
from radfound.reading.dicom.volumes import arrange
from radfound.reading.files import Source, check_voxel_count
from radfound.reading.geometry import flat_affine
from radfound.reading.pixels.frames import read_frames
from radfound.reading.values import is_whole, rescale
from radfound.study.intensity import check_finite
from radfound.study.study import StudyImage

logger = logging.getLogger(__name__)

_CROSS_SECTIONAL = {"CT", "MR", "PT"}


def read_headers(
    sources: Iterable[Source], name: str, faults: list[tuple[Source, StudyError]] | None = None
) -> list[DicomFile]:
    """Load the headers of all files that hold an image, without duplicates.

    Parameters
    ----------
    sources : iterable of Source
    name : str
        The folder, archive or file, for messages.
    faults : list, optional
        Collects unreadable files and their errors; if None, the first error is raised.

    Raises
    ------
    StudyUnreadableError
        If no file holds an image, or a file is damaged.
    """
    files: list[DicomFile] = []
    seen: set[str] = set()
    total = 0
    for source in sources:
        total += 1
        try:
            file = read_header(source)
        except StudyError as error:
            if faults is None:
                raise
            faults.append((source, error))
            continue
        if file is None or file.instance_uid in seen:
            continue
        if file.instance_uid:
            seen.add(file.instance_uid)
        files.append(file)
    if not files and faults:
        raise faults[0][1]
    if not files:
        raise StudyUnreadableError(
            f"{name}: {total} DICOM file(s) without a picture (reports, plans, doses, segmentations, a directory); "
            "expected images; give the folder that holds them"
        )
    return files


def choose_series(files: Sequence[DicomFile], name: str, series: str | None) -> Sequence[DicomFile]:
    """Return the files of one series, or of one exam whose images are views.

    Localizers are left out if the series holds other images.

    Parameters
    ----------
    files : sequence of DicomFile, at least one
    name : str
        The folder, archive or file, for messages.
    series : str or None
        Series instance UID or series number; needed if there are several.

    Raises
    ------
    StudyAmbiguousError
        If there are several series that are not the views of one exam, and none was chosen.
    RequestError
        If the chosen series does not exist, or several have its number.
    """
    groups: dict[str, list[DicomFile]] = defaultdict(list)
    for file in files:
        groups[file.series_uid].append(file)
    numbers = {uid: _number_of(group[0]) for uid, group in groups.items()}
    repeated = Counter(numbers.values())
    labels = {
        uid: number if number and repeated[number] == 1 else uid for uid, number in numbers.items()
    }
    words = [_summary(group) for group in groups.values()]
    shown = "; ".join(f"{labels[uid]!r}: {text}" for uid, text in zip(groups, words, strict=True))
    if series is not None:
        uids = [uid for uid in groups if str(series) in (uid, numbers[uid])]
        if len(uids) != 1:
            fault = "several" if uids else "no"
            raise RequestError(
                f"series: {name} has {fault} series {series!r}; expected one of {shown}"
            )
        files = groups[uids[0]]
    elif len(groups) > 1 and not _is_exam(files):
        raise StudyAmbiguousError(
            f"{name}: {len(groups)} series; expected one, or the views of one exam; "
            f"choose with series= one of {shown}",
            list(labels.values()),
            words=words,
        )
    return [file for file in files if not file.is_localizer] or files


def read_images(chosen: Sequence[DicomFile], name: str, volume: int | None) -> list[StudyImage]:
    """Load one volume, or the views of one exam.

    Parameters
    ----------
    chosen : sequence of DicomFile, at least one
        The result of `choose_series`.
    name : str
        The folder, archive or file, for messages.
    volume : int or None
        Index of the volume, from 0; ordered by direction, kind (component, echo, b-value, energy),
        then time.

    Raises
    ------
    StudyAmbiguousError, RequestError, GeometryError, IntensityError, StudyUnreadableError,
    StudyTooLargeError
    """
    check_voxel_count(name, [sum(int(np.prod(file.shape, dtype=np.int64)) for file in chosen)])
    for file in chosen:
        if file.fault is not None:
            raise file.fault
    _check_concatenations(chosen)
    frames = [frame for file in chosen for frame in file.frames]
    positioned = [frame for frame in frames if frame.is_positioned]
    if positioned and len(positioned) < len(frames):
        odd = next(frame for frame in frames if not frame.is_positioned)
        raise GeometryError(
            f"{odd.file.name}: no position in the patient, unlike {positioned[0].file.name}; "
            "expected slices of one series; remove the file or select one series"
        )
    if positioned:
        return [_read_stack(positioned, name, volume)]
    if volume not in (None, 0):
        raise RequestError(f"volume: {volume} of {name}, whose images are no volumes in space")
    if len(chosen) > 1 and any(file.modality in _CROSS_SECTIONAL for file in chosen):
        raise GeometryError(
            f"{chosen[0].name}: a {chosen[0].modality} slice without position or orientation; "
            "expected both in each slice of a series; export it with its whole header"
        )
    return [
        _read_view(view) for file in sorted(chosen, key=_view_order) for view in _views_in(file)
    ]


def _number_of(file: DicomFile) -> str:
    return "" if file.series_number is None else str(file.series_number)


def _is_exam(files: Sequence[DicomFile]) -> bool:
    """Whether the files are views of one exam, as radiographs and mammograms are."""
    studies = {file.study_uid for file in files}
    return len(studies) == 1 and not any(
        file.modality in _CROSS_SECTIONAL or any(frame.is_positioned for frame in file.frames)
        for file in files
    )


def _summary(group: Sequence[DicomFile]) -> str:
    """Describe a series, to choose one by."""
    first = group[0]
    frames = sum(file.shape[0] for file in group)
    parts = [
        first.dicom_modality or "unknown modality",
        first.description,
        f"{frames} image{'s' if frames > 1 else ''} of {first.shape[2]} x {first.shape[1]}",
    ]
    return ", ".join(part for part in parts if part)


def _view_order(file: DicomFile) -> tuple:
    return (file.series_number or 0, file.instance_number, file.name)


def _check_concatenations(files: Sequence[DicomFile]) -> None:
    """Raise StudyUnreadableError if parts of an object stored in several files are missing."""
    parts: dict[str, list[DicomFile]] = defaultdict(list)
    for file in files:
        parts[file.concatenation[0]].append(file)
    for uid, group in parts.items():
        total = max(file.concatenation[1] for file in group)
        if uid and total > len(group):
            raise StudyUnreadableError(
                f"{group[0].name}: {len(group)} of {total} parts of one image (a concatenation); "
                "expected all of them; give the folder that holds the others"
            )


def _views_in(file: DicomFile) -> list[list[Frame]]:
    """Return the frames of each view: one view per detector and energy window, else one in all."""
    views: dict[tuple, list[Frame]] = defaultdict(list)
    for frame in file.frames:
        keys = (frame.find("DetectorVector"), frame.find("EnergyWindowVector"))
        views[keys if is_nuclear(file) else ()].append(frame)
    return list(views.values())


def _read_view(frames: Sequence[Frame]) -> StudyImage:
    """Load an image without a position in the patient; the frames of a clip become its slices."""
    file, spacing_mm = frames[0].file, frames[0].spacing_mm
    if not is_usable(spacing_mm):
        spacing_mm = None
        if fault := spacing_fault(file.header):
            logger.warning(
                "%s: %s; expected two numbers above zero; loaded without a size in mm",
                file.name,
                fault,
            )
    mixed = next((trait.name for trait in KINDS if len(split(frames, trait)) > 1), None)
    if mixed:
        raise GeometryError(
            f"{file.name}: {len(frames)} frames without a position that differ in {mixed}; "
            "expected frames of one kind, or their positions; export it with its whole header"
        )
    return _image(
        frames[0],
        _read_voxels(frames),
        flat_affine(*(spacing_mm or (1.0, 1.0))),
        calibrated=spacing_mm is not None and len(frames) == 1,
        source=file.name,
    )


def _read_stack(frames: Sequence[Frame], name: str, volume: int | None) -> StudyImage:
    slices = arrange(frames, name, volume)
    return _image(
        slices[0],
        _read_voxels(slices),
        stack_affine(slices, name),
        calibrated=slices[0].in_patient,
        source=name,
    )


def _image(
    frame: Frame, voxels: np.ndarray, affine: np.ndarray, *, calibrated: bool, source: str
) -> StudyImage:
    check_finite(voxels, source)
    file = frame.file
    return StudyImage(
        voxels=voxels,
        affine=affine,
        modality=file.modality,
        view=view_of(frame),
        body_part=file.body_part,
        hounsfield=file.is_hounsfield,
        calibrated=calibrated,
        source=source,
    )


def _read_voxels(frames: Sequence[Frame]) -> np.ndarray:
    """Decode the frames, each file once, into one array in the order of `frames`."""
    wanted: dict[int, list[tuple[int, Frame]]] = defaultdict(list)
    for place, frame in enumerate(frames):
        wanted[id(frame.file)].append((place, frame))
    whole = all(frame.slope == 1 and is_whole(frame.intercept) for frame in frames)
    voxels: np.ndarray | None = None
    for group in wanted.values():
        file = group[0][1].file
        pixels = read_frames(file)
        if file.sheet:
            pixels = file.sheet.unfold(pixels[0])
        for place, frame in group:
            slope, intercept = (frame.slope, frame.intercept) if file.takes_rescale else (1, 0)
            values = rescale(pixels[frame.index], slope, intercept, file.name)
            if not whole:
                values = values.astype(np.float32, copy=False)
            if voxels is None:
                voxels = np.empty((len(frames), *values.shape), values.dtype)
            elif values.dtype != voxels.dtype:
                # Rare: a slice needs a wider type than the slices before it.
                voxels = voxels.astype(np.result_type(values, voxels), copy=False)
            voxels[place] = values
    assert voxels is not None, "a stack has frames"
    return voxels
