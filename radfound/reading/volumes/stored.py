"""Load raw or compressed bytes of a file into numpy arrays without extra copies."""

from __future__ import annotations

import bz2
import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from isal import isal_zlib  # twice as fast as zlib; decompression dominates the loading time

from radfound.exceptions import StudyUnreadableError
from radfound.reading.bounds import check_unpacked

_GZIP = b"\x1f\x8b"
# Flags of optional fields in a gzip header (RFC 1952).
_HEAD_CHECKSUM, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16
# The rest of a piece is copied once per gzip member; small pieces keep many small members fast.
_READ_BYTES = 1 << 14
_UNPACK_BYTES = 1 << 20
_MAX_HEAD_BYTES = 1 << 18
# Maximum length of a number in text, with separators.
_MAX_DIGITS = 32


def packing_of(file: BinaryIO) -> str:
    """Return "zlib" if the next bytes are a gzip header, else "raw"."""
    at = file.tell()
    start = file.read(len(_GZIP))
    file.seek(at)
    return "zlib" if start == _GZIP else "raw"


def read_head(file: BinaryIO, count: int) -> bytes:
    """Return up to the first `count` bytes of a file, unpacked if it is a gzip.

    Damage ends the result early; the file is rewound to its beginning.
    """
    if packing_of(file) == "raw":
        head = file.read(count)
    else:
        head = b""
        try:
            for piece in _zlib_pieces(file):
                head += piece
                if len(head) >= count or file.tell() > _MAX_HEAD_BYTES:
                    break
        except isal_zlib.error:  # type: ignore[misc]  # its stub names an instance
            pass
    file.seek(0)
    return head[:count]


def read_bytes(
    file: BinaryIO, count: int, name: str, *, packing: str = "raw", skip: int = 0
) -> np.ndarray:
    """Read exactly `count` bytes of voxels, unpacking on the way.

    Never unpacks more than the header declares, so that a small file cannot exhaust the memory.

    Parameters
    ----------
    file : binary file on disk, at the first stored byte
    count : int
    name : str
        Names the file in messages.
    packing : "raw", "zlib" (zlib or gzip, also several gzip members in a row) or "bzip2"
    skip : int
        Number of unpacked bytes to skip first.

    Returns
    -------
    uint8 array, shape (count,)

    Raises
    ------
    StudyUnreadableError
        If there are too few bytes, or they cannot be unpacked.
    StudyTooLargeError
        If the file is implausibly small for the declared size.
    """
    left = _bytes_left(file)
    if packing == "raw":
        _check_count(name, left - skip, count)
        file.seek(skip, os.SEEK_CUR)
        return np.fromfile(file, np.uint8, count)
    check_unpacked(name, left, skip + count)
    data = np.empty(count, np.uint8)
    done = -skip
    for piece in _unpacked(file, packing, name):
        start = max(0, -done)
        wanted = piece[start : count - done]
        data[done + start : done + start + len(wanted)] = np.frombuffer(wanted, np.uint8)
        done += len(piece)
        if done > count:
            break
    _check_count(name, min(done, count), count)
    return data


def read_last_bytes(
    file: BinaryIO, count: int, name: str, *, packing: str, behind: int = 0
) -> np.ndarray:
    """Read `count` bytes of voxels that end `behind` bytes before the end, unpacking as `read_bytes`.

    Raises the errors of `read_bytes`.
    """
    start, left = file.tell(), _bytes_left(file)
    total = left
    if packing != "raw":
        total = 0
        for piece in _unpacked(file, packing, name):
            total += len(piece)
            check_unpacked(name, left, total)
    file.seek(start)
    _check_count(name, total - behind, count)
    return read_bytes(file, count, name, packing=packing, skip=total - behind - count)


def read_text(file: BinaryIO, count: int, dtype: np.dtype, name: str) -> np.ndarray:
    """Read exactly `count` numbers in text form, separated by spaces, commas or line ends.

    Returns
    -------
    uint8 array
        The bytes of the numbers as `dtype`.

    Raises
    ------
    StudyUnreadableError
        If there are too few numbers, or one is outside the type's range.
    """
    text = file.read(min(count * _MAX_DIGITS, _bytes_left(file))).replace(b",", b" ")
    exact = np.dtype(
        np.float64 if dtype.kind == "f" else np.uint64 if dtype == np.uint64 else np.int64
    )
    numbers = np.fromstring(text, exact, sep=" ")[:count]
    stored = numbers.astype(dtype)
    if len(numbers) < count or (dtype.kind != "f" and np.any(stored != numbers)):
        raise StudyUnreadableError(
            f"{name}: the voxels are text in which {len(numbers):,} numbers can be read; "
            f"expected {count:,} of type {dtype.name}; copy or export it again"
        )
    return stored.view(np.uint8)


