"""DICOM pixels: convert decoded samples to grey values, larger is brighter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radfound.exceptions import StudyError, StudyUnreadableError
from radfound.reading.dicom.types import ImageFile
from radfound.reading.pixels.decoding import decode
from radfound.reading.pixels.layout import YBR_SPACES, Samples, TruncatedPixels, UnsupportedPixels
from radfound.reading.pixels.luts import PALETTE_TAGS, apply_modality_lut, apply_palette
from radfound.reading.pixels.units import modality_lut
from radfound.reading.values import luminance, rgb_of_ybr

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PIXEL_TAGS = [
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    *PALETTE_TAGS,
    "SOPClassUID",
    "Modality",
    "RescaleSlope",
    "ModalityLUTSequence",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "FloatPixelPaddingValue",
    "FloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingValue",
    "DoubleFloatPixelPaddingRangeLimit",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "PixelData",
]


def read_frames(file: ImageFile) -> np.ndarray:
    """Decode all frames of a file to grey values, before rescale.

    The steps after decoding, in this order for every transfer syntax: overlay bits are cleared and
    signs extended; colour becomes luminance; the Modality LUT is applied; MONOCHROME1 is inverted,
    so that larger is brighter, except for Hounsfield units, whose meaning does not depend on it.
    Padding takes the darkest value of the image, except in CT, where it is far below air already.

    Returns
    -------
    array, shape (frames, rows, columns)
        Integers; floats for float pixel data.

    Raises
    ------
    StudyUnreadableError
        If pixels are missing, truncated or damaged, or stored in a way that is not supported.
    """
    import pydicom

    try:
        with open(file.source.path, "rb") as opened:
            dataset = pydicom.dcmread(opened, force=True, specific_tags=_PIXEL_TAGS)
        _ensure_transfer_syntax(dataset)
        return _grey(file, dataset, decode(dataset))
    except StudyError:
        raise
    except UnsupportedPixels as reason:
        raise StudyUnreadableError(f"{file.name}: {reason}") from None
    except TruncatedPixels as found:
        raise _cannot_decode(file, f"is truncated: {found}") from None
    except EOFError:
        raise _cannot_decode(file, "is truncated") from None
    except Exception:  # pydicom and GDCM raise many types, with paths in their messages
        raise _cannot_decode(file, "holds damaged pixels") from None


def _cannot_decode(file: ImageFile, found: str) -> StudyUnreadableError:
    frames, rows, columns = file.shape
    return StudyUnreadableError(
        f"{file.name}: {found}; expected {frames:,} frame(s) of {columns:,} x {rows:,} pixels; "
        "copy the file again, or export it uncompressed"
    )


def _ensure_transfer_syntax(dataset: Dataset) -> None:
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if hasattr(dataset, "file_meta") and "TransferSyntaxUID" in dataset.file_meta:
        return
    # A bare data set, as sent over the network; pydicom has detected its encoding.
    if dataset.is_implicit_VR:
        syntax = ImplicitVRLittleEndian
    else:
        syntax = ExplicitVRLittleEndian if dataset.is_little_endian else ExplicitVRBigEndian
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = syntax


def _grey(file: ImageFile, dataset: Dataset, samples: Samples) -> np.ndarray:
    values = _stored_values(samples)
    if samples.space in YBR_SPACES:
        values = rgb_of_ybr(values, samples.stored, is_partial="PARTIAL" in samples.space)
    if values.shape[-1] == 3:
        return luminance(values)
    values = values[..., 0]
    if samples.space == "PALETTE COLOR":
        return apply_palette(values, dataset)
    padding = _padding(dataset, values)
    lut = modality_lut(dataset)
    if lut is not None:
        values = apply_modality_lut(values, lut, dataset)
    if file.is_hounsfield:
        return values
    if samples.space == "MONOCHROME1":
        values = ~values if lut is not None else _inverted(values, samples.stored)
    if padding is not None and not padding.all():
        values = np.where(padding, values[~padding].min(), values)
    return values


def _stored_values(samples: Samples) -> np.ndarray:
    """Clear bits outside the stored ones, used for overlays in old files, and extend the sign."""
    values = samples.values
    if values.dtype.kind == "f":
        return values
    values = values.view(f"{'i' if samples.is_signed else 'u'}{values.dtype.itemsize}")
    cell = values.dtype.itemsize * 8
    if samples.stored >= cell or values.size == 0:
        return values
    low = -(1 << samples.stored - 1) if samples.is_signed else 0
    are_lowest = samples.high == samples.stored - 1
    if are_lowest and values.min() >= low and values.max() <= low + (1 << samples.stored) - 1:
        return values
    return (values << (cell - 1 - samples.high)) >> (cell - samples.stored)


def _inverted(values: np.ndarray, stored: int) -> np.ndarray:
    """Invert the grey scale within the range of the stored bits."""
    if values.dtype.kind == "f":
        return -values
    if values.dtype.kind == "i":
        return -1 - values
    return values.dtype.type((1 << stored) - 1) - values


def _padding(dataset: Dataset, values: np.ndarray) -> np.ndarray | None:
    """Return the mask of padding pixels, or None."""
    prefix = {"f4": "Float", "f8": "DoubleFloat"}.get(values.dtype.str[1:], "")
    keywords = (f"{prefix}PixelPaddingValue", f"{prefix}PixelPaddingRangeLimit")
    number = float if prefix else lambda value: _whole_number(value, values.dtype.kind == "i")
    ends = [
        number(dataset[keyword].value)
        for keyword in keywords
        if keyword in dataset and dataset[keyword].value not in (None, "", b"")
    ]
    if not ends or keywords[0] not in dataset:
        return None
    padding = (values >= min(ends)) & (values <= max(ends))
    return padding if padding.any() else None


def _whole_number(value, signed: bool) -> int:
    """Convert a number whose sign depends on the pixels' and that pydicom may leave as bytes."""
    if isinstance(value, bytes):
        return int.from_bytes(value[:2], "little", signed=signed)
    return int(np.array(int(value) & 0xFFFF, np.uint16).astype(np.int16)) if signed else int(value)
