"""The affine of a NIfTI by the rules of ITK, and so of 3D Slicer, for qform, sform and voxel size.

A point marked in Slicer must be the same voxel here. ITK differs from nibabel: it prefers the
qform unless the sform's code is "scanner", always takes the voxel size from `pixdim`, and puts a
file without forms at the origin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radfound.exceptions import GeometryError
from radfound.reading.geometry import LPS_TO_RAS, checked_affine

if TYPE_CHECKING:
    from nibabel import Nifti1Header

_MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # metre, micron; other codes mean mm
_SCANNER = 1
_ORTHONORMAL = 1e-4
_SAME_PLACE = 1e-3
_LEAST_SQUARED_SCALAR = 1e-7


def nifti_affine(header: Nifti1Header, shape: tuple[int, int, int], name: str) -> np.ndarray:
    """Return the affine to RAS in mm.

    Parameters
    ----------
    header : nibabel's header, of NIfTI-1 or 2
    shape : sizes along i, j and k
    name : str
        Names the file in messages.

    Returns
    -------
    float64 array, shape (4, 4)

    Raises
    ------
    GeometryError
        If the voxel size is not positive or the affine is invalid.
    """
    spacing = _spacing(header, shape, name)
    sform = np.eye(4)
    sform[:3] = [header[row] for row in ("srow_x", "srow_y", "srow_z")]
    has_sform, has_qform = (int(header[code]) > 0 for code in ("sform_code", "qform_code"))
    if not has_sform and not has_qform:
        affine = LPS_TO_RAS @ np.diag([*spacing, 1.0])
    elif has_sform and _is_rigid(sform) and (not has_qform or header["sform_code"] == _SCANNER):
        affine = _with_spacing(sform, spacing)
    elif has_qform:
        affine = _with_spacing(_qform(header), spacing)
        if has_sform and _is_rigid(sform):
            _check_not_mirrored(affine, _with_spacing(sform, spacing), name)
    else:
        # Sheared: ITK rejects such a file, so there is no position in Slicer to match.
        affine = sform
    affine[:3] *= _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    if int(header["dim"][0]) == 2 and not affine[2, :2].any():
        affine[:, 2] = affine[2] = (0, 0, 1, 0)
    return checked_affine(affine, name)


def _spacing(header: Nifti1Header, shape: tuple[int, int, int], name: str) -> np.ndarray:
    """Return the voxel size; a missing one along an axis of one voxel counts as 1."""
    spacing = np.array(header["pixdim"][1:4], np.float64)
    is_bad = ~(np.isfinite(spacing) & (spacing > 0))
    if np.any(is_bad & (np.array(shape) > 1)):
        shown = " x ".join(f"{size:g}" for size in spacing)
        raise GeometryError(
            f"{name}: the spacing of voxels (pixdim) is {shown}; expected more than zero along "
            "each axis; repair the header or export again"
        )
    return np.where(is_bad, 1.0, spacing)


def _is_rigid(form: np.ndarray) -> bool:
    """Whether a form only rotates and scales, without shear."""
    columns = form[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not (np.isfinite(form).all() and lengths.all()):
        return False
    directions = columns / lengths
    return np.allclose(directions @ directions.T, np.eye(3), rtol=0, atol=_ORTHONORMAL)


def _with_spacing(form: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    affine = form.copy()
    affine[:3, :3] *= spacing / np.linalg.norm(form[:3, :3], axis=0)
    return affine


def _check_not_mirrored(qform: np.ndarray, sform: np.ndarray, name: str) -> None:
    """Raise if both forms share origin and axes but differ in the axes' order or direction.

    ITK compares such forms by a singular value decomposition; its choice between them is arbitrary.
    """
    relation = (qform[:3, :3] / np.linalg.norm(qform[:3, :3], axis=0)).T @ (
        sform[:3, :3] / np.linalg.norm(sform[:3, :3], axis=0)
    )
    if (
        np.allclose(qform[:3, 3], sform[:3, 3], rtol=0, atol=_SAME_PLACE)
        and np.allclose(np.abs(relation).max(axis=0), 1, rtol=0, atol=_SAME_PLACE)
        and not np.allclose(relation, np.eye(3), rtol=0, atol=10 * _SAME_PLACE)
    ):
        raise GeometryError(
            f"{name}: qform and sform are mirror images or swap axes; expected forms that agree; "
            "find out which one is right, and repair the header"
        )


def _qform(header: Nifti1Header) -> np.ndarray:
    """Return the rotation of the quaternion, with unit columns, and the offset."""
    from nibabel.quaternions import quat2mat

    vector = np.array([header[f"quatern_{axis}"] for axis in "bcd"], np.float64)
    vector[~np.isfinite(vector)] = np.nan
    squared_scalar = 1 - float(vector @ vector)
    if squared_scalar < _LEAST_SQUARED_SCALAR:
        # A rotation by 180 degrees; rounding may leave the vector longer than 1.
        vector, squared_scalar = vector / np.linalg.norm(vector), 0.0
    form = np.eye(4)
    form[:3, :3] = quat2mat((np.sqrt(squared_scalar), *vector))
    if header["pixdim"][0] < 0:
        form[:3, 2] *= -1
    form[:3, 3] = [header[f"qoffset_{axis}"] for axis in "xyz"]
    return form
