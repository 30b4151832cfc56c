"""DICOM pixels: stored numbers out of any transfer syntax that pydicom or GDCM can decode."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radfound.exceptions import StudyUnreadableError
from radfound.reading.dicom_header import DicomFile
from radfound.reading.values import luminance

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_LAYOUT_TAGS = [
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
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "PixelData",
]
_VALUE_TAGS = ["PixelPaddingValue", "PixelPaddingRangeLimit", "ModalityLUTSequence"]
# Secondary captures carry pixels and nothing that would make GDCM change them.
_GREY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MANY_CAPTURES = {False: f"{_GREY_CAPTURE}.3", True: f"{_GREY_CAPTURE}.4"}


def read_frames(file: DicomFile) -> np.ndarray:
    """Decode all frames of a file to grey values, before rescale.

    Colour becomes luminance. MONOCHROME1 is inverted, so that larger is brighter, except for
    Hounsfield units, which mean the same either way. Padding becomes the darkest value there is,
    again except in CT, where its value is far below air already.

    Returns
    -------
    integer array, shape (frames, rows, columns)

    Raises
    ------
    StudyUnreadableError
        If pixels are missing, truncated, or packed in a way that cannot be decoded.
    """
    import pydicom

    try:
        with open(file.source.path, "rb") as opened:
            dataset = pydicom.dcmread(opened, force=True, specific_tags=_LAYOUT_TAGS + _VALUE_TAGS)
        syntax = _transfer_syntax(dataset)
        if "PixelData" not in dataset:
            raise _cannot_decode(file, "holds no integer pixels")
        if syntax.is_compressed and not _is_deep_rle_colour(dataset, syntax):
            pixels = _decode(dataset, syntax)
        else:
            if not syntax.is_compressed:
                _check_length(file, dataset)
            pixels = dataset.pixel_array
            if file.is_colour:
                pixels = _to_rgb(dataset, pixels)
        return _grey(file, dataset, pixels)
    except StudyUnreadableError:
        raise
    except EOFError:
        raise _cannot_decode(file, "is truncated") from None
    except Exception:  # pydicom and GDCM raise many kinds, with directories in their messages
        raise _cannot_decode(file, "holds damaged pixels or an unknown compression") from None


def _cannot_decode(file: DicomFile, found: str) -> StudyUnreadableError:
    frames, rows, columns = file.shape
    return StudyUnreadableError(
        f"{file.name}: {found}; expected {frames:,} frame(s) of {columns:,} x {rows:,} pixels; "
        "copy the file again, or export it uncompressed"
    )


def _transfer_syntax(dataset: Dataset):
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if not hasattr(dataset, "file_meta") or "TransferSyntaxUID" not in dataset.file_meta:
        # A bare data set, as it travels over the network; pydicom found out how it is written.
        if dataset.is_implicit_VR:
            syntax = ImplicitVRLittleEndian
        else:
            little = dataset.is_little_endian
            syntax = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.ensure_file_meta()
        dataset.file_meta.TransferSyntaxUID = syntax
    return dataset.file_meta.TransferSyntaxUID


def _check_length(file: DicomFile, dataset: Dataset) -> None:
    from pydicom.pixel_data_handlers.util import get_expected_length

    expected, found = get_expected_length(dataset), len(dataset.PixelData)
    if found < expected:
        raise _cannot_decode(
            file, f"is truncated: {found:,} bytes of pixels where {expected:,} are needed"
        )


def _is_deep_rle_colour(dataset: Dataset, syntax) -> bool:
    """Whether GDCM would swap the bytes: it does so for colour of more than 8 bits in RLE."""
    return (
        syntax.name == "RLE Lossless" and dataset.SamplesPerPixel > 1 < dataset.BitsAllocated // 8
    )


def _to_rgb(dataset: Dataset, pixels: np.ndarray) -> np.ndarray:
    from pydicom.pixel_data_handlers.util import apply_color_lut, convert_color_space

    space = dataset.PhotometricInterpretation
    if space == "PALETTE COLOR":
        return apply_color_lut(pixels, dataset)
    return pixels if space == "RGB" else convert_color_space(pixels, space, "RGB")


def _check_fragments(packed: bytes, is_rle: bool) -> None:
    """Raise ValueError for lengths that point beyond the data; GDCM would reserve the room.

    Parameters
    ----------
    packed : bytes
        Items of a tag, a length and a content each; the first one is the table of offsets.
    is_rle : bool
        Whether each further item begins with the offsets of up to 15 run length segments.
    """
    at = 0
    while packed[at : at + 4] == b"\xfe\xff\x00\xe0":
        (length,) = struct.unpack_from("<L", packed, at + 4)
        start, is_table = at + 8, at == 0
        at = start + length
        if at > len(packed):
            raise ValueError("a fragment that is longer than the data")
        if is_rle and not is_table:
            segments, *offsets = struct.unpack_from("<16L", packed, start)
            bounds = [64, *offsets[:segments], length]
            if not 1 <= segments <= 15 or bounds != sorted(bounds):
                raise ValueError("run lengths beyond their fragment")
    if len(packed) - at > 8:  # more than the end mark
        raise ValueError("something else between the fragments")


def _decode(dataset: Dataset, syntax) -> np.ndarray:
    """Let GDCM decode packed pixels, out of a bare file without rescale or a patient's data."""
    import pydicom
    import SimpleITK as sitk

    _check_fragments(dataset.PixelData, syntax.name == "RLE Lossless")
    bare = pydicom.Dataset()
    for tag in _LAYOUT_TAGS:
        if tag in dataset:
            bare[tag] = dataset[tag]
    several = int(dataset.get("NumberOfFrames") or 1) > 1
    bare.SOPClassUID = _MANY_CAPTURES[dataset.SamplesPerPixel > 1] if several else _GREY_CAPTURE
    bare.SOPInstanceUID = pydicom.uid.generate_uid()
    bare.ensure_file_meta()
    bare.file_meta.TransferSyntaxUID = syntax
    bare.is_little_endian, bare.is_implicit_VR = True, False
    with tempfile.TemporaryDirectory(prefix="radfound-") as folder:
        path = Path(folder, "pixels.dcm")
        pydicom.dcmwrite(path, bare, write_like_original=False)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        return sitk.GetArrayFromImage(reader.Execute())


