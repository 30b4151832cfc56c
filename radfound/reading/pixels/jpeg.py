"""Decode frames of the JPEG family by GDCM, without its colour conversion."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from radfound.reading.pixels.codestream import Codestream
from radfound.reading.pixels.layout import Layout, Samples, UnsupportedPixels

# SOP classes of secondary captures, whose pixels GDCM does not alter.
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MANY_CAPTURES = {
    (1, 8): f"{_CAPTURE}.2",
    (1, 16): f"{_CAPTURE}.3",
    (3, 8): f"{_CAPTURE}.4",
    (3, 16): f"{_CAPTURE}.4",
}


def decode_codestreams(
    layout: Layout, streams: Sequence[Codestream], *, is_lossless: bool
) -> Samples:
    """Decode one codestream per frame.

    Parameters
    ----------
    layout : Layout
        From the header; the codestreams must agree.
    streams : sequence of Codestream, at least one
    is_lossless : bool
        Whether the transfer syntax is lossless; otherwise values may leave the stored range.

    Raises
    ------
    UnsupportedPixels
    Exception
        Of any type, from the decoder, if a codestream is damaged.
    """
    first = streams[0]
    _check(layout, streams)
    values = _gdcm(streams).reshape(layout.frames, *layout.size, layout.samples)
    if first.precision < 8 and not first.is_signed:
        # The precision was raised to 8 bits for GDCM, which moved the middle of the range.
        values = values - values.dtype.type(128 - (1 << first.precision - 1))
    values = values.astype(f"{values.dtype.kind}{-(-layout.allocated // 8)}", copy=False)
    space = layout.space
    if first.is_ybr is not None and layout.samples > 1:
        space = "YBR_FULL" if first.is_ybr else "RGB"
    stored, high = _bits_of(layout, first)
    if not is_lossless and first.precision > stored and first.is_signed == layout.is_signed:
        low = -(1 << stored - 1) if first.is_signed else 0
        values, high = values.clip(low, low + (1 << stored) - 1), stored - 1
    return Samples(values, space, stored, high, layout.is_signed)


def _check(layout: Layout, streams: Sequence[Codestream]) -> None:
    first = streams[0]
    if any(stream.layout != first.layout for stream in streams):
        raise UnsupportedPixels(
            "frames are packed in different ways, which is not supported; expected one size, depth "
            "and colour space for all; convert it to Explicit VR Little Endian"
        )
    if (first.rows, first.columns, first.components) != (*layout.size, layout.samples):
        raise UnsupportedPixels(
            f"packed pixels are {first.columns:,} x {first.rows:,} of {first.components} sample(s), "
            f"but the header says {layout.columns:,} x {layout.rows:,} of {layout.samples}; "
            "expected the same; export it again"
        )
    if first.precision > layout.allocated:
        raise UnsupportedPixels(
            f"packed pixels have {first.precision} bits a sample, but the header makes room for "
            f"{layout.allocated}; expected no more; export it again"
        )


def _bits_of(layout: Layout, stream: Codestream) -> tuple[int, int]:
    """Return the number of bits of a value, and the highest one.

    If the codestream has fewer bits than the header says, negative values of JPEG 2000 have their
    sign in the codestream's highest bit, as written by encoders that measure the range.
    """
    if stream.precision > layout.stored:
        return layout.stored, min(layout.high, stream.precision - 1)
    has_own_sign = stream.is_jpeg2000 and layout.is_signed
    stored = stream.precision if has_own_sign else layout.stored
    return stored, stored - 1


def _gdcm(streams: Sequence[Codestream]) -> np.ndarray:
    """Decode frames through a minimal DICOM file around the codestreams.

    The file is always labelled grey or RGB, because GDCM inverts MONOCHROME1, applies palettes and
    converts YBR; with these two labels it returns the samples of the codestream.
    """
    import pydicom
    import SimpleITK as sitk
    from pydicom.encaps import encapsulate

    first = streams[0]
    bits = 8 if first.precision <= 8 else 16
    bare = pydicom.Dataset()
    bare.SOPClassUID = _CAPTURE if len(streams) == 1 else _MANY_CAPTURES[first.components, bits]
    bare.SOPInstanceUID = pydicom.uid.generate_uid()
    bare.Rows, bare.Columns = first.rows, first.columns
    bare.SamplesPerPixel = first.components
    bare.PhotometricInterpretation = "RGB" if first.components > 1 else "MONOCHROME2"
    if first.components > 1:
        bare.PlanarConfiguration = 0
    if len(streams) > 1:
        bare.NumberOfFrames = len(streams)
    bare.BitsAllocated = bare.BitsStored = bits
    if first.syntax.endswith(".51"):
        bare.BitsStored = first.precision
    bare.HighBit = bare.BitsStored - 1
    bare.PixelRepresentation = int(first.is_signed)
    bare.PixelData = encapsulate([_with_eight_bits(stream) for stream in streams], has_bot=False)
    bare["PixelData"].VR, bare["PixelData"].is_undefined_length = "OB", True
    bare.ensure_file_meta()
    bare.file_meta.TransferSyntaxUID = first.syntax
    bare.is_little_endian, bare.is_implicit_VR = True, False
    with tempfile.TemporaryDirectory(prefix="radfound-") as folder:
        path = Path(folder, "pixels.dcm")
        pydicom.dcmwrite(path, bare, write_like_original=False)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        return sitk.GetArrayFromImage(reader.Execute())


def _with_eight_bits(stream: Codestream) -> bytes:
    """Raise a precision below 8, which GDCM does not support, to 8."""
    if stream.precision >= 8:
        return stream.data
    data = bytearray(stream.data)
    for at in stream.precision_at:
        data[at] += 8 - stream.precision
    return bytes(data)
