"""Affines to RAS in mm, built from headers and checked."""

from __future__ import annotations

import numpy as np

from radfound.exceptions import GeometryError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_FLATTEST = 1e-4


def ras_affine(columns_lps: np.ndarray, origin_lps: np.ndarray, name: str) -> np.ndarray:
    """Build an affine to RAS from axes and origin in LPS.

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
        If the axes do not span three dimensions.
    """
    affine = np.eye(4)
    affine[:3, :3] = columns_lps
    affine[:3, 3] = origin_lps
    return checked_affine(LPS_TO_RAS @ affine, name)


def flat_affine(column_mm: float = 1.0, row_mm: float = 1.0) -> np.ndarray:
    """Return the affine of an image without a position in the patient.

    Columns run to the left and rows to the back, as in ITK and 3D Slicer, so that a point marked in
    Slicer is the same pixel here.

    Parameters
    ----------
    column_mm, row_mm : float
        Distance between neighbouring columns, and between neighbouring rows.
    """
    return LPS_TO_RAS @ np.diag([column_mm, row_mm, 1.0, 1.0])


def checked_affine(affine: np.ndarray, name: str) -> np.ndarray:
    """Return the affine; raise GeometryError if it is not finite, has zero spacing or is singular."""
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
            f"{name}: the three axes lie in one plane; expected linearly independent axes; "
            "repair the header or export again"
        )
    # Replace -0.0, which would change the digest of an equal geometry.
    return affine + 0.0
