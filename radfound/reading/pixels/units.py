"""DICOM units: whether rescale applies, and whether the result is in Hounsfield units."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

UNIT_TAGS = [
    "BitsStored",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "MultienergyCTAcquisition",
    "RealWorldValueMappingSequence",
]
_CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
}
_X_RAY_CLASSES = {f"1.2.840.10008.5.1.4.1.1.12.{number}" for number in (1, 2, 3)}
_RESCALED_MODALITIES = {"CT", "PT"}
# Values of Image Type and Frame Type, of the standard (C.8.16.1) and of vendors, for images that do
# not show attenuation: scouts, screen captures, maps of perfusion, dose and materials.
_NO_ATTENUATION = re.compile(
    r"(^|[\\_ -])("
    r"LOCALIZER|SCOUT|TOPOGRAM|SURVIEW|SCANOGRAM|SCREEN ?(SAVE|SHOT|CAPTURE)?|DOSE|GSP|"
    r"PERF\w*|CBF|CBV|MTT|TTP|TTD|TTS|TTM|TMAX|PMB|IRF|DELAY|PERMEABILITY|"
    r"DIVISION|MULTIPLICATION|SUBTRACTION|STD_DEVIATION|QUANTITY|MAT|IODINE|FAT_MAP|"
    r"EFF_ATOMIC_NUM|ELECTRON_DENSITY|ATTENUATION_RATIO|Z_EFF|RHO|VALUE_MAP|WINDOWED"
    r")($|[\\_ -])"
)


def modality_lut(header: Dataset) -> Dataset | None:
    """Return the Modality LUT that maps stored values to modality values, if there is one.

    The standard allows either a LUT or a rescale (PS3.3 C.11.1). If a file has both, the rescale
    applies to CT and PET, whose image modules require it, and the LUT to others. The LUT of a
    fluoroscopic image maps back to X-ray intensity and is not for display (PS3.4 N.2.5); colour
    has none; an item without a table is ignored.
    """
    items = header.get("ModalityLUTSequence")
    if not items or not (items[0].get("LUTDescriptor") and items[0].get("LUTData")):
        return None
    if header.get("SOPClassUID") in _X_RAY_CLASSES or _is_colour(header):
        return None
    has_rescale = header.get("RescaleSlope") is not None
    return None if has_rescale and header.get("Modality") in _RESCALED_MODALITIES else items[0]


def takes_rescale(header: Dataset) -> bool:
    """Whether slope and intercept apply: only to grey values without a Modality LUT."""
    return not _is_colour(header) and modality_lut(header) is None


def is_hounsfield(header: Dataset) -> bool:
    """Whether rescaled values are Hounsfield units according to the header.

    True if the modality is CT, there is a rescale, and its type is HU. Only CT images (plain,
    enhanced, legacy converted) may omit the type, by PS3.3 C.8.2.1: "Required if the Rescale Type
    is not HU (Hounsfield Units), or Multi-energy CT Acquisition is YES". False if the image type
    names something other than attenuation, such as a localizer or a perfusion map; if values are
    colours or of 8 bits, which no CT image may have (C.8.2.1: 12 to 16 bits stored); or if a real
    world mapping (C.7.6.16.2.11) gives another unit.
    """
    if header.get("Modality") != "CT" or _is_colour(header):
        return False
    if int(header.get("BitsStored") or 16) <= 8 or modality_lut(header) is not None:
        return False
    groups = list(_levels(header))
    if any(_NO_ATTENUATION.search(kind) for kind in _kinds(groups)):
        return False
    types = _rescale_types(header, groups)
    is_implied = (
        header.get("SOPClassUID") in _CT_CLASSES
        and str(header.get("MultienergyCTAcquisition") or "").upper() != "YES"
    )
    allowed = {"HU", ""} if is_implied else {"HU"}
    return bool(types) and types <= allowed and _mapped_units(groups) <= {"[hnsf'U]"}


def _is_colour(header: Dataset) -> bool:
    return (
        header.get("PhotometricInterpretation") == "PALETTE COLOR"
        or int(header.get("SamplesPerPixel") or 1) > 1
    )


def _levels(header: Dataset) -> Iterator[Dataset]:
    """Yield the header, and each item of its functional groups."""
    yield header
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        yield from header.get(sequence) or []


def _kinds(levels: list[Dataset]) -> Iterator[str]:
    """Yield each Image Type and Frame Type, its values joined by backslashes."""
    for level in levels:
        frame_types = level.get("CTImageFrameTypeSequence") or []
        for value in (level.get("ImageType"), *(item.get("FrameType") for item in frame_types)):
            if value:
                parts = [value] if isinstance(value, str) else value
                yield "\\".join(str(part).upper() for part in parts)


def _rescale_types(header: Dataset, levels: list[Dataset]) -> set[str]:
    """Return the rescale types of all levels; empty text for a rescale without a type."""
    items = [
        item for level in levels for item in level.get("PixelValueTransformationSequence") or []
    ]
    return {
        str(item.get("RescaleType") or "").strip().upper()
        for item in items or [header]
        if item.get("RescaleSlope") is not None and item.get("RescaleIntercept") is not None
    }


def _mapped_units(levels: list[Dataset]) -> set[str]:
    return {
        str(code.get("CodeValue"))
        for level in levels
        for mapping in level.get("RealWorldValueMappingSequence") or []
        for code in mapping.get("MeasurementUnitsCodeSequence") or []
    }
