"""Traits that distinguish images at one position: component, echo, b-value, energy, phase, time.

A series may hold several volumes of the same slices. Header elements assign each image to its
volume; labels describe the volumes in a reader's terms.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from radfound.reading.dicom import nuclear as dicom_nuclear
from radfound.reading.dicom.elements import element, private_element, values
from radfound.reading.dicom.types import Frame


@dataclass(frozen=True)
class Trait:
    """A property in which images of a series may differ.

    Parameters
    ----------
    name : str
        Name in words, for images that lack the trait.
    words : str
        Format of a value in words, such as "TE {} ms".
    reader : callable
        Returns the value of a frame, or None.
    order : sequence of values, optional
        Order of the values; ascending if empty.
    """

    name: str
    words: str
    reader: Callable[[Frame], Any]
    order: Sequence[Hashable] = ()

    def read(self, frame: Frame) -> Any:
        """Return the value of a frame, or None if it is missing or damaged."""
        try:
            return self.reader(frame)
        except Exception:  # pydicom passes on any error of its parsers
            return None

    def label(self, value: Any) -> str:
        """Return a value in words."""
        if value is None:
            return f"no {self.name}"
        parts = value if isinstance(value, tuple) else (value,)
        shown = (f"{part:g}" if isinstance(part, float) else str(part) for part in parts)
        return self.words.format(", ".join(shown))


def split(frames: Iterable[Frame], trait: Trait) -> dict[Hashable, list[Frame]]:
    """Group frames by their values of a trait, in the order of the values; frames without one first."""
    groups: dict[Any, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[trait.read(frame)].append(frame)
    known = [value for value in groups if value is not None]
    known.sort(key=trait.order.index if trait.order else None)
    return {value: groups[value] for value in ([None] if None in groups else []) + known}


# Values of a frame --------------------------------------------------------------------------------------


def _numbers(*paths: str, digits: int = 5) -> Callable[[Frame], Any]:
    """Return a function that extracts one or several numbers, rounded to `digits` digits."""

    def read(frame: Frame) -> tuple[float, ...] | None:
        found = [float(part) for part in values(frame.find(*paths))]
        return tuple(float(f"{part:.{digits}g}") for part in found) or None

    return read


def _text(*paths: str) -> Callable[[Frame], Any]:
    def read(frame: Frame) -> str | None:
        shown = " ".join(str(part) for part in values(frame.find(*paths)))
        return frame.file.without_names(shown).strip() or None

    return read


def _image_type(frame: Frame) -> list[str]:
    found = frame.find(
        "MRImageFrameTypeSequence.FrameType",
        "CTImageFrameTypeSequence.FrameType",
        "PETFrameTypeSequence.FrameType",
        "XRay3DFrameTypeSequence.FrameType",
        "ImageType",
    )
    return [str(part).strip().upper() for part in values(found)]


_COMPONENTS = {"M": "magnitude", "P": "phase", "R": "real part", "I": "imaginary part"}
_COMPONENT_WORDS = {
    "MAGNITUDE": "magnitude",
    "PHASE": "phase",
    "PHASE MAP": "phase",
    "PHASE_MAP": "phase",
    "REAL": "real part",
    "IMAGINARY": "imaginary part",
}
_TISSUES = {
    "W": "water",
    "WATER": "water",
    "F": "fat",
    "FAT": "fat",
    "IP": "in phase",
    "IN_PHASE": "in phase",
    "IN PHASE": "in phase",
    "OP": "opposed phase",
    "OPP_PHASE": "opposed phase",
    "OUT_PHASE": "opposed phase",
    "OPPOSED_PHASE": "opposed phase",
    "OUT OF PHASE": "opposed phase",
}


def _component(frame: Frame) -> str | None:
    """Return the component of complex MR images; Philips uses "M_FFE", GE a private number."""
    if frame.file.modality != "MR":
        return None
    stated = frame.find("MRImageFrameTypeSequence.ComplexImageComponent", "ComplexImageComponent")
    if stated and str(stated).upper() in _COMPONENT_WORDS:
        return _COMPONENT_WORDS[str(stated).upper()]
    for word in _image_type(frame)[2:]:
        letter = re.fullmatch(r"([MPRI])(_\w+)?", word)
        if word in _COMPONENT_WORDS or letter:
            return _COMPONENT_WORDS.get(word) or _COMPONENTS[letter[1]]  # type: ignore[index]
    number = _private_number(frame, 0x0043, "GEMS_PARM_01", 0x2F)
    return dict(enumerate(_COMPONENTS.values())).get(int(number)) if number is not None else None


def _tissue(frame: Frame) -> str | None:
    """Return the Dixon contrast of an image: water, fat, in phase or opposed phase."""
    if frame.file.modality != "MR":
        return None
    return next((_TISSUES[word] for word in _image_type(frame)[2:] if word in _TISSUES), None)


def _b_value(frame: Frame) -> float | None:
    """Return the b-value in s/mm2, from the standard or private elements."""
    stated = frame.find("MRDiffusionSequence.DiffusionBValue", "DiffusionBValue")
    if stated is None:
        found = (_private_number(frame, *place) for place in _PRIVATE_B_VALUES)
        stated = next((number for number in found if number is not None), None)
    # GE adds 1e9 to the b-values of a series with several.
    return None if stated is None else float(f"{float(stated) % 1e9:.5g}")


_PRIVATE_B_VALUES = (
    (0x0019, "SIEMENS MR HEADER", 0x0C),
    (0x2001, "Philips Imaging DD 001", 0x03),
    (0x0043, "GEMS_PARM_01", 0x39),
    (0x0065, "Image Private Header", 0x09),
)


def _private_number(frame: Frame, *place: Any) -> float | None:
    found = values(private_element(frame.file.header, *place))
    return float(found[0]) if found else None


def _direction(frame: Frame) -> tuple[float, ...] | None:
    stated = frame.find(
        "MRDiffusionSequence.DiffusionGradientDirectionSequence.DiffusionGradientOrientation",
        "DiffusionGradientOrientation",
    ) or private_element(frame.file.header, 0x0019, "SIEMENS MR HEADER", 0x0E)
    return tuple(round(float(part), 2) + 0.0 for part in values(stated)) or None


def _energy_window(frame: Frame) -> str | None:
    number = frame.find("EnergyWindowVector")
    if not isinstance(number, int):
        return None
    name = frame.file.without_names(dicom_nuclear.energy_window(frame.file.header, number))
    return f"{number} ({name})" if name else str(number)


def acquired(frame: Frame) -> str | None:
    """Return date and time of acquisition as text that sorts chronologically."""
    moment = frame.find("FrameContentSequence.FrameAcquisitionDateTime", "AcquisitionDateTime")
    if moment is None:
        time = frame.find("AcquisitionTime")
        moment = f"{frame.find('AcquisitionDate') or ''}{time}" if time else None
    return None if moment is None else str(moment).strip()


def number_in_series(frame: Frame) -> tuple[int, int]:
    """Return the instance number and the frame index."""
    return frame.file.instance_number, frame.index


# Traits ---------------------------------------------------------------------------------------

# Images that differ in one of these never belong to the same volume.
KINDS = (
    Trait("component", "{}", _component, tuple(_COMPONENTS.values())),
    Trait("Dixon image", "{}", _tissue, ("water", "fat", "in phase", "opposed phase")),
    Trait("echo number", "echo {}", _numbers("EchoNumbers")),
    Trait("TE", "TE {} ms", _numbers("MREchoSequence.EffectiveEchoTime", "EchoTime")),
    Trait("b-value", "b = {}", _b_value),
    Trait("tube voltage", "{} kVp", _numbers("CTXRayDetailsSequence.KVP", "KVP")),
    Trait("energy", "{} keV", _numbers("MonoenergeticEnergyEquivalent")),
    Trait(
        "kernel",
        "kernel {}",
        _text("CTReconstructionSequence.ConvolutionKernel", "ConvolutionKernel"),
    ),
    Trait("energy window", "energy window {}", _energy_window),
    Trait("data type", "{}", _text("ImageDataTypeSequence.DataType")),
    Trait("stack", "stack {}", _text("FrameContentSequence.StackID")),
)
TRIGGER = Trait(
    "trigger time",
    "trigger time {} ms",
    _numbers(
        "CardiacSynchronizationSequence.NominalCardiacTriggerDelayTime", "TriggerTime", digits=8
    ),
)
# These separate images at one position only if each value covers every position. Within one volume
# they may vary from slice to slice.
CIRCUMSTANCES = (
    Trait(
        "temporal position",
        "time {}",
        _numbers("FrameContentSequence.TemporalPositionIndex", "TemporalPositionIdentifier"),
    ),
    Trait(
        "time offset",
        "{} s",
        _numbers("TemporalPositionSequence.TemporalPositionTimeOffset", digits=8),
    ),
    Trait(
        "cardiac phase",
        "{} % of the cardiac cycle",
        _numbers(
            "CardiacSynchronizationSequence.NominalPercentageOfCardiacPhase",
            "NominalPercentageOfCardiacPhase",
        ),
    ),
    Trait(
        "respiratory phase",
        "{} % of the breath",
        _numbers(
            "RespiratorySynchronizationSequence.NominalPercentageOfRespiratoryPhase",
            "NominalPercentageOfRespiratoryPhase",
        ),
    ),
    TRIGGER,
    Trait("reference time", "{} ms", _numbers("FrameReferenceTime", digits=8)),
    Trait("R-R interval", "R-R interval {}", _numbers("RRIntervalVector")),
    Trait("time slot", "time slot {}", _numbers("TimeSlotVector")),
    Trait("phase", "phase {}", _numbers("PhaseVector")),
    Trait("time slice", "time {}", _numbers("TimeSliceVector")),
    Trait("detector", "detector {}", _numbers("DetectorVector")),
    Trait("rotation", "rotation {}", _numbers("RotationVector")),
    Trait("TI", "TI {} ms", _numbers("MRModifierSequence.InversionTimes", "InversionTime")),
    Trait(
        "flip angle",
        "flip angle {}",
        _numbers("MRTimingAndRelatedParametersSequence.FlipAngle", "FlipAngle"),
    ),
    Trait("gradient", "gradient ({})", _direction),
    Trait(
        "velocity encoding",
        "velocity along ({})",
        _numbers("MRVelocityEncodingSequence.VelocityEncodingDirection"),
    ),
    Trait("contrast agent", "contrast {}", _text("ContrastBolusAgent")),
    Trait("image type", "{}", lambda frame: " ".join(_image_type(frame)) or None),
    Trait("sequence", "sequence {}", _text("SequenceName")),
    Trait("scan options", "options {}", _text("ScanOptions")),
    Trait("coil", "coil {}", _text("MRReceiveCoilSequence.ReceiveCoilName", "ReceiveCoilName")),
    Trait(
        "TR",
        "TR {} ms",
        _numbers("MRTimingAndRelatedParametersSequence.RepetitionTime", "RepetitionTime"),
    ),
    Trait("units", "{}", _text("Units")),
    Trait("correction", "corrected for {}", _text("CorrectedImage")),
    Trait("filter", "filter {}", _text("FilterType")),
    Trait(
        "thickness",
        "slices of {} mm",
        _numbers("PixelMeasuresSequence.SliceThickness", "SliceThickness"),
    ),
    Trait("derivation", "{}", _text("DerivationDescription")),
    Trait("description", "{}", _text("SeriesDescription")),
    Trait("acquisition", "acquisition {}", _numbers("AcquisitionNumber")),
)
_PRIVATE_TAGS = [0x00190010, 0x0019100C, 0x0019100E, 0x20010010, 0x20011003] + [
    0x00430010,
    0x0043102F,
    0x00431039,
    0x00650010,
    0x00651009,
]
_KIND_TAGS = [
    "ImageType",
    "ComplexImageComponent",
    "EchoNumbers",
    "EchoTime",
    "DiffusionBValue",
    "KVP",
    "MonoenergeticEnergyEquivalent",
    "ConvolutionKernel",
]
_FRAME_CONTENT = 0x00209111  # also holds numbers that differ in every frame
_KIND_GROUPS = {
    "CTImageFrameTypeSequence": ["FrameType"],
    "CTReconstructionSequence": ["ConvolutionKernel"],
    "CTXRayDetailsSequence": ["KVP"],
    "FrameContentSequence": ["StackID"],
    "ImageDataTypeSequence": ["DataType"],
    "MRDiffusionSequence": ["DiffusionBValue"],
    "MREchoSequence": ["EffectiveEchoTime"],
    "MRImageFrameTypeSequence": ["FrameType", "ComplexImageComponent"],
    "PETFrameTypeSequence": ["FrameType"],
    "XRay3DFrameTypeSequence": ["FrameType"],
}
HEADER_TAGS = [
    *_KIND_TAGS,
    *_PRIVATE_TAGS,
    "AcquisitionDate",
    "AcquisitionDateTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "ContrastBolusAgent",
    "CorrectedImage",
    "DerivationDescription",
    "DiffusionGradientOrientation",
    "DimensionIndexSequence",
    "FilterType",
    "FlipAngle",
    "FrameReferenceTime",
    "InversionTime",
    "NominalPercentageOfCardiacPhase",
    "NominalPercentageOfRespiratoryPhase",
    "ReceiveCoilName",
    "RepetitionTime",
    "ScanOptions",
    "SequenceName",
    "SliceThickness",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "Units",
]
_PLACES = {
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "InStackPositionNumber",
    "ImagePositionVolume",
    "ImageOrientationVolume",
}


def dimensions(frame: Frame) -> list[Trait]:
    """Return the dimensions that an enhanced file declares, without the spatial ones."""
    from pydicom.datadict import dictionary_description, keyword_for_tag

    traits = []
    for place, item in enumerate(values(frame.find("DimensionIndexSequence"))):
        pointer = element(item, "DimensionIndexPointer")
        if not isinstance(pointer, int) or keyword_for_tag(pointer) in _PLACES:
            continue
        known = bool(keyword_for_tag(pointer))
        name = dictionary_description(pointer).lower() if known else f"dimension {place + 1}"
        traits.append(Trait(name, f"{name} {{}}", _dimension_reader(place)))
    return traits


def _dimension_reader(place: int) -> Callable[[Frame], int | None]:
    def read(frame: Frame) -> int | None:
        indices = values(frame.find("FrameContentSequence.DimensionIndexValues"))
        return int(indices[place]) if place < len(indices) else None

    return read


def are_of_one_kind(frames: Sequence[Frame]) -> bool:
    """Whether the stored elements show only one kind; a fast check for plain series."""
    kinds: dict[int, Hashable] = {}
    for frame in frames:
        for group in (*frame.groups, frame.file.header):
            if id(group) not in kinds:
                kinds[id(group)] = _stored_kind(group)
    found = {tuple(kinds[id(g)] for g in (*frame.groups, frame.file.header)) for frame in frames}
    return len(found) == 1


def _stored_kind(group: Any) -> Hashable:
    """Return the elements of a header or functional group that define its kind, unparsed if possible."""
    if isinstance(group, dict):
        return group.get("EnergyWindowVector")
    found: dict[int, Hashable] = {}
    for tag in group.keys() & _kind_elements().keys():
        parts, stored = _kind_elements()[tag], group.get_item(tag).value
        if parts and (tag == _FRAME_CONTENT or not isinstance(stored, bytes)):
            items = group[tag].value
            stored = [_bytes(items[0].get_item(part)) for part in parts] if items else None
        found[tag] = repr(stored)
    return tuple(sorted(found.items()))


def _bytes(element: Any) -> str:
    return "" if element is None else repr(element.value)


@cache
def _kind_elements() -> dict[Any, list]:
    """Return the tags that define a kind, each with the tags inside its sequence."""
    from pydicom.tag import Tag

    plain: dict[Any, list] = {Tag(tag): [] for tag in (*_KIND_TAGS, *_PRIVATE_TAGS)}
    return plain | {
        Tag(name): [Tag(part) for part in parts] for name, parts in _KIND_GROUPS.items()
    }
