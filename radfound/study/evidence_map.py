"""Evidence maps: values of patches, mapped back to the voxels of the images; imports no torch."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radfound.exceptions import StorageError
from radfound.study.study import Study, StudyImage

if TYPE_CHECKING:
    from radfound.study.frames import FrameSource

HIGHEST = 255


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence maps of an answer, one for each image of the study.

    Parameters
    ----------
    maps : tuple of uint8 array, shape (D, H, W)
        On the voxels of the images; 255 is the highest value in the study. Voxels outside all frames are 0.
    affines : tuple of float64 array, shape (4, 4)
        Those of the images.
    patches : float32 array, shape (F, N, N)
        The value of each patch of each frame, before interpolation.
    sources : tuple of FrameSource, F of them
    """

    maps: tuple[np.ndarray, ...]
    affines: tuple[np.ndarray, ...]
    patches: np.ndarray
    sources: tuple[FrameSource, ...]

    def nrrd(self, image: int = 0) -> bytes:
        """Return the map of an image as an NRRD file."""
        return nrrd_bytes(self.maps[image], self.affines[image])

    def write(self, path: str | Path) -> list[Path]:
        """Write the first map to `path`, the second to NAME_2.nrrd beside it, and so on."""
        path = Path(path)
        paths = [path] + [
            path.with_name(f"{path.stem}_{number}{path.suffix}")
            for number in range(2, len(self.maps) + 1)
        ]
        for map_path, values, affine in zip(paths, self.maps, self.affines, strict=True):
            write_nrrd(map_path, values, affine)
        return paths


def lay_back(
    patches: np.ndarray, sources: Sequence[FrameSource], image_size: int, study: Study
) -> tuple[np.ndarray, ...]:
    """Map values of patches back to the voxels of a study.

    Values are interpolated linearly between patch centres and between the slices of the frames. Voxels
    outside all frames are 0.

    Parameters
    ----------
    patches : float array, shape (F, N, N), not negative
        For each frame, rows from the top, columns from the left.
    sources : sequence of FrameSource, F of them
        As `radfound.study.frames.make_frames` returns them.
    image_size : int
        Side of a frame in pixels.
    study : Study
        The study of the frames.

    Returns
    -------
    tuple of uint8 array, shape (D, H, W)
        One map for each image, on its voxels; the highest value in the study maps to `HIGHEST`.
    """
    patches = np.where(_shows_something(sources, patches.shape[-1], image_size), patches, 0.0)
    patches = patches.astype(np.float32) / (float(patches.max()) or 1.0)
    maps = []
    for index, image in enumerate(study.images):
        own = [number for number, source in enumerate(sources) if source.image == index]
        if own:
            placed = _PlacedFrames(
                patches[own], [sources[number] for number in own], image_size, image
            )
            maps.append(placed.over_image())
        else:
            maps.append(np.zeros(image.voxels.shape, np.uint8))
    return tuple(maps)


