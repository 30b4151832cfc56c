"""DICOM headers: what a file says of its frames, before any pixel is touched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from radfound.exceptions import GeometryError, StudyError, StudyUnreadableError
from radfound.reading.bounds import check_unpacked
from radfound.reading.files import Source, check_size
from radfound.taxonomy import modality_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DEFLATED_SYNTAX = b"1.2.840.10008.1.2.1.99"

_HEADER_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "InstanceNumber",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "EchoNumbers",
    "ImageType",
    "Modality",
    "PatientID",
    "PatientName",
    "BodyPartExamined",
    "ViewPosition",
    "ViewCodeSequence",
    "ImageLaterality",
    "Laterality",
    "FrameLaterality",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "SequenceOfUltrasoundRegions",
    "DetectorInformationSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
_NOT_PICTURES = {"SEG", "RTDOSE", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "REG", "DOC", "ECG"}
_PROJECTIONS = {"CR", "DX", "RF"}
_LATERAL_VIEWS = {"LL", "RL", "LAT", "LATERAL", "LLAT", "RLAT", "LEFT LATERAL", "RIGHT LATERAL"}
_MAMMOGRAPHIC_VIEWS = {
    "cranio-caudal": "CC",
    "medio-lateral oblique": "MLO",
    "medio-lateral": "ML",
    "latero-medial": "LM",
}


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of one DICOM file.

    Parameters
    ----------
    file : DicomFile
    index : int
        Which frame of the file.
    position_mm : array, shape (3,), or None
        Centre of the first pixel, LPS.
    directions : array, shape (2, 3), or None
        Unit vectors along a row (i grows) and along a column (j grows), LPS.
    spacing_mm : (float, float) or None
        Distance between neighbouring columns, and between neighbouring rows.
    slope, intercept : float
    order : tuple
        Tells frames at one position apart: time, echo, instance.
    """

    file: DicomFile
    index: int
    position_mm: Any
    directions: Any
    spacing_mm: Any
    slope: float
    intercept: float
    order: tuple

    @property
    def is_positioned(self) -> bool:
        """Whether the file says where the frame lies in the patient."""
        return self.position_mm is not None and self.directions is not None