def _grey(file: DicomFile, dataset: Dataset, pixels: np.ndarray) -> np.ndarray:
    from pydicom.pixel_data_handlers.util import apply_modality_lut

    if pixels.shape[-1] in (3, 4) and file.is_colour:
        return luminance(pixels).reshape(file.shape)
    pixels = _stored_bits(dataset, pixels.reshape(file.shape))
    padding = _padding(dataset, pixels)
    if dataset.get("ModalityLUTSequence"):
        pixels = apply_modality_lut(pixels, dataset)
    if file.is_hounsfield:
        return pixels
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = ~pixels if dataset.get("ModalityLUTSequence") else _inverted(dataset, pixels)
    if padding is not None and not padding.all():
        pixels = np.where(padding, pixels[~padding].min(), pixels)
    return pixels


def _inverted(dataset: Dataset, pixels: np.ndarray) -> np.ndarray:
    """Mirror the grey scale within the range that the stored bits span."""
    if dataset.PixelRepresentation:
        return -1 - pixels
    return pixels.dtype.type(2 ** int(dataset.BitsStored) - 1) - pixels


def _stored_bits(dataset: Dataset, pixels: np.ndarray) -> np.ndarray:
    """Clear bits outside the stored ones, where old files keep overlays."""
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    high = int(dataset.get("HighBit", stored - 1))
    if stored >= allocated or pixels.dtype.itemsize * 8 != allocated:
        return pixels
    low_end, high_end = (-(1 << stored - 1), (1 << stored - 1) - 1)
    if not dataset.PixelRepresentation:
        low_end, high_end = 0, (1 << stored) - 1
    if high == stored - 1 and pixels.min() >= low_end and pixels.max() <= high_end:
        return pixels
    return (pixels << (allocated - 1 - high)) >> (allocated - stored)


def _padding(dataset: Dataset, pixels: np.ndarray) -> np.ndarray | None:
    """Return where the pixels are padding, or None."""
    ends = [
        _whole_number(dataset[tag].value, bool(dataset.PixelRepresentation))
        for tag in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        if tag in dataset and dataset[tag].value not in (None, "", b"")
    ]
    if not ends or "PixelPaddingValue" not in dataset:
        return None
    padding = (pixels >= min(ends)) & (pixels <= max(ends))
    return padding if padding.any() else None


def _whole_number(value, signed: bool) -> int:
    """Read a number whose type depends on the pixels' and which pydicom may leave as bytes."""
    if isinstance(value, bytes):
        return int.from_bytes(value[:2], "little", signed=signed)
    return int(np.array(int(value) & 0xFFFF, np.uint16).astype(np.int16)) if signed else int(value)
