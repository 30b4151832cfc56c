"""Decode uncompressed pixel data, integers and floats."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from radfound.reading.pixels.layout import Layout, Samples, TruncatedPixels, UnsupportedPixels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_HALVED_CHROMA = {"YBR_FULL_422", "YBR_PARTIAL_422"}


def decode_cells(layout: Layout, data: bytes, *, big_endian: bool = False) -> Samples:
    """Decode uncompressed integers of any width, by pixel or by plane, with full or halved chroma.

    Raises
    ------
    UnsupportedPixels, TruncatedPixels
    """
    if layout.space == "YBR_PARTIAL_420":
        raise UnsupportedPixels(
            "uncompressed YBR_PARTIAL_420, which is not supported; expected RGB or YBR_FULL; "
            "convert it to RGB"
        )
    count = layout.frames * layout.rows * layout.columns * layout.samples
    if layout.space in _HALVED_CHROMA and len(data) < _bytes_of(count, layout.allocated):
        # Two neighbours share their colour differences: Y, Y, Cb, Cr.
        pairs = _cells(layout, data, count * 2 // 3, big_endian).reshape(-1, 4)
        luma, differences = pairs[:, :2, np.newaxis], pairs[:, np.newaxis, 2:]
        cells = np.concatenate([luma, np.repeat(differences, 2, axis=1)], axis=2)
    else:
        cells = _cells(layout, data, count, big_endian)
    if layout.by_plane:
        cells = np.moveaxis(cells.reshape(layout.frames, layout.samples, *layout.size), 1, -1)
    return Samples.of(layout, cells.reshape(layout.frames, *layout.size, layout.samples))


def decode_padded_frames(layout: Layout, data: bytes) -> Samples:
    """Decode uncompressed frames that are each padded to whole bytes, or to an even number of bytes."""
    single, size = replace(layout, frames=1), len(data) // layout.frames
    frames = [data[at : at + size] for at in range(0, layout.frames * size, size or 1)]
    decoded = [decode_cells(single, frame).values for frame in frames or [b""]]
    return Samples.of(layout, np.concatenate(decoded))


def _bytes_of(cells: int, allocated: int) -> int:
    return (cells * allocated + 7) // 8


def _cells(layout: Layout, data: bytes, count: int, big_endian: bool) -> np.ndarray:
    """Return the first `count` cells as unsigned integers."""
    needed = _bytes_of(count, layout.allocated)
    _check_length(data, needed)
    if layout.allocated == 1:
        raw = np.frombuffer(data, np.uint8, needed)
        return np.unpackbits(raw, bitorder="little", count=count)
    if layout.allocated == 12:
        return _twelve_bit_cells(data, count)
    dtype = np.dtype(f"u{layout.allocated // 8}").newbyteorder(">" if big_endian else "<")
    return np.frombuffer(data, dtype, count).astype(dtype.newbyteorder("="), copy=False)


def _twelve_bit_cells(data: bytes, count: int) -> np.ndarray:
    """Unpack pairs of 12-bit cells from three bytes each, lowest bits first."""
    pairs = (count + 1) // 2
    low, middle, high = (
        np.frombuffer(data.ljust(3 * pairs, b"\0"), np.uint8, 3 * pairs)
        .reshape(-1, 3)
        .T.astype(np.uint16)
    )
    cells = np.stack([low | (middle & 0x0F) << 8, middle >> 4 | high << 4], axis=1)
    return cells.ravel()[:count]


def decode_floats(dataset: Dataset, data: bytes, dtype: str, *, big_endian: bool) -> Samples:
    """Decode (Double) Float Pixel Data (PS3.3 C.7.6.24 and C.7.6.25).

    Raises
    ------
    TruncatedPixels
    """
    shape = (int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns), 1)
    stored = np.dtype(dtype).newbyteorder(">" if big_endian else "<")
    count = int(np.prod(shape, dtype=np.int64))
    _check_length(data, count * stored.itemsize)
    values = np.frombuffer(data, stored, count).reshape(shape)
    space = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    return Samples(values.astype(dtype, copy=False), space, stored=0, high=0, is_signed=True)


def _check_length(data: bytes, needed: int) -> None:
    if len(data) < needed:
        raise TruncatedPixels(f"{len(data):,} bytes of pixels where {needed:,} are needed")