@dataclass(frozen=True, eq=False)
class DicomFile:
    """The header of a DICOM file that holds an image."""

    source: Source
    header: Dataset

    @property
    def name(self) -> str:
        """The name for messages."""
        return self.source.name

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows and columns."""
        frames = int(self.header.get("NumberOfFrames") or 1)
        return frames, int(self.header.get("Rows") or 0), int(self.header.get("Columns") or 0)

    @cached_property
    def patient(self) -> str:
        """Tells patients apart; never shown."""
        return str(self.header.get("PatientID") or "")

    @cached_property
    def study_uid(self) -> str:
        """Study instance UID, empty where there is none."""
        return str(self.header.get("StudyInstanceUID") or "")

    @cached_property
    def series_uid(self) -> str:
        """Series instance UID, empty where there is none."""
        return str(self.header.get("SeriesInstanceUID") or "")

    @cached_property
    def instance_uid(self) -> str:
        """SOP instance UID, empty where there is none."""
        return str(self.header.get("SOPInstanceUID") or "")

    @cached_property
    def series_number(self) -> int | None:
        """The number that people call the series by."""
        number = self.header.get("SeriesNumber")
        return None if number is None else int(number)

    @cached_property
    def instance_number(self) -> int:
        """The number within the series; 0 where there is none."""
        return _count(self.header.get("InstanceNumber"))

    @cached_property
    def description(self) -> str:
        """The series description, or nothing where it holds a part of the patient's name."""
        raw = [self._stored(tag) for tag in ("SeriesDescription", "PatientName", "PatientID")]
        text, *private = (value.decode("latin-1").lower() for value in raw)
        words = [word for value in private for word in re.split(r"[\s^=,]+", value)]
        if any(word in text for word in words if len(word) > 1):
            return ""
        shown = str(self.header.get("SeriesDescription") or "")
        return "".join(letter for letter in shown if letter.isprintable())[:40].strip()

    def _stored(self, keyword: str) -> bytes:
        """Return an element unparsed: parsing a name could warn, with the name in the text."""
        from pydicom.datadict import tag_for_keyword

        tag = tag_for_keyword(keyword)
        value = self.header.get_item(tag).value if tag in self.header else b""
        return value if isinstance(value, bytes) else str(value or "").encode("utf-8", "replace")

    @cached_property
    def dicom_modality(self) -> str:
        """The modality as the header has it."""
        return str(self.header.get("Modality") or "")

    @cached_property
    def modality(self) -> str | None:
        """The modality, as one of `radfound.taxonomy.MODALITIES`."""
        return modality_of(self.dicom_modality)

    @cached_property
    def is_colour(self) -> bool:
        """Whether a pixel has more than a grey value."""
        palette = self.header.get("PhotometricInterpretation", "") == "PALETTE COLOR"
        return palette or int(self.header.get("SamplesPerPixel") or 1) > 1

    @cached_property
    def is_localizer(self) -> bool:
        """Whether the image is a scout, which is no slice of the volume planned on it."""
        return "LOCALIZER" in _values(self.header.get("ImageType"))

    @cached_property
    def is_hounsfield(self) -> bool:
        """Whether the rescaled values are Hounsfield units."""
        kind = str(self.header.get("RescaleType") or "HU").upper()
        return kind == "HU" and self.modality == "CT" and not (self.is_colour or self.is_localizer)

    @cached_property
    def view(self) -> str | None:
        """Projection or mammographic view: "PA", "LATERAL", "L CC"."""
        header = self.header
        position = str(header.get("ViewPosition") or "").strip().upper()
        if not position and header.get("ViewCodeSequence"):
            meaning = str(header.ViewCodeSequence[0].get("CodeMeaning", "")).strip().lower()
            position = _MAMMOGRAPHIC_VIEWS.get(meaning, "")
        if position in _LATERAL_VIEWS:
            position = "LATERAL"
        side = ""
        if self.modality == "MG":
            side = header.get("ImageLaterality") or header.get("Laterality") or ""
        return f"{side} {position}".strip() or None

    @cached_property
    def body_part(self) -> str | None:
        """The body part examined, lower case."""
        return str(self.header.get("BodyPartExamined") or "").strip().lower() or None

    @cached_property
    def thickness_mm(self) -> float:
        """The thickness of a lone slice, 1 where the file does not say."""
        for group in self.header.get("SharedFunctionalGroupsSequence") or []:
            for measures in group.get("PixelMeasuresSequence") or []:
                if measures.get("SliceThickness"):
                    return abs(float(measures.SliceThickness))
        between = self.header.get("SliceThickness") or self.header.get("SpacingBetweenSlices")
        return abs(float(between)) if between else 1.0

    @cached_property
    def frames(self) -> tuple[Frame, ...]:
        """Each frame, from the functional groups where the file has them."""
        try:
            if self.header.get("PerFrameFunctionalGroupsSequence"):
                return tuple(self._grouped_frames())
            return tuple(self._plain_frames())
        except (TypeError, ValueError, AttributeError, IndexError):
            raise GeometryError(
                f"{self.name}: position, orientation, spacing or rescale cannot be understood; "
                "expected numbers as DICOM defines them; export the file again"
            ) from None

    def parse(self) -> None:
        """Ask for everything once, so that a damaged element fails here and not later."""
        for name, member in vars(type(self)).items():
            if isinstance(member, cached_property):
                getattr(self, name)

    def _plain_frames(self) -> Iterator[Frame]:
        header, count = self.header, self.shape[0]
        place = header
        if header.get("DetectorInformationSequence"):
            place = header.DetectorInformationSequence[0]
        position = _numbers(place.get("ImagePositionPatient"), 3)
        directions = _directions(place.get("ImageOrientationPatient"))
        step = np.zeros(3)
        if count > 1 and position is not None and directions is not None:
            # A tomographic stack of nuclear medicine names its first slice and the distance.
            between = header.get("SpacingBetweenSlices") or header.get("SliceThickness")
            if "DetectorInformationSequence" in header and between:
                step = np.cross(*directions) * float(between)
            else:
                position = directions = None
        if self.modality in _PROJECTIONS:
            position = directions = None
        order = tuple(_count(header.get(key)) for key in _ORDER_TAGS)
        for index in range(count):
            yield Frame(
                file=self,
                index=index,
                position_mm=None if position is None else position + index * step,
                directions=directions,
                spacing_mm=_pixel_spacing(header),
                slope=_number(header.get("RescaleSlope"), 1.0),
                intercept=_number(header.get("RescaleIntercept"), 0.0),
                order=(*order, index),
            )

    def _grouped_frames(self) -> Iterator[Frame]:
        shared = (self.header.get("SharedFunctionalGroupsSequence") or [{}])[0]
        groups = self.header.PerFrameFunctionalGroupsSequence
        if len(groups) != self.shape[0]:
            raise ValueError("functional groups")

        def find(own, sequence, key):
            for group in (own, shared):
                if group.get(sequence):
                    return group[sequence][0].get(key)
            return None

        for index, own in enumerate(groups):
            measures = find(own, "PixelMeasuresSequence", "PixelSpacing")
            content = (own.get("FrameContentSequence") or [{}])[0]
            time = _count(content.get("TemporalPositionIndex"))
            dimensions = tuple(_values(content.get("DimensionIndexValues")))
            slope = find(own, "PixelValueTransformationSequence", "RescaleSlope")
            intercept = find(own, "PixelValueTransformationSequence", "RescaleIntercept")
            yield Frame(
                file=self,
                index=index,
                position_mm=_numbers(find(own, "PlanePositionSequence", "ImagePositionPatient"), 3),
                directions=_directions(
                    find(own, "PlaneOrientationSequence", "ImageOrientationPatient")
                ),
                spacing_mm=_row_column(measures) or _pixel_spacing(self.header),
                slope=_number(slope, _number(self.header.get("RescaleSlope"), 1.0)),
                intercept=_number(intercept, _number(self.header.get("RescaleIntercept"), 0.0)),
                order=(time, dimensions, _count(self.header.get("InstanceNumber")), index),
            )


