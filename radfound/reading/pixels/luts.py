"""DICOM look-up tables: palettes (PS3.3 C.7.6.3.1.5, C.7.9) and the Modality LUT (C.11.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radfound.reading.pixels.layout import UnsupportedPixels
from radfound.reading.values import luminance

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PALETTE_TAGS = [
    f"{segmented}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
]
_MOST_ENTRIES = 1 << 16


def apply_palette(indices: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Map each index to the luminance of its palette entry.

    Raises
    ------
    UnsupportedPixels
        If the palette is missing or incomplete.
    """
    tables, first = [], 0
    for colour in ("Red", "Green", "Blue"):
        stem = f"{colour}PaletteColorLookupTable"
        if f"{stem}Descriptor" not in dataset:
            raise _no_palette()
        count, first, bits = _descriptor(dataset[f"{stem}Descriptor"].value, dataset)
        if dataset.get(f"{stem}Data"):
            entries = _entries(dataset[f"{stem}Data"].value, count, bits, dataset.is_little_endian)
        elif dataset.get(f"Segmented{stem}Data"):
            packed = dataset[f"Segmented{stem}Data"].value
            width = 1 if bits <= 8 else 2
            entries = _expand_segments(_words(packed, width, dataset.is_little_endian))
        else:
            raise _no_palette()
        if len(entries) < count:
            raise _no_palette()
        tables.append(_in_eight_bits(entries[:count]) if bits <= 8 else entries[:count])
    return luminance(np.stack(tables, axis=-1))[_places(indices, first, len(tables[0]))]


def apply_modality_lut(values: np.ndarray, item: Dataset, dataset: Dataset) -> np.ndarray:
    """Map stored values by a Modality LUT of any depth.

    Parameters
    ----------
    values : integer array
    item : Dataset
        The item of the Modality LUT Sequence.
    dataset : Dataset
        The data set of the item, for sign and byte order.
    """
    count, first, bits = _descriptor(item["LUTDescriptor"].value, dataset)
    entries = _entries(item["LUTData"].value, count, bits, dataset.is_little_endian)
    if len(entries) < count:
        raise UnsupportedPixels(
            f"the Modality LUT has {len(entries):,} entries where its descriptor says {count:,}; "
            "expected equal numbers; export it again"
        )
    return entries[_places(values, first, count)]


def _no_palette() -> UnsupportedPixels:
    return UnsupportedPixels(
        "the header says PALETTE COLOR, but the palette is missing or incomplete; "
        "expected red, green and blue look-up tables; export it again with its palette"
    )


def _descriptor(value, dataset: Dataset) -> tuple[int, int, int]:
    """Return the number of entries, the stored value of the first one, and the bits per entry."""
    count, first, bits = (int(number) for number in value)
    if dataset.get("PixelRepresentation") and first >= 0x8000:
        first -= 0x10000
    return (count & 0xFFFF) or _MOST_ENTRIES, first, bits


def _places(values: np.ndarray, first: int, count: int) -> np.ndarray:
    """Return the entry index of each stored value, clipped to the table."""
    return np.clip(values.astype(np.int64) - first, 0, count - 1)


def _entries(value, count: int, bits: int, little_endian: bool) -> np.ndarray:
    """Return the entries of a table; 8-bit entries are stored as bytes or as words."""
    if not isinstance(value, bytes):  # VR US, which pydicom converts to numbers
        return np.array(value, np.uint16, ndmin=1)
    is_bytes = bits <= 8 and len(value) < 2 * count
    return _words(value, 1 if is_bytes else 2, little_endian)


def _words(value: bytes, width: int, little_endian: bool) -> np.ndarray:
    """Return bytes as unsigned integers of 1 or 2 bytes."""
    words = np.frombuffer(value, "<u2" if little_endian else ">u2", len(value) // 2)
    # Two 8-bit entries share a word, the first one in the lower half.
    return words.astype("<u2").view(np.uint8) if width == 1 else words.astype(np.uint16)


def _in_eight_bits(entries: np.ndarray) -> np.ndarray:
    """Return 8-bit entries, which some files store in the upper half of 16 bits."""
    return (entries >> 8 if entries.max() > 0xFF else entries).astype(np.uint8)


def _expand_segments(words: np.ndarray) -> np.ndarray:
    """Expand a segmented table: runs of values, straight lines, and repeats of earlier segments."""
    entries: list[int] = []
    starts: list[int] = []

    def expand(at: int) -> int:
        """Append the segment at a position; return the position of the next one."""
        if len(entries) > _MOST_ENTRIES:
            raise ValueError("more entries than any table may have")
        kind, length = int(words[at]), int(words[at + 1])
        if kind == 0:
            entries.extend(words[at + 2 : at + 2 + length].tolist())
            return at + 2 + length
        if kind == 1:
            line = np.linspace(entries[-1], int(words[at + 2]), length + 1)[1:]
            entries.extend(np.rint(line).astype(int).tolist())
            return at + 3
        raise ValueError("a segment of an unknown kind")

    at = 0
    while at + 2 < len(words):
        starts.append(at)
        if words[at] != 2:
            at = expand(at)
            continue
        # Offsets count bytes; of 8-bit words there are four, of 16-bit words two, lowest first.
        parts, bits = (4, 8) if words.itemsize == 1 else (2, 16)
        offset = sum(int(words[at + 2 + part]) << bits * part for part in range(parts))
        repeated = starts.index(offset // words.itemsize)
        for start in starts[repeated : repeated + int(words[at + 1])]:
            if start < at and words[start] != 2:
                expand(start)
        at += 2 + parts
    return np.array(entries, np.uint16)
