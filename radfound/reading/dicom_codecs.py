"""DICOM transfer syntaxes: pixel data of any of them to samples, as they were before packing."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radfound.reading.codestream import (
    Codestream,
    UnsupportedPixels,
    read_codestream,
    starts_codestream,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", _BIG_ENDIAN}
_ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
_ITEM = b"\xfe\xff\x00\xe0"
_RLE = "1.2.840.10008.1.2.5"
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

RGB_SPACES = {"RGB", "YBR_RCT", "YBR_ICT"}
YBR_SPACES = {"YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"}
_GREY_SPACES = {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"}
_HALVED_CHROMA = {"YBR_FULL_422", "YBR_PARTIAL_422"}

# Secondary captures carry pixels and nothing that would make GDCM change them.
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MANY_CAPTURES = {
    (1, 8): f"{_CAPTURE}.2",
    (1, 16): f"{_CAPTURE}.3",
    (3, 8): f"{_CAPTURE}.4",
    (3, 16): f"{_CAPTURE}.4",
}


class TruncatedPixels(Exception):
    """Pixel data end before the last pixel; the text says how much there is."""


@dataclass(frozen=True)
class Layout:
    """How the header says that pixels are stored.

    Parameters
    ----------
    frames, rows, columns, samples : int
    space : str
        Photometric interpretation.
    allocated, stored, high : int
        Bits of a sample's cell, those of them that hold its value, and the highest one that does.
    is_signed : bool
    by_plane : bool
        Whether all red samples come first, then all green ones, then all blue ones.
    """

    frames: int
    rows: int
    columns: int
    samples: int
    space: str
    allocated: int
    stored: int
    high: int
    is_signed: bool
    by_plane: bool

    @classmethod
    def of(cls, dataset: Dataset) -> Layout:
        """Read the layout out of a data set."""
        samples = int(dataset.get("SamplesPerPixel") or 1)
        allocated = int(dataset.get("BitsAllocated") or 0)
        stored = min(int(dataset.get("BitsStored") or allocated), allocated)
        high = int(dataset.get("HighBit") or stored - 1)
        layout = cls(
            frames=int(dataset.get("NumberOfFrames") or 1),
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            samples=samples,
            space=str(
                dataset.get("PhotometricInterpretation")
                or ("RGB" if samples == 3 else "MONOCHROME2")
            ),
            allocated=allocated,
            stored=stored,
            high=min(max(high, stored - 1), allocated - 1),
            is_signed=bool(dataset.get("PixelRepresentation")),
            by_plane=samples > 1 and bool(dataset.get("PlanarConfiguration")),
        )
        layout._check()
        return layout

    def _check(self) -> None:
        is_grey = self.space in _GREY_SPACES
        if not is_grey and self.space not in RGB_SPACES | YBR_SPACES:
            raise UnsupportedPixels(
                f"colour is stored as {self.space[:16]!r}, which is not supported; "
                "expected grey, a palette, RGB or YBR; convert it to RGB"
            )
        if self.samples != (1 if is_grey else 3):
            raise UnsupportedPixels(
                f"the header says {self.space} and {self.samples} sample(s) a pixel; "
                "expected 1 for grey and palettes, 3 for colour; export it again"
            )
        if self.allocated not in (1, 8, 12, 16, 32, 64):
            raise UnsupportedPixels(
                f"the header says {self.allocated} bits for a sample's cell; "
                "expected 1, 8, 12, 16, 32 or 64; export it again"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns


@dataclass(frozen=True)
class Samples:
    """Decoded pixels, not yet cleared of bits that belong to something else.

    Parameters
    ----------
    values : array, shape (frames, rows, columns, samples)
    space : str
        Photometric interpretation of `values`, which the header may have wrong.
    stored, high : int
        Bits that hold a value, and the highest one of them; 0 and 0 for floats.
    """

    values: np.ndarray
    space: str
    stored: int
    high: int


def decode(dataset: Dataset) -> Samples:
    """Decode all frames of a data set, out of whatever transfer syntax it is in.

    Samples stay as they are stored: nothing is inverted, rescaled, looked up or turned into another
    colour space, except that decoders of JPEG 2000 undo its transform of the components.

    Raises
    ------
    UnsupportedPixels
        If they are whole, but of a kind that no decoder here reads.
    TruncatedPixels
        If they end too early.
    Exception
        Of any kind, from the decoders, if they are damaged.
    """
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    for keyword, dtype in (("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")):
        if keyword in dataset:
            return _floats(dataset, dataset[keyword].value, dtype, syntax == _BIG_ENDIAN)
    _check_syntax(syntax)
    if "PixelData" not in dataset:
        raise UnsupportedPixels(
            "holds no pixel data; expected the element Pixel Data; "
            "export it again together with its pixels"
        )
    layout, packed = Layout.of(dataset), dataset.PixelData or b""
    if syntax in _NATIVE and not dataset["PixelData"].is_undefined_length:
        if syntax == _BIG_ENDIAN and layout.allocated == 8 and dataset["PixelData"].VR == "OW":
            packed = np.frombuffer(packed, ">u2").astype("<u2").tobytes()
        return _native(layout, packed, syntax == _BIG_ENDIAN)
    if packed and not packed.startswith(_ITEM):
        raise UnsupportedPixels(
            "the header names a packed transfer syntax, but the pixels lie in no fragments; "
            "expected fragments, or an uncompressed transfer syntax; export it again"
        )
    if syntax == _ENCAPSULATED_UNCOMPRESSED:
        frames = frames_of(packed, layout.frames, lambda fragment: True)
        return _native_frames(layout, frames)
    if syntax == _RLE:
        return _run_lengths(layout, packed)
    frames = frames_of(packed, layout.frames, starts_codestream)
    return _codestreams(layout, [read_codestream(frame) for frame in frames])


def _check_syntax(syntax: str) -> None:
    if syntax in _NATIVE or syntax in (_ENCAPSULATED_UNCOMPRESSED, _RLE):
        return
    number = syntax.removeprefix("1.2.840.10008.1.2.4.")
    if number.isdecimal():
        if int(number) in _JPEG_NUMBERS:
            return
        for numbers, found in _OTHER_PACKINGS.items():
            if int(number) in numbers:
                raise UnsupportedPixels(
                    f"the pixels are {found}, which is not supported; {_EXPECTED}"
                )
    shown = "".join(letter for letter in syntax if letter in "0123456789.")[:64]
    raise UnsupportedPixels(
        f"the transfer syntax {shown or 'is no UID and'} is not supported; {_EXPECTED}"
    )


# Uncompressed


def _native(layout: Layout, data: bytes, big_endian: bool = False) -> Samples:
    space = layout.space
    if space == "YBR_PARTIAL_420":
        raise UnsupportedPixels(
            "uncompressed YBR_PARTIAL_420, which is not supported; expected RGB or YBR_FULL; "
            "convert it to RGB"
        )
    cells = layout.frames * layout.rows * layout.columns * layout.samples
    if space in _HALVED_CHROMA and len(data) < _bytes_of(cells, layout.allocated):
        pairs = _cells(layout, data, cells * 2 // 3, big_endian).reshape(-1, 4)
        # Two neighbours share their colour differences: Y, Y, Cb, Cr.
        values = np.stack([pairs[:, :2], *pairs[:, 2:, None].repeat(2, -1).swapaxes(0, 1)], -1)
        values = values.reshape(layout.frames, *layout.size, 3)
        return Samples(values, space, layout.stored, layout.high)
    values = _cells(layout, data, cells, big_endian)
    if layout.by_plane:
        values = np.moveaxis(values.reshape(layout.frames, layout.samples, *layout.size), 1, -1)
    values = values.reshape(layout.frames, *layout.size, layout.samples)
    return Samples(values, space, layout.stored, layout.high)


def _bytes_of(cells: int, allocated: int) -> int:
    return (cells * allocated + 7) // 8


def _cells(layout: Layout, data: bytes, count: int, big_endian: bool) -> np.ndarray:
    """Return the first `count` cells as unsigned integers."""
    needed = _bytes_of(count, layout.allocated)
    if len(data) < needed:
        raise TruncatedPixels(f"{len(data):,} bytes of pixels where {needed:,} are needed")
    if layout.allocated == 1:
        raw = np.frombuffer(data, np.uint8, needed)
        return np.unpackbits(raw, bitorder="little", count=count)
    if layout.allocated == 12:
        return _twelve_bit_cells(data, count)
    dtype = np.dtype(f"u{layout.allocated // 8}").newbyteorder(">" if big_endian else "<")
    return np.frombuffer(data, dtype, count).astype(dtype.newbyteorder("="), copy=False)


def _twelve_bit_cells(data: bytes, count: int) -> np.ndarray:
    """Unpack pairs of 12-bit cells out of three bytes each, lowest bits first."""
    pairs = (count + 1) // 2
    low, middle, high = (
        np.frombuffer(data.ljust(3 * pairs, b"\0"), np.uint8, 3 * pairs)
        .reshape(-1, 3)
        .T.astype(np.uint16)
    )
    cells = np.stack([low | (middle & 0x0F) << 8, middle >> 4 | high << 4], axis=1)
    return cells.ravel()[:count]


def _native_frames(layout: Layout, frames: Sequence[bytes]) -> Samples:
    """Decode frames that are uncompressed, each in a fragment of its own."""
    single = Layout(**{**vars(layout), "frames": 1})
    decoded = [_native(single, frame) for frame in frames]
    first = decoded[0]
    values = np.concatenate([samples.values for samples in decoded])
    return Samples(values, first.space, first.stored, first.high)


def _floats(dataset: Dataset, data: bytes, dtype: str, big_endian: bool) -> Samples:
    shape = (int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns), 1)
    stored = np.dtype(dtype).newbyteorder(">" if big_endian else "<")
    count = int(np.prod(shape, dtype=np.int64))
    if len(data) < count * stored.itemsize:
        raise TruncatedPixels(
            f"{len(data):,} bytes of pixels where {count * stored.itemsize:,} are needed"
        )
    space = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    return Samples(np.frombuffer(data, stored, count).reshape(shape), space, 0, 0)


# Fragments


def frames_of(packed: bytes, count: int, starts: Callable[[bytes], bool]) -> list[bytes]:
    """Join the fragments of each frame.

    The tables of offsets, which are often empty and sometimes wrong, are not needed: what begins a
    frame can be told from its first bytes.

    Parameters
    ----------
    packed : bytes
        Items of a tag, a length and a content each; the first one is the table of offsets.
    count : int
        How many frames the header says there are.
    starts : callable
        Tells whether a fragment is the first one of a frame.
    """
    fragments = [fragment for fragment in _items(packed) if fragment]
    if len(fragments) == count:
        return fragments
    frames: list[list[bytes]] = []
    for fragment in fragments:
        if not frames or (starts(fragment) and count > 1):
            frames.append([])
        frames[-1].append(fragment)
    if len(frames) < count:
        raise TruncatedPixels(f"{len(frames):,} packed frame(s) where {count:,} are needed")
    return [b"".join(frame) for frame in frames[:count]]


def _items(packed: bytes) -> Iterator[bytes]:
    """Yield the content of all items but the first one."""
    at = 0
    while packed[at : at + 4] == _ITEM:
        (length,) = struct.unpack_from("<L", packed, at + 4)
        start, at = at + 8, at + 8 + length
        if at > len(packed):
            raise ValueError("a fragment that is longer than the data")
        if start > 8:
            yield packed[start:at]
    if len(packed) - at > 8:  # more than the end mark
        raise ValueError("something else between the fragments")


# Run lengths


def _run_lengths(layout: Layout, packed: bytes) -> Samples:
    """Decode RLE (PS3.5 annex G): each byte of each sample of a frame is a segment."""
    width = layout.allocated // 8
    if layout.allocated % 8:
        raise UnsupportedPixels(
            f"{layout.allocated} bits for a sample's cell in RLE, which is not supported; "
            "expected 8, 16, 32 or 64; convert it to Explicit VR Little Endian"
        )
    segments = layout.samples * width
    frames = frames_of(packed, layout.frames, lambda part: _rle_offsets(part, segments) is not None)
    count = layout.rows * layout.columns
    decoded = np.empty((layout.frames, layout.samples, width, count), np.uint8)
    for frame, planes in zip(frames, decoded.reshape(layout.frames, segments, count), strict=True):
        offsets = _rle_offsets(frame, segments)
        if offsets is None:
            raise ValueError("no head of a frame of run lengths")
        for plane, start, end in zip(planes, offsets, (*offsets[1:], len(frame)), strict=True):
            plane[:] = _unpack_bits(frame[start:end], count)
    # The highest byte of a sample comes first.
    cells = np.ascontiguousarray(np.moveaxis(decoded, (1, 2), (-2, -1))).view(f">u{width}")
    values = cells.astype(f"u{width}").reshape(layout.frames, *layout.size, layout.samples)
    return Samples(values, layout.space, layout.stored, layout.high)


def _rle_offsets(frame: bytes, segments: int) -> tuple[int, ...] | None:
    """Return where the segments of a frame begin; None if that is no head of a frame."""
    if len(frame) < 64:
        return None
    count, *offsets = struct.unpack_from("<16L", frame)
    offsets = offsets[:segments]
    if count != segments or offsets[0] != 64 or offsets != sorted(offsets):
        return None
    return tuple(offsets)


def _unpack_bits(segment: bytes, count: int) -> np.ndarray:
    from PIL import Image

    # As one row: runs may pass the end of the image's rows.
    row = Image.frombytes("L", (count, 1), segment, "packbits", "L")
    return np.frombuffer(row.tobytes(), np.uint8)


# The JPEG family


def _codestreams(layout: Layout, streams: Sequence[Codestream]) -> Samples:
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
    values = _gdcm(streams).reshape(layout.frames, *layout.size, layout.samples)
    if first.precision < 8:
        # GDCM was told 8 bits, which moved the middle of the range.
        values = values - values.dtype.type(
            0 if first.is_signed else 128 - (1 << first.precision - 1)
        )
    space = layout.space
    if first.is_ybr is not None and layout.samples > 1:
        space = "YBR_FULL" if first.is_ybr else "RGB"
    stored, high = _bits_of(layout, first)
    return Samples(values, space, stored, high)


def _bits_of(layout: Layout, stream: Codestream) -> tuple[int, int]:
    """Return how many bits hold a value, and the highest of them.

    Where the codestream has fewer bits than the header says, negative numbers of JPEG 2000 have
    their sign in the codestream's highest bit, as encoders that measure the range leave them.
    """
    if stream.precision > layout.stored:
        return layout.stored, min(layout.high, stream.precision - 1)
    stored = stream.precision if stream.is_jpeg2000 else layout.stored
    return stored, stored - 1


def _gdcm(streams: Sequence[Codestream]) -> np.ndarray:
    """Decode frames out of a bare file that describes the codestreams and nothing else.

    The label says grey or RGB whatever the colours are, since GDCM inverts MONOCHROME1, looks up
    palettes and converts YBR; with these two it returns what the codestream holds.
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
    """Raise a precision below 8, which GDCM does not know, to 8."""
    if stream.precision >= 8:
        return stream.data
    data = bytearray(stream.data)
    for at in stream.precision_at:
        data[at] += 8 - stream.precision
    return bytes(data)