_ORDER_TAGS = (
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "EchoNumbers",
    "InstanceNumber",
)


def read_header(source: Source) -> DicomFile | None:
    """Read a header; None for a DICOM object that is no picture (a report, a plan, a DICOMDIR).

    Raises
    ------
    StudyUnreadableError
        If the header is damaged, or says that there is an image and not of what size.
    GeometryError
        If a position, orientation or spacing is not what its element must hold.
    StudyTooLargeError
    """
    import pydicom

    try:
        with open(source.path, "rb") as file:
            _refuse_deflated(file.read(1024), source.name)
            file.seek(0)
            header = pydicom.dcmread(
                file, stop_before_pixels=True, force=True, specific_tags=_HEADER_TAGS
            )
        found = DicomFile(source, header)
        if found.dicom_modality in _NOT_PICTURES:
            return None
        frames, rows, columns = found.shape
        if not rows or not columns:
            if _is_known_as_no_image(header):
                return None
            raise _damaged(source)
        check_size(source.name, (columns, rows, frames))
        check_unpacked(source.name, source.path.stat().st_size, columns * rows * frames)
        found.parse()
        return found
    except StudyError:
        raise
    except Exception:  # pydicom lets any error of its parsers through
        raise _damaged(source) from None


def _is_known_as_no_image(header: Dataset) -> bool:
    from pydicom.uid import UID

    sop_class = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    return bool(sop_class) and "Image" not in UID(str(sop_class)).name


def _refuse_deflated(head: bytes, name: str) -> None:
    """Refuse what would be unpacked whole, whatever its size, before it could be looked at."""
    if DEFLATED_SYNTAX in head:
        raise StudyUnreadableError(
            f"{name}: a deflated DICOM file; expected another transfer syntax; "
            "convert it to Explicit VR Little Endian"
        )


def _damaged(source: Source) -> StudyUnreadableError:
    return StudyUnreadableError(
        f"{source.name}: the DICOM header is truncated or damaged; "
        "expected an image with rows and columns; copy or export the file again"
    )


def _values(value) -> list:
    if value is None:
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def _count(value) -> int:
    """Return a whole number to sort by; several or none count as the first or 0."""
    first = next(iter(_values(value)), 0)
    return int(first or 0)


def _number(value, default: float) -> float:
    return default if value is None or value == "" else float(value)


def _numbers(value, count: int) -> np.ndarray | None:
    if not value:
        return None
    numbers = np.array([float(number) for number in value])
    if numbers.size != count:
        raise ValueError("multiplicity")
    return numbers


def _directions(value) -> np.ndarray | None:
    cosines = _numbers(value, 6)
    if cosines is None:
        return None
    directions = cosines.reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    if not lengths.min() > 0:
        raise ValueError("orientation")
    return directions / lengths


def _row_column(value) -> tuple[float, float] | None:
    """Turn DICOM's (between rows, between columns) into (between columns, between rows)."""
    numbers = _numbers(value, 2)
    return None if numbers is None else (float(numbers[1]), float(numbers[0]))


def _pixel_spacing(header: Dataset) -> tuple[float, float] | None:
    for key in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        if header.get(key):
            return _row_column(header[key].value)
    for region in header.get("SequenceOfUltrasoundRegions") or []:
        # Unit 3 is cm; other regions show curves over time.
        if region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == 3:
            across, down = float(region.PhysicalDeltaX), float(region.PhysicalDeltaY)
            return 10 * abs(across), 10 * abs(down)
    return None
