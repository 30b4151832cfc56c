"""Detached voxel data: files beside the header, as named by NRRD and MetaImage."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np

from radfound.exceptions import StudyUnreadableError
from radfound.reading.files import MAX_FILES, Source, file_beside

# One integer of at most two digits of width, and no other format specifier.
_NUMBERED = re.compile(r"[^%]*%0?\d{0,2}[diu][^%]*")


def numbered_names(pattern: str, name: str) -> list[str]:
    """Expand a pattern such as `slice%03d.raw 1 60 1` to file names; a plain name stays as is.

    Parameters
    ----------
    pattern : str
        A name, or a name with one number field, followed by first value, last value and step.
    name : str
        Names the header in messages.

    Raises
    ------
    StudyUnreadableError
        If the pattern is invalid, or expands to too many files.
    """
    words = pattern.split()
    if "%" not in pattern or len(words) < 4:
        return [pattern]
    try:
        first, last, step = (int(word) for word in words[1:4])
        numbers = range(first, last + (1 if step > 0 else -1), step)
        if not _NUMBERED.fullmatch(words[0]) or not 0 < len(numbers) <= MAX_FILES:
            raise ValueError
    except ValueError:
        raise StudyUnreadableError(
            f"{name}: {pattern[:80]!r} is no valid pattern of data files; expected a "
            f"pattern such as slice%03d.raw, first, last and step, for at most {MAX_FILES:,} files"
        ) from None
    return [words[0].replace("%u", "%d") % number for number in numbers]


def read_beside(
    source: Source,
    names: Sequence[str],
    count: int,
    read: Callable[[BinaryIO, int, str], np.ndarray],
) -> np.ndarray:
    """Load `count` bytes of voxels from detached files, an equal part from each, in order.

    Parameters
    ----------
    source : Source
        The header.
    names : sequence of str, at least one
    count : int
    read : callable
        Called with an open file, the number of bytes and the file's name for messages.

    Returns
    -------
    uint8 array, shape (count,)

    Raises
    ------
    StudyUnreadableError
        If a file is missing or outside the header's folder, or the parts cannot be equal.
    """
    if not names or count % len(names):
        raise StudyUnreadableError(
            f"{source.name}: {count:,} bytes of voxels in {len(names):,} files; "
            "expected the same number in each; give all files, or save header and voxels in one"
        )
    paths = [file_beside(source, name) for name in names]
    parts = []
    for path in paths:
        with open(path, "rb") as file:
            parts.append(read(file, count // len(names), path.name))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
