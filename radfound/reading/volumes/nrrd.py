"""Load NRRD with attached voxels, or with voxels in one or several detached files."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import BinaryIO

import numpy as np

from radfound.exceptions import StudyUnreadableError
from radfound.reading.files import Source, check_size
from radfound.reading.values import choose_volume, luminance, plain_type
from radfound.reading.volumes.detached import numbered_names, read_beside
from radfound.reading.volumes.nrrd_header import (
    MAX_HEADER_BYTES,
    NrrdHeader,
    nrrd_affine,
    read_header,
)
from radfound.reading.volumes.stored import read_bytes, read_hex, read_last_bytes, read_text
from radfound.study.intensity import check_finite, looks_like_hounsfield
from radfound.study.study import StudyImage

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
_TEXTS = {"ascii", "text", "txt"}
_COLOUR_KINDS = {"rgb-color", "rgba-color", "3-color", "4-color"}


def read_nrrd(source: Source, volume: int | None = None) -> StudyImage:
    """Load one volume of a NRRD; `volume` counts along the axes that are not spatial.

    A file without a named space is taken as LPS, as in ITK.

    Raises
    ------
    StudyUnreadableError, StudyAmbiguousError, StudyTooLargeError, GeometryError, IntensityError
    """
    with open(source.path, "rb") as file:
        header = read_header(file, source.name)
        check_size(source.name, header.sizes)
        affine, calibrated = nrrd_affine(header)
        stored = _read_voxels(file, header, source)
    voxels = _one_volume(stored, header, volume)
    check_finite(voxels, source.name)
    return StudyImage(
        voxels=voxels,
        affine=affine,
        modality=header.modality,
        hounsfield=header.modality in (None, "CT") and looks_like_hounsfield(voxels),
        calibrated=calibrated,
        source=source.name,
    )


def _stored_type(header: NrrdHeader) -> np.dtype:
    kind = header.fields.get("type", "").lower()
    if kind not in _DTYPES:
        raise StudyUnreadableError(
            f"{header.name}: NRRD type {kind or 'missing'!r}; expected integers of up to 64 bits, "
            "float or double; convert the voxels"
        )
    dtype = np.dtype(_DTYPES[kind])
    endian = header.fields.get("endian", "").lower()
    if dtype.itemsize == 1 or header.fields.get("encoding", "").lower() in _TEXTS:
        return dtype
    if endian not in ("little", "big"):
        raise StudyUnreadableError(
            f"{header.name}: NRRD endian {endian or 'missing'!r}; expected little or big; "
            "export it again"
        )
    return dtype.newbyteorder("<" if endian == "little" else ">")


def _read_voxels(file: BinaryIO, header: NrrdHeader, source: Source) -> np.ndarray:
    """Return all stored values, slowest axis first."""
    dtype = _stored_type(header)
    count = math.prod(header.sizes) * dtype.itemsize
    read = partial(_read_encoded, header, dtype)
    place = header.fields.get("data file")
    if place is None:
        data = read(file, count, source.name)
    else:
        is_list = place.split()[:1] == ["LIST"]
        names = header.data_files if is_list else numbered_names(place, source.name)
        data = read_beside(source, names, count, read)
    return data.view(dtype).reshape(header.sizes[::-1])


def _read_encoded(
    header: NrrdHeader, dtype: np.dtype, file: BinaryIO, count: int, name: str
) -> np.ndarray:
    """Load `count` bytes of voxels in the encoding that the header names."""
    encoding = header.fields.get("encoding", "").lower()
    try:
        lines, skip = (int(header.fields.get(key, 0)) for key in ("line skip", "byte skip"))
        if skip < 0 and encoding not in _PACKINGS:
            raise ValueError(f"byte skip {skip} into {encoding}")
    except ValueError as error:
        raise StudyUnreadableError(
            f"{header.name}: a skip in the NRRD header is invalid ({error}); "
            "expected integers, negative ones only for raw or compressed voxels; repair the header"
        ) from None
    for _ in range(lines):
        if not file.readline(MAX_HEADER_BYTES):
            break
    if encoding in _PACKINGS and skip < 0:
        # A skip of -1 means that the voxels are the last bytes, -2 that one byte follows them.
        return read_last_bytes(file, count, name, packing=_PACKINGS[encoding], behind=-skip - 1)
    if encoding in _PACKINGS:
        return read_bytes(file, count, name, packing=_PACKINGS[encoding], skip=skip)
    file.seek(min(skip, os.fstat(file.fileno()).st_size), os.SEEK_CUR)
    if encoding in _TEXTS:
        return read_text(file, count // dtype.itemsize, dtype, name)
    if encoding == "hex":
        return read_hex(file, count, name)
    raise StudyUnreadableError(
        f"{header.name}: NRRD encoding {encoding or 'missing'}; "
        f"expected {', '.join(_PACKINGS)}, ascii or hex; export it again"
    )


def _one_volume(stored: np.ndarray, header: NrrdHeader, volume: int | None) -> np.ndarray:
    """Select one volume of the stored array; shape (D, H, W)."""
    others = header.others
    # The header counts axes from the fastest, numpy from the slowest.
    order = [stored.ndim - 1 - axis for axis in (others + header.spatial)]
    array = stored.transpose(order[: len(others)] + order[len(others) :][::-1])
    if len(others) == 1 and header.kinds[others[0]] in _COLOUR_KINDS and len(array) in (3, 4):
        array = luminance(np.moveaxis(array, 0, -1))
    else:
        choices = array.shape[: len(others)]
        index = choose_volume(math.prod(choices), volume, header.name)
        array = array[np.unravel_index(index, choices)]
    if array.ndim == 2:
        array = array[np.newaxis]
    return np.ascontiguousarray(plain_type(array))
