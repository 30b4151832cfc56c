"""DICOM headers: load and check a file's header before its pixels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from radfound.exceptions import GeometryError, StudyError, StudyUnreadableError
from radfound.reading.bounds import check_unpacked
from radfound.reading.deflated import check_deflated
from radfound.reading.dicom import kinds as dicom_kinds
from radfound.reading.dicom import mosaic as dicom_mosaic
from radfound.reading.dicom import nuclear as dicom_nuclear
from radfound.reading.dicom.elements import count, values
from radfound.reading.dicom.frames import frames_of
from radfound.reading.dicom.mosaic import refuse_sheet, sheet_of
from radfound.reading.dicom.nuclear import is_nuclear, refuse_projections
from radfound.reading.dicom.types import Frame, Sheet
from radfound.reading.files import Source, check_size
from radfound.reading.pixels.units import UNIT_TAGS, is_hounsfield, takes_rescale
from radfound.study.taxonomy import modality_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_HEADER_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "InstanceNumber",
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
    "SpacingBetweenSlices",
    *UNIT_TAGS,
    "SequenceOfUltrasoundRegions",
    "DetectorInformationSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ConcatenationUID",
    "InConcatenationTotalNumber",
    "PatientOrientation",
    "SliceLocationVector",
    *dicom_kinds.HEADER_TAGS,
    *dicom_mosaic.HEADER_TAGS,
    *dicom_nuclear.HEADER_TAGS,
]
_PRIVATE_TAGS = ("PatientName", "PatientID")
_NO_SLICES = {
    "1.2.840.10008.5.1.4.1.1.13.1.4": "raw projections of a tomosynthesis",
    "1.2.840.10008.5.1.4.1.1.13.1.5": "raw projections of a tomosynthesis",
    "1.2.840.10008.5.1.4.1.1.77.1.6": "tiles of a whole-slide picture",
}
_NOT_PICTURES = {"SEG", "RTDOSE", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "REG", "DOC", "ECG"}


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
        """Patient ID, only to tell patients apart; never shown."""
        return str(self.header.get("PatientID") or "")

    @cached_property
    def study_uid(self) -> str:
        """Study instance UID, empty if missing."""
        return str(self.header.get("StudyInstanceUID") or "")

    @cached_property
    def series_uid(self) -> str:
        """Series instance UID, empty if missing."""
        return str(self.header.get("SeriesInstanceUID") or "")

    @cached_property
    def instance_uid(self) -> str:
        """SOP instance UID, empty if missing."""
        return str(self.header.get("SOPInstanceUID") or "")

    @cached_property
    def series_number(self) -> int | None:
        """The series number, or None."""
        number = self.header.get("SeriesNumber")
        return None if number is None else int(number)

    @cached_property
    def instance_number(self) -> int:
        """The instance number; 0 if missing."""
        return count(self.header.get("InstanceNumber"))

    @cached_property
    def description(self) -> str:
        """The series description; empty if it holds a part of the patient's name."""
        return self.without_names(str(self.header.get("SeriesDescription") or ""))

    def without_names(self, text: str) -> str:
        """Return the first 40 characters of a text; empty if it holds a part of the patient's name."""
        if not text:
            return ""
        private = (self._stored(tag).decode("latin-1").lower() for tag in _PRIVATE_TAGS)
        words = [word for value in private for word in re.split(r"[\s^=,]+", value)]
        spellings = [
            text.encode(name, "replace").decode("latin-1").lower() for name in ("utf-8", "latin-1")
        ]
        if any(word in shown for word in words if len(word) > 1 for shown in spellings):
            return ""
        return "".join(letter for letter in text if letter.isprintable())[:40].strip()

    def _stored(self, keyword: str) -> bytes:
        """Return an element unparsed: parsing may log a warning that holds the patient's name."""
        from pydicom.datadict import tag_for_keyword

        tag = tag_for_keyword(keyword)
        value = self.header.get_item(tag).value if tag in self.header else b""
        return value if isinstance(value, bytes) else str(value or "").encode("utf-8", "replace")

    @cached_property
    def dicom_modality(self) -> str:
        """The modality as in the header."""
        return str(self.header.get("Modality") or "")

    @cached_property
    def modality(self) -> str | None:
        """The modality, as one of `radfound.study.taxonomy.MODALITIES`."""
        return modality_of(self.dicom_modality)

    @cached_property
    def is_localizer(self) -> bool:
        """Whether the image is a localizer, which is no slice of the volume planned on it."""
        return "LOCALIZER" in values(self.header.get("ImageType"))

    @cached_property
    def is_hounsfield(self) -> bool:
        """Whether the rescaled values are Hounsfield units."""
        return is_hounsfield(self.header)

    @cached_property
    def takes_rescale(self) -> bool:
        """Whether slope and intercept apply to the frames."""
        return takes_rescale(self.header)

    @cached_property
    def body_part(self) -> str | None:
        """The body part examined, lower case."""
        return str(self.header.get("BodyPartExamined") or "").strip().lower() or None

    @cached_property
    def thickness_mm(self) -> float:
        """The thickness of a single slice; 1 if unknown."""
        for group in self.header.get("SharedFunctionalGroupsSequence") or []:
            for measures in group.get("PixelMeasuresSequence") or []:
                if measures.get("SliceThickness"):
                    return abs(float(measures.SliceThickness))
        between = self.header.get("SliceThickness") or self.header.get("SpacingBetweenSlices")
        return abs(float(between)) if between else 1.0

    @cached_property
    def frames(self) -> tuple[Frame, ...]:
        """The frames, from functional groups if the file has them."""
        try:
            return tuple(frames_of(self))
        except (TypeError, ValueError, AttributeError, IndexError):
            raise GeometryError(
                f"{self.name}: position, orientation, spacing or rescale is invalid; "
                "expected numbers as DICOM defines them; export the file again"
            ) from None

    @cached_property
    def sheet(self) -> Sheet | None:
        """The tiles of a mosaic; None for other files."""
        return sheet_of(self)

    @cached_property
    def fault(self) -> GeometryError | None:
        """The error if the frames are neither slices nor views, or cannot be told apart; else None."""
        found = _NO_SLICES.get(str(self.header.get("SOPClassUID") or ""))
        try:
            if found and self.shape[0] > 1:
                raise GeometryError(
                    f"{self.name}: {self.shape[0]} {found}; expected slices, or views of one frame "
                    "each; give the reconstruction, or export it as such"
                )
            refuse_sheet(self)
            if is_nuclear(self):
                refuse_projections(self)
        except GeometryError as error:
            return error
        return None

    @cached_property
    def concatenation(self) -> tuple[str, int]:
        """UID of the concatenation that the file belongs to, or "", and its number of parts."""
        uid = str(self.header.get("ConcatenationUID") or "")
        return uid, count(self.header.get("InConcatenationTotalNumber"))

    def parse(self) -> None:
        """Evaluate every property once, so that a damaged element raises here and not later."""
        for name, member in vars(type(self)).items():
            if isinstance(member, cached_property):
                getattr(self, name)


