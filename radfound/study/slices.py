"""Slices of a volume in radiological display orientation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from radfound.study.study import StudyImage

# For each plane, the directions (RAS axis and sign) of increasing row and column in radiological display:
# an axial slice has anterior at the top and the patient's right on the left.
DISPLAY = {
    "axial": ((1, -1), (0, -1)),
    "coronal": ((2, -1), (0, -1)),
    "sagittal": ((2, -1), (1, -1)),
}
_OBLIQUE_BELOW = 0.85  # cosine between slice normal and the nearest patient axis


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice in display orientation.

    Parameters
    ----------
    grey : array, shape (rows, columns)
        Stored values.
    to_ras : float64 array, shape (4, 4)
        Maps (column, row, 0, 1) of `grey` to RAS in mm.
    plane : {"axial", "coronal", "sagittal", "oblique", "unknown"}
    """

    grey: np.ndarray
    to_ras: np.ndarray
    plane: str

    @property
    def pixel_aspect(self) -> float:
        """Height of a pixel over its width, in mm."""
        return float(np.linalg.norm(self.to_ras[:3, 1]) / np.linalg.norm(self.to_ras[:3, 0]))


def slicing_axis(image: StudyImage) -> int:
    """Return the voxel axis (0, 1, 2 for i, j, k) along which a volume is sliced.

    The axis of largest spacing if the volume is clearly anisotropic; otherwise the axis nearest to the
    patient's long axis, which gives axial slices.
    """
    spacing = image.spacing_mm
    thickest = int(np.argmax(spacing))
    if spacing[thickest] > 1.3 * np.median(spacing):
        return thickest
    return int(np.argmax(np.abs(image.affine[2, :3]) / spacing))


def oriented_slice(
    image: StudyImage, axis: int, index: int, crop: np.ndarray | None = None
) -> Slice:
    """Return one slice in display orientation.

    Parameters
    ----------
    image : StudyImage
    axis : int
        Voxel axis perpendicular to the slice: 0, 1, 2 for i, j, k.
    index : int
        Index of the slice along the axis.
    crop : int array, shape (3, 2), optional
        First and last index to keep on each voxel axis.

    Returns
    -------
    Slice
        Its grey values are a view of the voxels.
    """
    directions = image.affine[:3, :3] / image.spacing_mm
    normal = directions[:, axis]
    nearest = int(np.argmax(np.abs(normal)))
    plane = ("sagittal", "coronal", "axial")[nearest]
    (row_axis, row_sign), (column_axis, column_sign) = DISPLAY[plane]
    in_plane = [a for a in range(3) if a != axis]
    along_column_axis = [abs(directions[column_axis, a]) for a in in_plane]
    columns = in_plane[int(np.argmax(along_column_axis))]
    rows = in_plane[0] if columns == in_plane[1] else in_plane[1]

    low, high = (
        (np.zeros(3, int), np.array(image.voxels.shape[::-1]))
        if crop is None
        else (crop[:, 0], crop[:, 1] + 1)
    )
    take: list[slice | int] = [slice(low[a], high[a]) for a in (2, 1, 0)]
    take[2 - axis] = index
    grey = image.voxels[tuple(take)]
    if rows < columns:  # numpy keeps the slower voxel axis first: k before j before i
        grey = grey.T

    to_ras = np.zeros((4, 4))
    to_ras[3, 3] = 1.0
    origin = np.array(low, dtype=float)
    origin[axis] = index
    for slot, (voxel_axis, ras_axis, sign) in enumerate(
        ((columns, column_axis, column_sign), (rows, row_axis, row_sign))
    ):
        step = image.affine[:3, voxel_axis]
        if step[ras_axis] * sign < 0:
            grey = np.flip(grey, axis=1 - slot)
            origin[voxel_axis] = high[voxel_axis] - 1
            step = -step
        to_ras[:3, slot] = step
    to_ras[:3, 2] = image.affine[:3, axis]
    to_ras[:3, 3] = image.affine[:3, :3] @ origin + image.affine[:3, 3]
    return Slice(grey, to_ras, plane if abs(normal[nearest]) >= _OBLIQUE_BELOW else "oblique")
