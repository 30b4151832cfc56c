"""Parse the header of NIfTI-1 and NIfTI-2: version, data type and offset of the voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radfound.exceptions import StudyUnreadableError

if TYPE_CHECKING:
    from nibabel import Nifti1Header

HEADER_BYTES = 540
"""Number of bytes needed to parse either header."""

_DTYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    128: "3u1",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
    2304: "4u1",
}
_UNSUPPORTED_TYPES = {
    1: "single bits",
    32: "complex numbers",
    1536: "128-bit floats",
    1792: "complex numbers",
    2048: "complex numbers",
}
_CIFTI_INTENTS = range(3000, 3100)
_MAX_OFFSET = 2**40


def is_nifti(head: bytes) -> bool:
    """Whether the first bytes are those of a NIfTI, or of its predecessor Analyze 7.5."""
    return is_single(head) or is_pair(head) or _is_analyze(head)


def is_single(head: bytes) -> bool:
    """Whether header and voxels are in one file."""
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


def is_pair(head: bytes) -> bool:
    """Whether the voxels are in a file beside the header."""
    return head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0"


def _is_analyze(head: bytes) -> bool:
    """Whether this is an Analyze 7.5 header, judged by its size field and number of axes."""
    order = _byte_order(head)
    return order is not None and head[344:345] != b"n" and 1 <= _short(head, 40, order) <= 7


def _byte_order(head: bytes) -> str | None:
    """Return "<" or ">" by the size field at the start of the header; None if it fits neither."""
    sizes = [int.from_bytes(head[:4], order) for order in ("little", "big")]
    return next((sign for sign, size in zip("<>", sizes, strict=True) if size in (348, 540)), None)


def _short(head: bytes, at: int, order: str) -> int:
    return int(np.frombuffer(head, f"{order}i2", 1, at)[0]) if len(head) >= at + 2 else 0


def parse_header(head: bytes, name: str) -> Nifti1Header:
    """Parse a file's first `HEADER_BYTES` to a nibabel header; extensions are skipped.

    Raises
    ------
    StudyUnreadableError
        If there are too few bytes, or the file holds no image.
    """
    from nibabel import Nifti1Header, Nifti2Header

    kind = Nifti2Header if head[4:7] in (b"n+2", b"ni2") else Nifti1Header
    if len(head) < kind.sizeof_hdr:
        raise StudyUnreadableError(
            f"{name}: the NIfTI header is truncated or damaged; expected {kind.sizeof_hdr} bytes; "
            "copy or export it again"
        )
    if not (is_single(head) or is_pair(head)):
        raise StudyUnreadableError(
            f"{name}: an Analyze 7.5 header, which does not say which side is left; "
            "expected NIfTI; convert it with the software that wrote it"
        )
    header = kind(head[: kind.sizeof_hdr], _byte_order(head), check=False)
    if int(header["intent_code"]) in _CIFTI_INTENTS:
        raise StudyUnreadableError(
            f"{name}: a CIFTI file, whose values belong to surfaces and tables; "
            "expected an image; give the volume that it was made from"
        )
    return header


def stored_type(header: Nifti1Header, name: str) -> np.dtype:
    """Return the dtype of a voxel; colour has several bytes.

    Raises
    ------
    StudyUnreadableError
        If the type holds neither grey values nor colour.
    """
    code = int(header["datatype"])
    if code not in _DTYPES:
        found = _UNSUPPORTED_TYPES.get(code, "voxels of no known kind")
        raise StudyUnreadableError(
            f"{name}: holds {found} (NIfTI data type {code}); expected integers or floats of up "
            "to 64 bits, or RGB; convert the voxels"
        )
    return np.dtype(_DTYPES[code]).newbyteorder(header.endianness)


def data_offset(header: Nifti1Header, name: str) -> int:
    """Return the byte offset of the voxels; in a single file, after the header.

    Raises
    ------
    StudyUnreadableError
        If the offset is inside the header, or invalid.
    """
    offset = float(header["vox_offset"])
    first = header.single_vox_offset if header["magic"].item()[:2] == b"n+" else 0
    if offset == 0:
        return first
    if not min(first, header.sizeof_hdr) <= offset < _MAX_OFFSET:
        raise StudyUnreadableError(
            f"{name}: the header says that voxels begin at byte {offset:g}; "
            f"expected {first} or more; export it again"
        )
    return int(offset)
