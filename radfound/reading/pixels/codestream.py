"""Parse the first segments of codestreams of the JPEG family."""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass

from radfound.reading.pixels.layout import UnsupportedPixels

_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
_JPEG_LS = "1.2.840.10008.1.2.4.80"
_JPEG_2000 = "1.2.840.10008.1.2.4.90"

_J2K_START = b"\xff\x4f\xff\x51"
_JP2_BOX = b"\0\0\0\x0cjP  "
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_DCT, _LOSSLESS, _LS = (0xC0, 0xC1, 0xC2), 0xC3, 0xF7
_MOST_ROWS = 0xFFFF
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


@dataclass(frozen=True)
class Codestream:
    """One packed frame.

    Parameters
    ----------
    data : bytes
        The codestream alone, without the boxes of a JP2 file around it.
    syntax : str
        UID of a transfer syntax for GDCM. The file's own may be unknown to GDCM (HTJ2K), or wrong.
    rows, columns, components : int
    precision : int
        Bits per sample.
    precision_at : tuple of int
        Offsets of the precision in `data`.
    is_signed : bool
    is_ybr : bool or None
        Whether the first decoded component is luma; None if only the DICOM header tells.
    """

    data: bytes
    syntax: str
    rows: int
    columns: int
    components: int
    precision: int
    precision_at: tuple[int, ...]
    is_signed: bool
    is_ybr: bool | None

    @property
    def is_jpeg2000(self) -> bool:
        """Whether the codestream is JPEG 2000 or HTJ2K."""
        return self.syntax == _JPEG_2000

    @property
    def layout(self) -> tuple:
        """The properties that all frames of a file must share."""
        return (
            self.syntax,
            self.rows,
            self.columns,
            self.components,
            self.precision,
            self.is_signed,
            self.is_ybr,
        )


def starts_codestream(fragment: bytes) -> bool:
    """Whether a fragment is the first one of a frame."""
    return fragment.startswith((b"\xff\xd8\xff", _J2K_START, _JP2_BOX))


def read_codestream(data: bytes) -> Codestream:
    """Parse the header of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K frame.

    Raises
    ------
    UnsupportedPixels
        If no decoder supports the codestream.
    ValueError, IndexError, struct.error
        If the codestream is damaged.
    """
    if data.startswith(_JP2_BOX):
        data = data[data.index(_J2K_START) :]
    if data.startswith(_J2K_START):
        return _read_jpeg2000(data)
    if data.startswith(b"\xff\xd8"):
        return _read_jpeg(data)
    raise ValueError("no codestream of the JPEG family")


def _segments(data: bytes, last: Container[int]) -> Iterator[tuple[int, int, bytes]]:
    """Yield marker, content position and content of each segment, up to a marker in `last`."""
    at, marker = 2, 0
    while marker not in last:
        if data[at] != 0xFF:
            raise ValueError("no marker where one must be")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            yield marker, at + 4, data[at + 4 : at + 2 + length]
            at += 2 + max(length, 2)


def _read_jpeg(data: bytes) -> Codestream:
    *before, (marker, at, content) = _segments(data, _START_OF_FRAME)
    if marker not in (*_DCT, _LOSSLESS, _LS):
        raise UnsupportedPixels(
            f"packed as hierarchical or arithmetic-coded JPEG (SOF{marker - 0xC0}), which no decoder "
            "supports; expected baseline, extended, progressive or lossless JPEG with Huffman "
            "codes; convert it to Explicit VR Little Endian"
        )
    precision, rows, columns, components = struct.unpack_from(">BHHB", content)
    parts = [content[6 + 3 * index : 9 + 3 * index] for index in range(components)]
    if marker == _LS:
        syntax = _JPEG_LS
    elif marker == _LOSSLESS:
        syntax = _JPEG_LOSSLESS
    else:
        syntax = _JPEG_BASELINE if precision == 8 else _JPEG_EXTENDED
    is_ybr = _is_jpeg_ybr(marker, parts, [content for _, _, content in before])
    return _checked(
        Codestream(data, syntax, rows, columns, components, precision, (at,), False, is_ybr)
    )


def _is_jpeg_ybr(marker: int, parts: list[bytes], applications: list[bytes]) -> bool | None:
    """Tell YBR from RGB as libjpeg does; None if the codestream does not say.

    Parameters
    ----------
    marker : int
        The start-of-frame marker.
    parts : list of bytes
        Identifier, sampling factors and quantisation table of each component.
    applications : list of bytes
        Contents of the segments before the frame.
    """
    if marker not in _DCT:  # lossless encoders leave the components as they are
        return None
    adobe = next((part for part in applications if part.startswith(b"Adobe")), b"")
    if len(adobe) >= 12:
        return adobe[11] != 0
    is_jfif = any(part.startswith(b"JFIF\0") for part in applications)
    is_subsampled = len({part[1] for part in parts}) > 1
    if is_jfif or is_subsampled:
        return True
    return False if b"".join(part[:1] for part in parts) == b"RGB" else None


def _read_jpeg2000(data: bytes) -> Codestream:
    right, bottom, left, top = struct.unpack_from(">4L", data, 8)
    (components,) = struct.unpack_from(">H", data, 40)
    parts = [data[42 + 3 * index : 45 + 3 * index] for index in range(components)]
    if len({bytes(part) for part in parts}) != 1 or parts[0][1:] != b"\1\1":
        raise UnsupportedPixels(
            "packed as JPEG 2000 with components of different size or depth, which is not "
            "supported; expected equal components; convert it to Explicit VR Little Endian"
        )
    *_, (_, _, style) = _segments(data, {0x52})
    # Decoders undo the component transform that the coding style declares.
    is_ybr = False if style[4] else None
    size = parts[0][0]
    return _checked(
        Codestream(
            data,
            _JPEG_2000,
            rows=bottom - top,
            columns=right - left,
            components=components,
            precision=(size & 0x7F) + 1,
            precision_at=tuple(42 + 3 * index for index in range(components)),
            is_signed=bool(size & 0x80),
            is_ybr=is_ybr,
        )
    )


def _checked(stream: Codestream) -> Codestream:
    if not (1 <= stream.rows <= _MOST_ROWS and 1 <= stream.columns <= _MOST_ROWS):
        raise ValueError("a size that no DICOM header can name")
    if stream.components not in (1, 3):
        raise UnsupportedPixels(
            f"packed with {stream.components} components a pixel, which is not supported; "
            "expected 1 or 3; convert it to grey or RGB"
        )
    if not 1 <= stream.precision <= 16:
        raise UnsupportedPixels(
            f"packed with {stream.precision} bits a sample, which no decoder supports; "
            "expected at most 16; convert it to Explicit VR Little Endian"
        )
    return stream
