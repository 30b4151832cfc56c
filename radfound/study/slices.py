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
    stored : int or None
        Index of the stored slice, that is along k; None for a slice across the stored ones.
    """

    grey: np.ndarray
    to_ras: np.ndarray
    plane: str
    stored: int | None = None

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
    if abs(normal[nearest]) < _OBLIQUE_BELOW:
        plane = "oblique"
    return Slice(grey, to_ras, plane, int(index) if axis == 2 else None)


def evenly(start: int, stop: int, count: int) -> list[int]:
    """Return at most `count` evenly spaced integers in [start, stop), each in the middle of its share."""
    count = min(count, stop - start)
    return [start + int((n + 0.5) * (stop - start) / count) for n in range(count)]


def box_crop(image: StudyImage, box_mm: np.ndarray) -> np.ndarray | None:
    """Return the voxels that a box covers, or None if it misses the volume.

    Parameters
    ----------
    image : StudyImage
    box_mm : float array, shape (2, 3)
        Two opposite corners in mm, RAS.

    Returns
    -------
    int array, shape (3, 2), or None
        First and last index on each voxel axis, as `oriented_slice` takes it.
    """
    corners = np.array(
        [
            [box_mm[a, 0], box_mm[b, 1], box_mm[c, 2], 1.0]
            for a in (0, 1)
            for b in (0, 1)
            for c in (0, 1)
        ]
    )
    indices = (np.linalg.inv(image.affine) @ corners.T)[:3]
    size = np.array(image.voxels.shape[::-1])
    low = np.maximum(np.floor(indices.min(1)).astype(int), 0)
    high = np.minimum(np.ceil(indices.max(1)).astype(int), size - 1)
    return None if np.any(low > high) else np.stack([low, high], axis=1)


def plane_slice(image: StudyImage, point: np.ndarray, normal: np.ndarray) -> Slice | None:
    """Cut a volume by a plane.

    Parameters
    ----------
    image : StudyImage
    point, normal : float array, shape (3,)
        A point of the plane in mm, RAS, and a vector perpendicular to it.

    Returns
    -------
    Slice or None
        A slice of voxels where the plane runs along the grid, otherwise a resampled one; None if the point
        is outside the volume.
    """
    normal = normal / np.linalg.norm(normal)
    directions = image.affine[:3, :3] / image.spacing_mm
    along = np.abs(directions.T @ normal)
    axis = int(np.argmax(along))
    size = np.array(image.voxels.shape[::-1])
    index = np.linalg.inv(image.affine) @ np.append(point, 1.0)
    if np.any(index[:3] < -0.5) or np.any(index[:3] > size - 0.5):
        return None
    if along[axis] > 0.999:
        return oriented_slice(image, axis, int(np.clip(round(index[axis]), 0, size[axis] - 1)))
    return _resliced(image, point, normal)


def _resliced(image: StudyImage, point: np.ndarray, normal: np.ndarray) -> Slice:
    from scipy.ndimage import map_coordinates

    nearest = int(np.argmax(np.abs(normal)))
    (row_axis, row_sign), (column_axis, column_sign) = DISPLAY[
        ("sagittal", "coronal", "axial")[nearest]
    ]
    right = np.zeros(3)
    right[column_axis] = column_sign
    right -= normal * (right @ normal)
    right /= np.linalg.norm(right)
    down = np.cross(normal, right)
    down /= np.linalg.norm(down)
    if down[row_axis] * row_sign < 0:
        down = -down
    size = np.array(image.voxels.shape[::-1])
    centre = image.affine[:3, :3] @ ((size - 1) / 2) + image.affine[:3, 3]
    centre = centre - normal * ((centre - point) @ normal)
    step = float(image.spacing_mm.min())
    half = int(np.ceil(np.linalg.norm(size * image.spacing_mm) / 2 / step))
    to_ras = np.eye(4)
    to_ras[:3, 0], to_ras[:3, 1], to_ras[:3, 2] = right * step, down * step, normal * step
    to_ras[:3, 3] = centre - half * step * (right + down)
    rows, columns = np.mgrid[0 : 2 * half + 1, 0 : 2 * half + 1]
    grid = np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)]).reshape(4, -1)
    ijk = (np.linalg.inv(image.affine) @ to_ras @ grid)[:3]
    grey = map_coordinates(
        image.voxels, ijk[::-1], output=np.float32, order=1, cval=float(image.voxels.min())
    )
    return Slice(grey.reshape(rows.shape), to_ras, "oblique")
