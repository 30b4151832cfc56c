"""How much a small file may make of itself: checked before anything is unpacked."""

from __future__ import annotations

from radfound.exceptions import StudyError, StudyTooLargeError

MAX_ARCHIVE_RATIO = 200
"""Most bytes that a packed byte may unpack to, beyond `FREE_UNPACKED_BYTES`."""
FREE_UNPACKED_BYTES = 64 * 2**20
"""What any file may unpack to, however small it is: masks and blank images pack 1000 to 1."""


def check_unpacked(
    name: str, packed: int, unpacked: int, error: type[StudyError] = StudyTooLargeError
) -> None:
    """Raise where a file promises far more than its size makes likely.

    Parameters
    ----------
    name : str
        Names the file in the message.
    packed, unpacked : int
        Bytes that the file holds, and those that its header promises.
    error : class of StudyError
        What to raise.
    """
    allowed = FREE_UNPACKED_BYTES + MAX_ARCHIVE_RATIO * packed
    if unpacked > allowed:
        raise error(
            f"{name}: unpacks to {unpacked / 2**20:,.0f} MiB, {unpacked / max(1, packed):,.0f} "
            f"times its size; expected at most {FREE_UNPACKED_BYTES // 2**20:,} MiB and "
            f"{MAX_ARCHIVE_RATIO} times its size; give it unpacked, if it is what it says"
        )