def read_hex(file: BinaryIO, count: int, name: str) -> np.ndarray:
    """Read exactly `count` bytes in hexadecimal form.

    Raises
    ------
    StudyUnreadableError
        If there are too few bytes, or characters other than digits and spaces.
    """
    text = file.read(min(count * _MAX_DIGITS, _bytes_left(file)))
    try:
        data = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise StudyUnreadableError(
            f"{name}: the voxels are no hexadecimal digits; expected two for each of {count:,} "
            "bytes; copy or export it again"
        ) from None
    _check_count(name, len(data), count)
    return np.frombuffer(bytearray(data[:count]), np.uint8)


def _bytes_left(file: BinaryIO) -> int:
    return max(0, os.fstat(file.fileno()).st_size - file.tell())


def _unpacked(file: BinaryIO, packing: str, name: str) -> Iterator[bytes]:
    """Yield unpacked pieces; a truncated file ends early without an error."""
    try:
        yield from _PIECES[packing](file)
    except (isal_zlib.error, OSError) as error:  # type: ignore[misc]  # its stub names an instance
        raise StudyUnreadableError(
            f"{name}: the compressed voxels are damaged ({error}); "
            "expected an intact file; copy or export the file again"
        ) from None
    except EOFError:
        return


def _zlib_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield unpacked pieces of at most a megabyte; a wrong checksum raises.

    Zeros between gzip members are skipped; data after the last member are ignored.
    """
    unpacker, packed = _new_zlib(), _bare_member(file.read(_READ_BYTES), file)
    while packed := packed or file.read(_READ_BYTES):
        yield unpacker.decompress(packed, _UNPACK_BYTES)
        packed = unpacker.unconsumed_tail
        if unpacker.eof:
            packed = _next_member(unpacker.unused_data, file)
            if not packed.startswith(_GZIP):
                return
            unpacker, packed = _new_zlib(), _bare_member(packed, file)


def _next_member(packed: bytes, file: BinaryIO) -> bytes:
    """Return the data after a gzip member without leading zeros, at least as long as the magic number."""
    while len(packed := packed.lstrip(b"\0")) < len(_GZIP):
        more = file.read(_READ_BYTES)
        if not more:
            break
        packed += more
    return packed


def _bare_member(packed: bytes, file: BinaryIO) -> bytes:
    """Return the start of a gzip member without the optional fields of its header.

    isal fails on long fields. A member whose header does not end becomes empty.
    """
    if not packed.startswith(_GZIP):
        return packed
    while (body := _after_header(packed)) is None:
        more = file.read(_READ_BYTES)
        if not more or len(packed) > _MAX_HEAD_BYTES:
            return b""
        packed += more
    return packed[:3] + bytes(7) + body


def _after_header(packed: bytes) -> bytes | None:
    """Return the data after the header of a gzip member; None if more bytes are needed."""
    flags, at = int.from_bytes(packed[3:4], "little"), 10
    if flags & _EXTRA:
        at += 2 + int.from_bytes(packed[10:12], "little")
    for text in (_NAME, _COMMENT):
        if flags & text:
            end = packed.find(b"\0", at)
            if end < 0:
                return None
            at = end + 1
    if flags & _HEAD_CHECKSUM:
        at += 2
    return packed[at:] if len(packed) >= at else None


def _new_zlib():
    # 32 + 15: detect a zlib or gzip header.
    return isal_zlib.decompressobj(47)


def _bzip2_pieces(file: BinaryIO) -> Iterator[bytes]:
    with bz2.open(file) as unpacked:
        while piece := unpacked.read(_UNPACK_BYTES):
            yield piece


_PIECES = {"zlib": _zlib_pieces, "bzip2": _bzip2_pieces}


def _check_count(name: str, found: int, expected: int) -> None:
    if found < expected:
        raise StudyUnreadableError(
            f"{name}: the file is truncated: {max(0, found):,} bytes of voxels where the header "
            f"promises {expected:,}; copy or export it again"
        )
