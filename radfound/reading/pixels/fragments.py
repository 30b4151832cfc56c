"""Encapsulated frames: join fragments, decode run lengths."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from radfound.reading.pixels.layout import Layout, Samples, TruncatedPixels, UnsupportedPixels

ITEM = b"\xfe\xff\x00\xe0"


def frames_of(packed: bytes, count: int, starts: Callable[[bytes], bool]) -> list[bytes]:
    """Join the fragments of each frame.

    The offset tables, often empty and sometimes wrong, are not used: a frame is recognised by its
    first bytes.

    Parameters
    ----------
    packed : bytes
        Items of tag, length and content; the first one is the offset table.
    count : int
        Number of frames by the header.
    starts : callable
        Returns whether a fragment is the first one of a frame.
    """
    fragments = fragments_of(packed)
    if len(fragments) == count:
        return fragments
    frames: list[list[bytes]] = []
    for fragment in fragments:
        if not frames or starts(fragment):
            frames.append([])
        frames[-1].append(fragment)
    if len(frames) < count:
        raise TruncatedPixels(f"{len(frames):,} packed frame(s) where {count:,} are needed")
    return [b"".join(frame) for frame in frames[:count]]


def fragments_of(packed: bytes) -> list[bytes]:
    """Return the content of all items but the first, without empty ones."""
    fragments, at = [], 0
    while packed[at : at + 4] == ITEM:
        (length,) = struct.unpack_from("<L", packed, at + 4)
        start, at = at + 8, at + 8 + length
        if at > len(packed):
            raise ValueError("a fragment that is longer than the data")
        fragments.append(packed[start:at])
    if len(packed) - at > 8:  # more than the delimiter
        raise ValueError("something else between the fragments")
    return [fragment for fragment in fragments[1:] if fragment]


def decode_run_lengths(layout: Layout, packed: bytes) -> Samples:
    """Decode RLE (PS3.5 annex G): one segment for each byte of each sample of a frame."""
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
    return Samples.of(layout, values)


def _rle_offsets(frame: bytes, segments: int) -> tuple[int, ...] | None:
    """Return the segment offsets of a frame; None if this is no RLE header."""
    if len(frame) < 64:
        return None
    count, *offsets = struct.unpack_from("<16L", frame)
    offsets = offsets[:segments]
    if count != segments or offsets[0] != 64 or offsets != sorted(offsets):
        return None
    return tuple(offsets)


def _unpack_bits(segment: bytes, count: int) -> np.ndarray:
    from PIL import Image

    # As one row: runs may cross the ends of image rows.
    row = Image.frombytes("L", (count, 1), segment, "packbits", "L")
    return np.frombuffer(row.tobytes(), np.uint8)