def read_header(source: Source) -> DicomFile | None:
    """Load a header; None for a DICOM object without an image (a report, a plan, a DICOMDIR).

    Raises
    ------
    StudyUnreadableError
        If the header is damaged, or declares an image without its size.
    GeometryError
        If a position, orientation or spacing is invalid.
    StudyTooLargeError
    """
    import pydicom

    try:
        with open(source.path, "rb") as file:
            check_deflated(file, source.name)
            file.seek(0)
            header = pydicom.dcmread(
                file, stop_before_pixels=True, force=True, specific_tags=_header_tags()
            )
        found = DicomFile(source, header)
        if found.dicom_modality in _NOT_PICTURES:
            return None
        frames, rows, columns = found.shape
        if not rows or not columns:
            if _is_known_as_no_image(header):
                return None
            raise _without_size(source)
        check_size(source.name, (columns, rows, frames))
        check_unpacked(source.name, source.path.stat().st_size, columns * rows * frames)
        found.parse()
        return found
    except StudyError:
        raise
    except Exception:  # pydicom passes on any error of its parsers
        raise _damaged(source) from None


@cache
def _header_tags() -> list:
    """Return the tags as pydicom tags, to save a keyword look-up per file."""
    from pydicom.tag import Tag

    return [Tag(tag) for tag in _HEADER_TAGS]


def _is_known_as_no_image(header: Dataset) -> bool:
    from pydicom.uid import UID

    sop_class = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    return bool(sop_class) and "Image" not in UID(str(sop_class)).name


def _damaged(source: Source) -> StudyUnreadableError:
    return StudyUnreadableError(
        f"{source.name}: the DICOM header is truncated or damaged; "
        "expected an image with rows and columns; copy or export the file again"
    )


def _without_size(source: Source) -> StudyUnreadableError:
    return StudyUnreadableError(
        f"{source.name}: the DICOM header names no rows and columns; it is truncated, or the file "
        "holds no image; expected an image; copy or export the file again"
    )
