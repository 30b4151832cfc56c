"""DICOM files whose data set is deflated, made plain before anything looks into them.

pydicom would unpack such a file whole, whatever its size, at each reading.
"""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from radfound.exceptions import StorageError, StudyTooLargeError
from radfound.reading.files import FREE_UNPACKED_BYTES, MAX_ARCHIVE_RATIO, Source

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PLAIN = b"1.2.840.10008.1.2.1".ljust(len(_DEFLATED), b"\0")  # what pads a UID is not part of it
_META_BEGIN = 128 + len(b"DICM")
_GROUP_LENGTH = struct.Struct("<HH2sHI")
_MAX_META_BYTES = 1 << 16
_PIECE_BYTES = 1 << 20


def is_deflated(source: Source) -> bool:
    """Whether a DICOM file says that its data set is deflated; False for what cannot be opened."""
    try:
        with open(source.path, "rb") as file:
            return _DEFLATED in (_read_meta(file) or b"")
    except OSError:
        return False


@contextmanager
def inflated(sources: Sequence[Source]) -> Iterator[list[Source]]:
    """Let plain copies stand in for those files that are deflated, for as long as the block lasts."""
    deflated = {source for source in sources if is_deflated(source)}
    if not deflated:
        yield list(sources)
        return
    with TemporaryDirectory(prefix="radfound-") as folder:
        yield [
            _inflate(source, Path(folder, str(index))) if source in deflated else source
            for index, source in enumerate(sources)
        ]


def _inflate(source: Source, target: Path) -> Source:
    """Write a plain copy, cut where the file is damaged, for its reader to refuse."""
    try:
        with open(source.path, "rb") as file, open(target, "wb") as plain:
            meta = _read_meta(file)
            assert meta is not None, "a deflated file says so in its file meta information"
            plain.write(meta.replace(_DEFLATED, _PLAIN))
            plain.writelines(_pieces(file, source))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"{source.name}: no room to unpack it; make room in the temporary folder"
            ) from None
        raise
    return Source(target, source.name)


def _read_meta(file: BinaryIO) -> bytes | None:
    """Read preamble and file meta information, up to the data set; None where there is none."""
    head = file.read(_META_BEGIN + _GROUP_LENGTH.size)
    if len(head) < _META_BEGIN + _GROUP_LENGTH.size or head[128:132] != b"DICM":
        return None
    group, element, _, _, length = _GROUP_LENGTH.unpack_from(head, _META_BEGIN)
    if (group, element) != (2, 0) or length > _MAX_META_BYTES:
        return None
    return head + file.read(length)


def _pieces(file: BinaryIO, source: Source) -> Iterator[bytes]:
    """Yield the unpacked data set, of which a file may hold `MAX_ARCHIVE_RATIO` times its size."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    room = FREE_UNPACKED_BYTES + MAX_ARCHIVE_RATIO * source.path.stat().st_size
    packed = b""
    while not unpacker.eof and (packed := packed or file.read(_PIECE_BYTES)):
        try:
            piece = unpacker.decompress(packed, _PIECE_BYTES)
        except zlib.error:
            return
        packed = unpacker.unconsumed_tail
        room -= len(piece)
        if room < 0:
            raise StudyTooLargeError(
                f"{source.name}: a deflated DICOM file that unpacks to more than {MAX_ARCHIVE_RATIO} "
                "times its size; export it without compression"
            )
        yield piece
