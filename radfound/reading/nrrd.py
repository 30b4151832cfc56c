"""NRRD, attached or with its voxels in a file beside it."""

from __future__ import annotations

import os
import re
from typing import Any, BinaryIO

import numpy as np

from radfound.exceptions import GeometryError, StudyUnreadableError
from radfound.intensity import check_finite, looks_like_hounsfield
from radfound.reading.files import Source, check_size, file_beside
from radfound.reading.geometry import ras_affine
from radfound.reading.stored import read_bytes
from radfound.reading.values import choose_volume, luminance, plain_type
from radfound.study import StudyImage

_MAX_HEADER_BYTES = 1 << 20
_TYPES = {
    "i1": "signed char|int8|int8_t",
    "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t",
    "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "f4": "float",
    "f8": "double",
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names.split("|")}
_PACKINGS = {"raw": "raw", "gzip": "zlib", "gz": "zlib", "bzip2": "bzip2", "bz2": "bzip2"}
# What a step along each axis of the named space is in LPS.
_SPACES_TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_SPATIAL_KINDS = {"domain", "space", "???", "none", ""}
_COLOUR_KINDS = {"rgb-color", "rgba-color", "3-color", "4-color"}


def read_nrrd(source: Source, volume: int | None = None) -> StudyImage:
    """Read one volume of a NRRD; an axis that is no direction in space tells several apart.

    A file without a named space is taken as LPS, as ITK does.

    Raises
    ------
    StudyUnreadableError, StudyAmbiguousError, StudyTooLargeError, GeometryError, IntensityError
    """
    with open(source.path, "rb") as file:
        fields = _read_fields(file, source.name)
        try:
            sizes = [int(size) for size in fields["sizes"].split()]
            spatial = _spatial_axes(fields, len(sizes))
            stored_type = _stored_type(fields)
            skips = int(fields.get("line skip", 0)), int(fields.get("byte skip", 0))
        except (KeyError, ValueError, IndexError) as error:
            raise StudyUnreadableError(
                f"{source.name}: the NRRD header lacks or garbles {error}; "
                "expected sizes, type, endian and encoding; export it again"
            ) from None
        if not 2 <= len(spatial) <= 3:
            raise GeometryError(
                f"{source.name}: {len(spatial)} axes in space; expected 2 or 3; export it again"
            )
        check_size(source.name, sizes)
        affine, calibrated = _affine(fields, spatial, source.name)
        stored = _read_voxels(file, fields, source, stored_type, sizes, skips)
    voxels = _one_volume(stored, fields, spatial, volume, source.name)
    check_finite(voxels, source.name)
    return StudyImage(
        voxels=voxels,
        affine=affine,
        hounsfield=looks_like_hounsfield(voxels),
        calibrated=calibrated,
        source=source.name,
    )


def _read_fields(file: BinaryIO, name: str) -> dict[str, str]:
    """Read the header up to the empty line that ends it, or the end of a detached one."""
    fields: dict[str, str] = {}
    file.readline()
    while file.tell() < _MAX_HEADER_BYTES:
        line = file.readline(_MAX_HEADER_BYTES).decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            return fields
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[key.strip().lower().replace("datafile", "data file")] = value.strip()
    raise StudyUnreadableError(
        f"{name}: the NRRD header does not end within {_MAX_HEADER_BYTES:,} bytes; "
        "expected an empty line after it; export it again"
    )


def _words(fields: dict[str, str], key: str, count: int) -> list[str]:
    words = [word.strip('"').lower() for word in fields.get(key, "").split()]
    return words if len(words) == count else [""] * count


def _vectors(text: str) -> list[Any]:
    """Parse `(1,0,0) none (0,1,0)`."""
    return [
        None if group == "none" else np.array([float(x) for x in group[1:-1].split(",")])
        for group in re.findall(r"none|\([^)]*\)", text)
    ]


def _spatial_axes(fields: dict[str, str], dimension: int) -> list[int]:
    """Return the axes that are directions in space, fastest first."""
    if "space directions" in fields:
        vectors = _vectors(fields["space directions"])
        if len(vectors) != dimension:
            raise ValueError("space directions")
        # A fourth vector in space is time, as ITK writes it.
        return [axis for axis, vector in enumerate(vectors) if vector is not None][:3]
    kinds = _words(fields, "kinds", dimension)
    return [axis for axis in range(dimension) if kinds[axis] in _SPATIAL_KINDS][:3]


