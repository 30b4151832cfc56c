"""Limits on decompression, checked before a file is unpacked."""

from __future__ import annotations

from radfound.exceptions import StudyError, StudyTooLargeError

MAX_ARCHIVE_RATIO = 200
"""Maximum ratio of unpacked to packed bytes, beyond `FREE_UNPACKED_BYTES`."""
FREE_UNPACKED_BYTES = 64 * 2**20
"""Unpacked bytes allowed to every file, however small: masks and blank images compress 1000 to 1."""


def check_unpacked(
    name: str, packed: int, unpacked: int, error: type[StudyError] = StudyTooLargeError
) -> None:
    """Raise if a file unpacks to implausibly more than its size.

    Parameters
    ----------
    name : str
        Names the file in the message.
    packed, unpacked : int
        Size of the file, and the size according to its header, bytes.
    error : class of StudyError
        Type of the error.
    """
    allowed = FREE_UNPACKED_BYTES + MAX_ARCHIVE_RATIO * packed
    if unpacked > allowed:
        raise error(
            f"{name}: unpacks to {unpacked / 2**20:,.0f} MiB, {unpacked / max(1, packed):,.0f} "
            f"times its size; expected at most {FREE_UNPACKED_BYTES // 2**20:,} MiB and "
            f"{MAX_ARCHIVE_RATIO} times its size; give the file unpacked, if it is genuine"
        )
