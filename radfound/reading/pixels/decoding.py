"""Decode pixel data to stored samples, by transfer syntax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radfound.reading.pixels.codestream import read_codestream, starts_codestream
from radfound.reading.pixels.fragments import ITEM, decode_run_lengths, fragments_of, frames_of
from radfound.reading.pixels.jpeg import decode_codestreams
from radfound.reading.pixels.layout import Layout, Samples, UnsupportedPixels
from radfound.reading.pixels.native import decode_cells, decode_floats, decode_padded_frames

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", _BIG_ENDIAN}
_ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
_RLE = "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4."
_LOSSLESS_JPEG_NUMBERS = {57, 58, 65, 66, 70, 80, 90, 92, 201, 202}
_JPEG_NUMBERS = {*range(50, 71), 80, 81, *range(90, 94), 201, 202, 203}
_OTHER_PACKINGS = {
    range(94, 96): "left on a server (JPIP)",
    range(204, 206): "left on a server (JPIP)",
    range(100, 109): "packed as video (MPEG-2, MPEG-4 or HEVC)",
    range(110, 113): "packed as JPEG XL",
}
_EXPECTED = (
    "expected uncompressed pixels, RLE, JPEG, JPEG-LS, JPEG 2000 or HTJ2K; "
    "convert it to Explicit VR Little Endian"
)


def decode(dataset: Dataset) -> Samples:
    """Decode all frames of a data set in its transfer syntax.

    Returns stored samples: not inverted, rescaled, looked up or converted to another colour space,
    except that JPEG 2000 decoders undo the component transform.

    Raises
    ------
    UnsupportedPixels
        If no decoder supports the pixel data.
    TruncatedPixels
        If the pixel data end too early.
    Exception
        Of any type, from the decoders, if the pixel data are damaged.
    """
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    is_big_endian = syntax == _BIG_ENDIAN
    for keyword, dtype in (("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")):
        if keyword in dataset:
            return decode_floats(dataset, dataset[keyword].value, dtype, big_endian=is_big_endian)
    _check_syntax(syntax)
    if "PixelData" not in dataset:
        raise UnsupportedPixels(
            "holds no pixel data; expected the element Pixel Data; "
            "export it again together with its pixels"
        )
    layout, packed = Layout.of(dataset), dataset.PixelData or b""
    if syntax in _NATIVE and not dataset["PixelData"].is_undefined_length:
        if is_big_endian and layout.allocated == 8 and dataset["PixelData"].VR == "OW":
            packed = np.frombuffer(packed, ">u2").astype("<u2").tobytes()
        return decode_cells(layout, packed, big_endian=is_big_endian)
    if packed and not packed.startswith(ITEM):
        raise UnsupportedPixels(
            "the header names a packed transfer syntax, but the pixels lie in no fragments; "
            "expected fragments, or an uncompressed transfer syntax; export it again"
        )
    if syntax == _ENCAPSULATED_UNCOMPRESSED:
        return decode_padded_frames(layout, b"".join(fragments_of(packed)))
    if syntax == _RLE:
        return decode_run_lengths(layout, packed)
    frames = frames_of(packed, layout.frames, starts_codestream)
    return decode_codestreams(
        layout,
        [read_codestream(frame) for frame in frames],
        is_lossless=_jpeg_number(syntax) in _LOSSLESS_JPEG_NUMBERS,
    )


def _check_syntax(syntax: str) -> None:
    number = _jpeg_number(syntax)
    if number in _JPEG_NUMBERS or syntax in {*_NATIVE, _ENCAPSULATED_UNCOMPRESSED, _RLE}:
        return
    for numbers, found in _OTHER_PACKINGS.items():
        if number in numbers:
            raise UnsupportedPixels(f"the pixels are {found}, which is not supported; {_EXPECTED}")
    shown = "".join(letter for letter in syntax if letter in "0123456789.")[:64]
    raise UnsupportedPixels(
        f"the transfer syntax {shown or 'is no UID and'} is not supported; {_EXPECTED}"
    )


def _jpeg_number(syntax: str) -> int | None:
    """Return the last number of a transfer syntax UID in the JPEG branch, or None."""
    last = syntax.removeprefix(_JPEG)
    return int(last) if last.isdecimal() else None