def _stored_type(fields: dict[str, str]) -> np.dtype:
    dtype = np.dtype(_DTYPES[fields["type"].lower()])
    endian = fields.get("endian", "little").lower()
    return dtype.newbyteorder(">" if endian == "big" else "<")


def _affine(fields: dict[str, str], spatial: list[int], name: str) -> tuple[np.ndarray, bool]:
    """Return the affine and whether the file says what a voxel measures."""
    columns, origin = np.eye(3), np.zeros(3)
    calibrated = True
    try:
        if "space directions" in fields:
            vectors = _vectors(fields["space directions"])
            for column, axis in enumerate(spatial):
                vector = vectors[axis][:3]
                columns[: len(vector), column] = vector
            if len(spatial) == 2 and len(vector) == 3:
                # The third axis of a slice that lies in space is its normal.
                normal = np.cross(columns[:, 0], columns[:, 1])
                columns[:, 2] = normal / (np.linalg.norm(normal) or 1.0)
            if "space origin" in fields:
                (vector,) = _vectors(fields["space origin"])
                origin[: len(vector[:3])] = vector[:3]
        elif "spacings" in fields:
            spacings = [float(word) for word in fields["spacings"].split()]
            starts = [float(word) for word in fields.get("axis mins", "").split()]
            for column, axis in enumerate(spatial):
                columns[column, column] = spacings[axis]
                origin[column] = starts[axis] if starts else 0.0
            origin[~np.isfinite(origin)] = 0.0
        else:
            calibrated = False
    except (TypeError, ValueError, IndexError):
        raise GeometryError(
            f"{name}: spacing, directions or origin in the NRRD header cannot be understood; "
            "expected numbers for each axis; repair the header or export again"
        ) from None
    signs = np.array(_SPACES_TO_LPS.get(fields.get("space", "").lower(), (1, 1, 1)), float)
    return ras_affine(signs[:, np.newaxis] * columns, signs * origin, name), calibrated


def _read_voxels(
    file: BinaryIO,
    fields: dict[str, str],
    source: Source,
    dtype: np.dtype,
    sizes: list[int],
    skips: tuple[int, int],
) -> np.ndarray:
    """Return all stored values, slowest axis first; `skips` are the lines and bytes before them."""
    encoding = fields.get("encoding", "").lower()
    if encoding not in _PACKINGS:
        raise StudyUnreadableError(
            f"{source.name}: NRRD encoding {encoding or 'missing'}; "
            f"expected {', '.join(_PACKINGS)}; export it again"
        )
    packing = _PACKINGS[encoding]
    count = int(np.prod(sizes, dtype=np.int64)) * dtype.itemsize
    if "data file" not in fields:
        data = _skip_and_read(file, count, source.name, packing, skips)
    else:
        path = file_beside(source, fields["data file"])
        with open(path, "rb") as detached:
            data = _skip_and_read(detached, count, path.name, packing, skips)
    return data.view(dtype).reshape(sizes[::-1])


def _skip_and_read(
    file: BinaryIO, count: int, name: str, packing: str, skips: tuple[int, int]
) -> np.ndarray:
    lines, skip = skips
    for _ in range(lines):
        if not file.readline(_MAX_HEADER_BYTES):
            break
    if skip < 0:
        # A skip of -1 means: the voxels are the last bytes of the file.
        skip = 0
        file.seek(max(file.tell(), file.seek(0, os.SEEK_END) - count))
    return read_bytes(file, count, name, packing=packing, skip=skip)


def _one_volume(
    stored: np.ndarray, fields: dict[str, str], spatial: list[int], volume: int | None, name: str
) -> np.ndarray:
    """Pick one volume out of the stored array and return it as (D, H, W)."""
    dimension = stored.ndim
    kinds = _words(fields, "kinds", dimension)
    others = [axis for axis in range(dimension) if axis not in spatial]
    # Header axes are counted from the fastest, numpy's from the slowest.
    order = [dimension - 1 - axis for axis in (others + spatial)]
    array = stored.transpose(order[: len(others)] + order[len(others) :][::-1])
    if len(others) == 1 and kinds[others[0]] in _COLOUR_KINDS:
        array = luminance(np.moveaxis(array, 0, -1))
    else:
        choices = array.shape[: len(others)]
        count = int(np.prod(choices, dtype=np.int64))
        array = array[np.unravel_index(choose_volume(count, volume, name), choices)]
    if array.ndim == 2:
        array = array[np.newaxis]
    return np.ascontiguousarray(plain_type(array))
