"""Deflated DICOM: check the unpacked size before pydicom inflates the whole data set."""

from __future__ import annotations

import os
import struct
import zlib
from typing import BinaryIO

from radfound.exceptions import StudyTooLargeError
from radfound.reading.bounds import FREE_UNPACKED_BYTES, MAX_ARCHIVE_RATIO
from radfound.reading.files import MAX_UNPACKED_BYTES

_DEFLATED_SYNTAX = b"1.2.840.10008.1.2.1.99"
_HEAD_BYTES = 1024
_META_LENGTH_AT = 140


def check_deflated(file: BinaryIO, name: str) -> None:
    """Raise StudyTooLargeError for a deflated data set that unpacks to far more than its size.

    Parameters
    ----------
    file : binary file, at its beginning
    name : str
        For messages.
    """
    head = file.read(_HEAD_BYTES)
    if _DEFLATED_SYNTAX not in head:
        return
    # The data set follows the file meta group, whose first element is its length.
    (length,) = struct.unpack_from("<L", head, _META_LENGTH_AT)
    file.seek(_META_LENGTH_AT + 4 + length)
    packed = os.fstat(file.fileno()).st_size
    limit = max(FREE_UNPACKED_BYTES, min(MAX_UNPACKED_BYTES, MAX_ARCHIVE_RATIO * packed))
    unpacker, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while block := file.read(_HEAD_BYTES):
        while block:
            unpacked += len(unpacker.decompress(block, FREE_UNPACKED_BYTES))
            block = unpacker.unconsumed_tail
        if unpacked > limit:
            raise StudyTooLargeError(
                f"{name}: deflated, and unpacks to more than {limit / 2**20:,.0f} MiB; expected no "
                "more for its size; convert it to Explicit VR Little Endian"
            )