def write_nrrd(path: str | Path, values: np.ndarray, affine: np.ndarray) -> None:
    """Write values on voxels as a compressed NRRD file.

    Parameters
    ----------
    path : str or Path
        Ends in ".nrrd".
    values : array, shape (D, H, W)
    affine : float array, shape (4, 4)
        Maps (i, j, k, 1) to RAS in mm.

    Raises
    ------
    StorageError
        If the file cannot be written.
    """
    import SimpleITK as sitk

    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing_mm = np.linalg.norm(to_lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing_mm.tolist())
    image.SetDirection((to_lps[:3, :3] / spacing_mm).ravel().tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    try:
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
    except RuntimeError as error:
        raise StorageError(
            f"{Path(path).name}: cannot be written; check the permissions of its folder and the space on the disk"
        ) from error


def nrrd_bytes(values: np.ndarray, affine: np.ndarray) -> bytes:
    """Return the file of `write_nrrd` as bytes."""
    with tempfile.TemporaryDirectory(prefix="radfound-") as folder:
        path = Path(folder) / "map.nrrd"
        write_nrrd(path, values, affine)
        return path.read_bytes()


def _shows_something(sources: Sequence[FrameSource], count: int, image_size: int) -> np.ndarray:
    """Return which patches, shape (F, count, count), overlap the image rather than the black border."""
    edges = np.arange(count + 1) * (image_size / count)
    shown = np.array([source.shown for source in sources])[:, :, None]
    columns = (edges[1:] > shown[:, 0]) & (edges[:-1] < shown[:, 2])
    rows = (edges[1:] > shown[:, 1]) & (edges[:-1] < shown[:, 3])
    return rows[:, :, None] & columns[:, None, :]


class _PlacedFrames:
    """The frames of one image: parallel, ordered by depth."""

    def __init__(
        self,
        patches: np.ndarray,
        sources: Sequence[FrameSource],
        image_size: int,
        image: StudyImage,
    ):
        self._patches, self._shape = patches, image.voxels.shape
        self._patch_px = image_size / patches.shape[-1]
        self._shown = sources[0].shown
        from_ras = np.linalg.inv(sources[0].pixel_to_ras)
        # Maps (i, j, k, 1) to column, row and depth; depth is in slices.
        self._to_frame = from_ras @ image.affine
        self._depths = np.array([(from_ras @ source.pixel_to_ras)[2, 3] for source in sources])
        gap = float(np.diff(self._depths).mean()) if len(sources) > 1 else 0.0
        thickness = np.abs(self._to_frame[2, :3]).sum()
        self._reach = max(abs(gap), thickness) / 2 + 1e-6

    def over_image(self) -> np.ndarray:
        """Return the map on the image's voxels, uint8, shape (D, H, W)."""
        steps = np.abs(self._to_frame[:3, :3])
        axes = steps.argmax(1)
        aside = steps.sum(1) - steps.max(1)
        if sorted(axes) == [0, 1, 2] and np.all(aside * max(self._shape) < 0.1):
            return self._along_the_grid(axes)
        return self._across_the_grid()

    def _along_the_grid(self, axes: np.ndarray) -> np.ndarray:
        """Interpolate axis by axis; fast, for frames that are slices of voxels."""
        column, row, depth = (
            self._to_frame[a, axis] * np.arange(self._shape[2 - axis]) + self._to_frame[a, 3]
            for a, axis in enumerate(axes)
        )
        in_frame = self._row_weights(row) @ self._patches @ self._column_weights(column).T
        frames = in_frame.reshape(len(in_frame), -1)
        found = np.empty((len(depth), len(row), len(column)), np.uint8)
        for level, weights in zip(found, self._depth_weights(depth), strict=True):
            level[:] = _as_bytes((weights @ frames).reshape(level.shape))
        # `found` is indexed (depth, row, column); voxels are indexed by axis 2, 1, 0.
        order = [2 - int(axis) for axis in axes[::-1]]
        return np.ascontiguousarray(np.moveaxis(found, range(3), order))

    def _across_the_grid(self) -> np.ndarray:
        """Look up each voxel near the frame; for oblique planes."""
        from scipy.ndimage import map_coordinates

        found = np.zeros(self._shape, np.uint8)
        j, i = np.mgrid[0 : self._shape[1], 0 : self._shape[2]]
        left, top, right, bottom = (edge - 0.5 for edge in self._shown)
        for k, level in enumerate(found):
            ijk = np.stack([i, j, np.full_like(i, k), np.ones_like(i)]).reshape(4, -1)
            column, row, depth = (self._to_frame @ ijk)[:3]
            near = np.abs(depth - self._depths[0]) <= self._reach
            near &= (column >= left) & (column <= right) & (row >= top) & (row <= bottom)
            places = np.stack([self._in_patches(row[near]), self._in_patches(column[near])])
            level.ravel()[near] = _as_bytes(
                map_coordinates(self._patches[0], places, order=1, mode="nearest")
            )
        return found

    def _column_weights(self, columns: np.ndarray) -> np.ndarray:
        return self._pixel_weights(columns, self._shown[0], self._shown[2])

    def _row_weights(self, rows: np.ndarray) -> np.ndarray:
        return self._pixel_weights(rows, self._shown[1], self._shown[3])

    def _pixel_weights(self, pixels: np.ndarray, first: int, end: int) -> np.ndarray:
        weights = _linear_weights(self._in_patches(pixels), np.arange(self._patches.shape[-1]))
        weights[(pixels < first - 0.5) | (pixels > end - 0.5)] = 0.0
        return weights

    def _depth_weights(self, depths: np.ndarray) -> np.ndarray:
        weights = _linear_weights(depths, self._depths)
        low, high = self._depths.min() - self._reach, self._depths.max() + self._reach
        weights[(depths < low) | (depths > high)] = 0.0
        return weights

    def _in_patches(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels + 0.5) / self._patch_px - 0.5


def _linear_weights(places: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return linear interpolation weights, float32, shape (places, knots), constant beyond the ends."""
    identity = np.eye(len(knots))
    return np.stack([np.interp(places, knots, row) for row in identity], axis=1).astype(np.float32)


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0.0, 1.0) * HIGHEST).astype(np.uint8)
