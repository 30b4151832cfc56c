"""Load MetaImage (.mha, or .mhd with voxels in one or several detached files)."""

from __future__ import annotations

import math
import re
from typing import BinaryIO

import numpy as np

from radfound.exceptions import GeometryError, StudyUnreadableError
from radfound.reading.files import Source, check_size
from radfound.reading.geometry import ras_affine
from radfound.reading.values import choose_volume, luminance, plain_type
from radfound.reading.volumes.detached import numbered_names, read_beside
from radfound.reading.volumes.stored import read_bytes, read_last_bytes, read_text
from radfound.study.intensity import check_finite, looks_like_hounsfield
from radfound.study.study import StudyImage
from radfound.study.taxonomy import modality_of

_MAX_HEADER_BYTES = 1 << 20
_DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def read_metaimage(source: Source, volume: int | None = None) -> StudyImage:
    """Load one volume of a MetaImage, whose space is LPS.

    Raises
    ------
    StudyUnreadableError, StudyAmbiguousError, StudyTooLargeError, GeometryError, IntensityError
    """
    with open(source.path, "rb") as file:
        fields = _read_fields(file, source.name)
        try:
            sizes = [int(size) for size in fields["DimSize"].split()]
            channels = int(fields.get("ElementNumberOfChannels", 1))
            dtype = _stored_type(fields)
            skip = int(fields.get("HeaderSize", 0))
            if len(sizes) != int(fields["NDims"]) or not 2 <= len(sizes) <= 4 or channels < 1:
                raise ValueError("NDims")
            if fields.get("ObjectType", "Image") != "Image":
                raise ValueError(f"ObjectType {fields['ObjectType']}")
        except (KeyError, ValueError) as error:
            raise StudyUnreadableError(
                f"{source.name}: the MetaImage header lacks or garbles {error}; expected an image "
                "of 2 to 4 dimensions, their sizes and a numeric element type; export it again"
            ) from None
        check_size(source.name, [*sizes, channels])
        affine, calibrated = _affine(fields, len(sizes), source.name)
        stored = _read_voxels(file, fields, source, dtype, [*sizes[::-1], channels], skip)
    voxels = _one_volume(stored, volume, source.name)
    modality = modality_of(fields.get("Modality", "").removeprefix("MET_MOD_"))
    check_finite(voxels, source.name)
    return StudyImage(
        voxels=voxels,
        affine=affine,
        modality=modality,
        hounsfield=modality in (None, "CT") and looks_like_hounsfield(voxels),
        calibrated=calibrated,
        source=source.name,
    )


def _read_fields(file: BinaryIO, name: str) -> dict[str, str]:
    """Parse the header, whose last field is ElementDataFile."""
    fields: dict[str, str] = {}
    while file.tell() < _MAX_HEADER_BYTES:
        line = file.readline(_MAX_HEADER_BYTES).decode("latin-1")
        if not line:
            break
        key, value = (re.split(r"\s*[=:]\s*", line.strip(), maxsplit=1) + [""])[:2]
        fields[key] = value
        if key == "ElementDataFile":
            return fields
    raise StudyUnreadableError(
        f"{name}: the MetaImage header names no ElementDataFile; "
        "expected LOCAL or a file in the same folder; export it again"
    )


def _is_true(fields: dict[str, str], *keys: str) -> bool:
    """Whether the first of the keys present is true."""
    value = next((fields[key] for key in keys if key in fields), "")
    return value[:1] in ("T", "t", "1")


def _stored_type(fields: dict[str, str]) -> np.dtype:
    dtype = np.dtype(_DTYPES[fields["ElementType"].removesuffix("_ARRAY")])
    most_significant_first = _is_true(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    return dtype.newbyteorder(">" if most_significant_first else "<")


def _numbers(fields: dict[str, str], keys: tuple[str, ...], count: int) -> np.ndarray | None:
    for key in keys:
        if key in fields:
            numbers = np.array([float(word) for word in fields[key].split()])
            if numbers.size != count:
                raise ValueError(key)
            return numbers
    return None


def _affine(fields: dict[str, str], dimension: int, name: str) -> tuple[np.ndarray, bool]:
    """Return the affine and whether the file states the voxel size."""
    used = min(dimension, 3)
    columns, origin = np.eye(3), np.zeros(3)
    try:
        spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), dimension)
        rows = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), dimension**2)
        offset = _numbers(fields, ("Offset", "Position", "Origin"), dimension)
    except ValueError as error:
        raise GeometryError(
            f"{name}: {error} in the MetaImage header is invalid; "
            f"expected numbers for {dimension} axes; repair the header or export again"
        ) from None
    if rows is not None:
        # Each group of numbers is the direction of one axis: a column of the affine.
        directions = rows.reshape(dimension, dimension).T
        columns[:used, :used] = directions[:used, :used]
    if spacing is not None:
        columns[:, :used] *= spacing[:used]
    if offset is not None:
        origin[:used] = offset[:used]
    return ras_affine(columns, origin, name), spacing is not None


def _read_voxels(
    file: BinaryIO,
    fields: dict[str, str],
    source: Source,
    dtype: np.dtype,
    shape: list[int],
    skip: int,
) -> np.ndarray:
    """Return all stored values, slowest axis first; `skip` counts bytes before detached voxels."""
    packing = "zlib" if _is_true(fields, "CompressedData") else "raw"
    is_text = "BinaryData" in fields and not _is_true(fields, "BinaryData")

    def read(opened: BinaryIO, count: int, name: str) -> np.ndarray:
        if is_text:
            return read_text(opened, count // dtype.itemsize, dtype, name)
        if skip < 0:
            return read_last_bytes(opened, count, name, packing=packing)
        return read_bytes(opened, count, name, packing=packing, skip=skip)

    count = math.prod(shape) * dtype.itemsize
    where = fields["ElementDataFile"]
    if where.upper() == "LOCAL":
        if skip > 0:
            raise StudyUnreadableError(
                f"{source.name}: HeaderSize {skip} and voxels in the same file; expected none, or "
                "-1 for voxels at its end; repair the header"
            )
        data = read(file, count, source.name)
    elif where.split()[:1] == ["LIST"]:
        names = file.read(_MAX_HEADER_BYTES).decode("utf-8", "replace").splitlines()
        data = read_beside(source, [name.strip() for name in names if name.strip()], count, read)
    else:
        data = read_beside(source, numbered_names(where, source.name), count, read)
    return data.view(dtype).reshape(shape)


def _one_volume(stored: np.ndarray, volume: int | None, name: str) -> np.ndarray:
    """Select one volume of the stored array ([t,] [k,] j, i, channel); shape (D, H, W)."""
    if stored.shape[-1] in (3, 4) and stored.dtype == np.uint8:
        stored = luminance(stored)[..., np.newaxis]
    # Add missing leading axes: slice, then time.
    stored = stored.reshape((1,) * (5 - stored.ndim) + stored.shape)
    frames, channels = stored.shape[0], stored.shape[-1]
    frame, channel = divmod(choose_volume(frames * channels, volume, name), channels)
    return np.ascontiguousarray(plain_type(stored[frame, ..., channel]))
