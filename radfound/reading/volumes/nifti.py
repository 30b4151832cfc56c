"""Load NIfTI-1 and NIfTI-2, compressed or not, as one file or a pair of .hdr and .img."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from radfound.exceptions import StudyUnreadableError
from radfound.reading.files import Source, check_size, file_beside
from radfound.reading.values import choose_volume, luminance, plain_type, rescale
from radfound.reading.volumes.nifti_header import (
    HEADER_BYTES,
    data_offset,
    is_single,
    parse_header,
    stored_type,
)
from radfound.reading.volumes.nifti_place import nifti_affine
from radfound.reading.volumes.stored import packing_of, read_bytes, read_head
from radfound.study.intensity import check_finite, looks_like_hounsfield
from radfound.study.study import StudyImage

if TYPE_CHECKING:
    from nibabel import Nifti1Header


def read_nifti(source: Source, volume: int | None = None) -> StudyImage:
    """Load one volume, positioned as in ITK and 3D Slicer.

    Raises
    ------
    StudyUnreadableError, StudyAmbiguousError, StudyTooLargeError, GeometryError, IntensityError
    """
    with open(source.path, "rb") as file:
        head = read_head(file, HEADER_BYTES)
        header = parse_header(head, source.name)
        shape = _spatial_shape(header, source.name)
        index = choose_volume(math.prod(_sizes(header)[3:]), volume, source.name)
        affine = nifti_affine(header, shape, source.name)
        dtype = stored_type(header, source.name)
        if is_single(head):
            stored = _read_volume(file, header, dtype, shape, index, source.name)
        else:
            beside = _voxel_file(source)
            with open(beside.path, "rb") as voxel_file:
                stored = _read_volume(voxel_file, header, dtype, shape, index, beside.name)
    voxels = _grey_values(stored, header, source.name)
    check_finite(voxels, source.name)
    return StudyImage(
        voxels=voxels,
        affine=affine,
        # With an intent code the values are a statistic, labels or a vector.
        hounsfield=not header["intent_code"] and looks_like_hounsfield(voxels),
        source=source.name,
    )


def _sizes(header: Nifti1Header) -> list[int]:
    """Return the sizes along at least three axes; a missing or zero size after j counts as 1."""
    dimension = int(header["dim"][0])
    sizes = [int(size) for size in header["dim"][1 : 1 + dimension]]
    return [
        size or 1 if axis > 1 else size for axis, size in enumerate(sizes + [1] * (3 - dimension))
    ]


def _spatial_shape(header: Nifti1Header, name: str) -> tuple[int, int, int]:
    dimension = int(header["dim"][0])
    if not 2 <= dimension <= 7:
        raise StudyUnreadableError(
            f"{name}: the header says {dimension} axes; expected 2 to 7; export it again"
        )
    i, j, k, *others = _sizes(header)
    check_size(name, (i, j, k))
    check_size(name, others or [1])
    return i, j, k


def _voxel_file(source: Source) -> Source:
    """Return the .img beside a .hdr, compressed or not."""
    stem = source.path.name.removesuffix(".gz")
    stem = stem[: -len(".hdr")] if stem.lower().endswith(".hdr") else stem
    ending = ".IMG" if source.path.name.endswith(".HDR") else ".img"
    packed = source.path.with_name(f"{stem}{ending}.gz")
    return Source.of(packed if os.path.isfile(packed) else file_beside(source, f"{stem}{ending}"))


def _read_volume(
    file: BinaryIO,
    header: Nifti1Header,
    dtype: np.dtype,
    shape: tuple[int, int, int],
    index: int,
    name: str,
) -> np.ndarray:
    """Return one volume of stored values, shape (k, j, i), with a last axis for colour."""
    size = math.prod(shape) * dtype.itemsize
    skip = data_offset(header, name) + index * size
    data = read_bytes(file, size, name, packing=packing_of(file), skip=skip)
    return data.view(dtype.base).reshape(shape[::-1] + dtype.shape)


def _grey_values(stored: np.ndarray, header: Nifti1Header, name: str) -> np.ndarray:
    if stored.ndim > 3:
        return luminance(stored)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        # In the standard, a slope of 0 means no scaling.
        return plain_type(stored)
    return rescale(stored, slope, intercept, name)
