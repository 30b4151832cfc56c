"""NIfTI-1 and NIfTI-2, packed or not: the header by nibabel, the voxels straight from the file."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from radfound.exceptions import GeometryError, IntensityError, StudyUnreadableError
from radfound.intensity import check_finite, looks_like_hounsfield
from radfound.reading.files import Source, check_size
from radfound.reading.geometry import checked_affine
from radfound.reading.stored import read_bytes
from radfound.reading.values import choose_volume, luminance, rescale
from radfound.study import StudyImage

if TYPE_CHECKING:
    from nibabel import Nifti1Header

_HEADER_BYTES = 540
_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}


def read_nifti(source: Source, volume: int | None = None) -> StudyImage:
    """Read one volume; its geometry is nibabel's: sform, else qform, else voxel size alone.

    Raises
    ------
    StudyUnreadableError, StudyAmbiguousError, StudyTooLargeError, GeometryError, IntensityError
    """
    with open(source.path, "rb") as file:
        packing = "zlib" if file.read(2) == b"\x1f\x8b" else "raw"
        file.seek(0)
        header = _read_header(file, packing, source.name)
        shape = _spatial_shape(header, source.name)
        count = int(np.prod(header.get_data_shape()[3:], dtype=np.int64))
        index = choose_volume(count, volume, source.name)
        affine = _affine(header, source.name)
        dtype = _stored_type(header, source.name)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        skip = _data_offset(header, source.name) + index * size
        data = read_bytes(file, size, source.name, packing=packing, skip=skip)
    stored = data.view(dtype).reshape(shape[::-1])
    voxels = _grey_values(stored, header, source.name)
    check_finite(voxels, source.name)
    return StudyImage(
        voxels=voxels,
        affine=affine,
        hounsfield=looks_like_hounsfield(voxels),
        source=source.name,
    )


def _read_header(file: BinaryIO, packing: str, name: str) -> Nifti1Header:
    from nibabel import Nifti1Header, Nifti2Header

    head = file.read(_HEADER_BYTES)
    if packing == "zlib":
        packed = head + file.read(_HEADER_BYTES)
        try:
            head = zlib.decompressobj(47).decompress(packed, _HEADER_BYTES)
        except zlib.error:
            head = b""
    file.seek(0)
    kind = Nifti2Header if head[4:7] in (b"n+2", b"ni2") else Nifti1Header
    if len(head) < kind.sizeof_hdr:
        raise StudyUnreadableError(
            f"{name}: the NIfTI header is truncated or damaged; expected {kind.sizeof_hdr} bytes; "
            "copy or export it again"
        )
    if head[344:347] == b"ni1" or head[4:7] == b"ni2":
        raise StudyUnreadableError(
            f"{name}: a NIfTI header whose voxels are in another file; "
            "expected header and voxels in one .nii or .nii.gz; convert the pair"
        )
    return kind.from_fileobj(io.BytesIO(head), check=False)


def _spatial_shape(header: Nifti1Header, name: str) -> tuple[int, int, int]:
    """Return the sizes along i, j and k; those that a 2D image lacks are 1."""
    sizes = [int(size) for size in header.get_data_shape()]
    if not 2 <= len(sizes) <= 7:
        raise StudyUnreadableError(
            f"{name}: the header says {len(sizes)} axes; expected 2 or more; export it again"
        )
    i, j, k = (sizes + [1])[:3]
    check_size(name, (i, j, k))
    check_size(name, sizes[3:] or [1])
    return i, j, k


def _data_offset(header: Nifti1Header, name: str) -> int:
    offset = float(header.get_data_offset())
    if not header.sizeof_hdr <= offset < 2**40:
        raise StudyUnreadableError(
            f"{name}: the header says that voxels begin at byte {offset:g}; "
            f"expected {header.single_vox_offset} or more; export it again"
        )
    return int(offset)


def _stored_type(header: Nifti1Header, name: str) -> np.dtype:
    from nibabel.spatialimages import HeaderDataError

    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        dtype = np.dtype("V")
    if dtype.kind not in "iuf" and dtype.names is None:
        raise StudyUnreadableError(
            f"{name}: NIfTI data type {int(header['datatype'])}; expected integers, floats or RGB; "
            "convert the voxels"
        )
    return dtype


def _affine(header: Nifti1Header, name: str) -> np.ndarray:
    from nibabel.spatialimages import HeaderDataError

    try:
        affine = header.get_best_affine()
        unit = header.get_xyzt_units()[0]
    except (HeaderDataError, KeyError, ValueError):
        raise GeometryError(
            f"{name}: spacing or orientation in the NIfTI header cannot be understood; "
            "expected a valid sform or qform; repair the header or export again"
        ) from None
    affine[:3] *= _MM_PER_UNIT.get(unit, 1.0)
    return checked_affine(affine, name)


def _grey_values(stored: np.ndarray, header: Nifti1Header, name: str) -> np.ndarray:
    from nibabel.spatialimages import HeaderDataError

    if stored.dtype.names:
        return luminance(np.stack([stored[channel] for channel in "RGB"], axis=-1))
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError:
        raise IntensityError(
            f"{name}: the rescale slope and intercept in the NIfTI header are not finite; "
            "expected numbers; repair the header or export again"
        ) from None
    return rescale(stored, 1.0 if slope is None else slope, intercept or 0.0, name)
