"""Nuclear medicine: sort frames into slices, views and raw projections.

The frames of a file differ in energy window, detector, phase, rotation, R-R interval, time slot and
slice, each given by a vector with one number per frame (DICOM PS3.3, C.8.4.8).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from radfound.exceptions import GeometryError
from radfound.reading.dicom.elements import count, element, values
from radfound.reading.dicom.types import ImageFile

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Each vector and the element with the number of its distinct values.
_VECTORS = {
    "EnergyWindowVector": "NumberOfEnergyWindows",
    "DetectorVector": "NumberOfDetectors",
    "PhaseVector": "NumberOfPhases",
    "RotationVector": "NumberOfRotations",
    "RRIntervalVector": "NumberOfRRIntervals",
    "TimeSlotVector": "NumberOfTimeSlots",
    "SliceVector": "NumberOfSlices",
    "TimeSliceVector": "NumberOfTimeSlices",
}
HEADER_TAGS = [
    "FrameIncrementPointer",
    "EnergyWindowInformationSequence",
    "AngularViewVector",
    *_VECTORS,
    *_VECTORS.values(),
]
_RECONSTRUCTED = {"RECON TOMO", "RECON GATED TOMO"}
_RAW = {"TOMO", "GATED TOMO"}
_PLANAR = {"STATIC", "DYNAMIC", "GATED", "WHOLE BODY"}
_UPRIGHT = 0.9  # cosine: rows across the body, columns down it


def is_nuclear(file: ImageFile) -> bool:
    """Whether a file has the layout of nuclear medicine, as some PET files do."""
    return file.modality == "NM" or "DetectorInformationSequence" in file.header


def is_reconstructed(header: Dataset) -> bool:
    """Whether the frames are slices of a tomogram."""
    kinds = set(values(header.get("ImageType")))
    if kinds & (_RECONSTRUCTED | _RAW | _PLANAR):
        return bool(kinds & _RECONSTRUCTED or header.get("SliceVector"))
    return not _is_raw(header)


def _is_raw(header: Dataset) -> bool:
    """Whether the frames are raw projections, taken by the camera around the patient."""
    kinds = set(values(header.get("ImageType")))
    if kinds & (_RECONSTRUCTED | _RAW | _PLANAR):
        return bool(kinds & _RAW) and not header.get("SliceVector")
    return bool(header.get("RotationVector") or header.get("AngularViewVector"))


def refuse_projections(file: ImageFile) -> None:
    """Raise GeometryError if frames are neither slices nor views, or cannot be told apart."""
    header = file.header
    if _is_raw(header) and file.shape[0] > 1:
        raise GeometryError(
            f"{file.name}: {file.shape[0]} raw projections of a tomogram, taken around the "
            "patient; expected its slices; reconstruct it, or give its reconstruction"
        )
    declared = count(header.get("NumberOfSlices"))
    slices = {frame.find("SliceVector") for frame in file.frames}
    if is_reconstructed(header) and declared and len(slices) != declared:
        raise GeometryError(
            f"{file.name}: {file.shape[0]} frames of {declared} slices, and nothing that tells "
            "apart the frames of one slice; expected vectors of time slots, energy windows or "
            "slices; export it with its whole header"
        )


def frame_vectors(file: ImageFile) -> list[dict[str, Any]]:
    """Return the numbers of each frame, from 1: its slice, energy window, detector and so on.

    Without vectors, the frames are counted in the order of the frame increment pointer, last one
    fastest, if the product of the declared numbers is the number of frames.
    """
    header, frames = file.header, file.shape[0]
    columns = {name: values(header.get(name)) for name in _VECTORS if header.get(name)}
    columns = columns or _counted(header, frames)
    for name, column in columns.items():
        if len(column) != frames:
            raise GeometryError(
                f"{file.name}: {len(column)} numbers in {name} for {frames} frames; expected one "
                "per frame; export it with its whole header"
            )
    numbers = [
        {name: int(column[index]) for name, column in columns.items()} for index in range(frames)
    ]
    if "SliceVector" not in columns and is_reconstructed(header):
        seen: Counter[tuple] = Counter()
        for frame in numbers:
            others = tuple(frame.values())
            seen[others] += 1
            frame["SliceVector"] = seen[others]
    return numbers


def _counted(header: Dataset, frames: int) -> dict[str, list[int]]:
    from pydicom.datadict import keyword_for_tag

    pointers = values(header.get("FrameIncrementPointer"))
    names = [name for name in map(keyword_for_tag, pointers) if name in _VECTORS]
    sizes = [count(header.get(_VECTORS[name])) for name in names]
    if not names or np.prod(sizes) != frames:
        return {}
    numbers = np.indices(sizes).reshape(len(names), -1) + 1
    return dict(zip(names, numbers.tolist(), strict=True))


def detector_of(header: Dataset, numbers: Mapping[str, int]) -> Mapping:
    """Return the detector item of a frame; the header itself if there are no detectors."""
    detectors = header.get("DetectorInformationSequence")
    if not detectors:
        return header
    which = 0 if is_reconstructed(header) else numbers.get("DetectorVector", 1) - 1
    return detectors[which] if 0 <= which < len(detectors) else {}


def energy_window(header: Dataset, number: int) -> str:
    """Return the name of an energy window, such as "Tc-99m", or empty text."""
    windows = header.get("EnergyWindowInformationSequence") or []
    if not 0 < number <= len(windows):
        return ""
    return str(windows[number - 1].get("EnergyWindowName") or "")


def view_of(detector: Mapping, axes: np.ndarray | None) -> str | None:
    """Return the view of a detector, such as "anterior" or "left lateral" (DICOM CID 26)."""
    meaning = str(element(detector, "ViewCodeSequence", "CodeMeaning") or "").lower()
    if meaning:
        return meaning.replace(" projection", "").strip()
    if axes is None or axes[1][2] > -_UPRIGHT:
        return None
    towards_left = axes[0][0]
    if abs(towards_left) < _UPRIGHT:
        return None
    return "anterior" if towards_left > 0 else "posterior"
