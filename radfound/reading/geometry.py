"""Affines in RAS millimetres: made from what files say, and checked."""

from __future__ import annotations

import numpy as np

from radfound.exceptions import GeometryError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_FLATTEST = 1e-4


def ras_affine(columns_lps: np.ndarray, origin_lps: np.ndarray, name: str) -> np.ndarray:
    """Make an affine to RAS from the axes and origin of a file that speaks LPS.

    Parameters
    ----------
    columns_lps : array, shape (3, 3)
        Step in mm along i, j and k, one column each.
    origin_lps : array, shape (3,)
        Centre of the first voxel, mm.
    name : str
        Names the file in messages.

    Returns
    -------
    float64 array, shape (4, 4)

    Raises
    ------
    GeometryError
        If the axes do not span space.
    """
    affine = np.eye(4)
    affine[:3, :3] = columns_lps
    affine[:3, 3] = origin_lps
    return checked_affine(LPS_TO_RAS @ affine, name)


def flat_affine(column_mm: float = 1.0, row_mm: float = 1.0) -> np.ndarray:
    """Return the affine of an image that lies nowhere in the body.

    Columns run to the left and rows to the back, as ITK and 3D Slicer show such files, so that a
    place marked there means the same here.

    Parameters
    ----------
    column_mm, row_mm : float
        Distance between neighbouring columns, and between neighbouring rows.
    """
    return LPS_TO_RAS @ np.diag([column_mm, row_mm, 1.0, 1.0])


def checked_affine(affine: np.ndarray, name: str) -> np.ndarray:
    """Return the affine, or raise GeometryError where it is not finite, has no size or is flat."""
    affine = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        raise GeometryError(
            f"{name}: the geometry holds NaN or infinity; expected finite spacing, direction and "
            "origin in mm; repair the header or export again"
        )
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing_mm.min() <= 0:
        shown = " x ".join(f"{size:g}" for size in spacing_mm)
        raise GeometryError(
            f"{name}: voxel spacing is {shown} mm; expected more than zero along each axis; "
            "repair the header or export again"
        )
    if abs(np.linalg.det(affine[:3, :3] / spacing_mm)) < _FLATTEST:
        raise GeometryError(
            f"{name}: the three axes lie in one plane; expected axes that span space; "
            "repair the header or export again"
        )
    # Minus zeros say nothing, and would make the digests of equal geometries differ.
    return affine + 0.0
