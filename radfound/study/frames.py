"""Cut a study into frames: the slices and views that the model takes, with their positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from radfound.exceptions import RequestError
from radfound.study.intensity import apply_window, percentile_range, scale_between
from radfound.study.region import Box, Plane
from radfound.study.slices import (
    Slice,
    box_crop,
    evenly,
    oriented_slice,
    plane_slice,
    slicing_axis,
)
from radfound.study.study import Study, StudyImage

PLANES = ("unknown", "axial", "coronal", "sagittal", "oblique")
VIEWS = ("unknown", "PA", "AP", "LATERAL", "L CC", "R CC", "L MLO", "R MLO", "other")


@dataclass(frozen=True)
class FrameConfig:
    """Settings of `make_frames`; saved with the checkpoint.

    Parameters
    ----------
    image_size : int
        Side of a frame in pixels.
    max_frames : int
        Frame budget of a study.
    windows_hu : tuple of three (centre, width) pairs in HU
        The three channels of a CT frame: wide, soft tissue, lung.
    percentiles : (float, float)
        Percentiles mapped to 0 and 1, for all images except CT in HU.
    """

    image_size: int = 256
    max_frames: int = 16
    windows_hu: tuple[tuple[float, float], ...] = ((200.0, 1600.0), (40.0, 400.0), (-600.0, 1500.0))
    percentiles: tuple[float, float] = (0.5, 99.5)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "windows_hu", tuple((float(c), float(w)) for c, w in self.windows_hu)
        )
        object.__setattr__(self, "percentiles", tuple(map(float, self.percentiles)))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class FrameSource:
    """Geometry of a frame, to map evidence back to the volume.

    Parameters
    ----------
    image : int
        Index into `Study.images`.
    pixel_to_ras : float64 array, shape (4, 4)
        Maps (column, row, 0, 1) of the frame, in pixels, to RAS in mm.
    shown : (int, int, int, int)
        Extent of the image in the frame, as (first column, first row, end column, end row); the rest is
        black border.
    """

    image: int
    pixel_to_ras: np.ndarray
    shown: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames of one study.

    Parameters
    ----------
    pixels : float32 tensor, shape (F, 3, S, S), in [0, 1]
    positions_mm : float32 tensor, shape (F, 3)
        Frame centres in RAS, relative to the centre of all frames.
    planes, views : int64 tensors, shape (F,)
        Indices into `PLANES` and `VIEWS`.
    sources : tuple of FrameSource
    """

    pixels: torch.Tensor
    positions_mm: torch.Tensor
    planes: torch.Tensor
    views: torch.Tensor
    sources: tuple[FrameSource, ...] = field(default=())

    def __len__(self) -> int:
        return self.pixels.shape[0]


def make_frames(study: Study, config: FrameConfig, region: Box | Plane | None = None) -> Frames:
    """Cut a study into at most `config.max_frames` frames in radiological display orientation.

    Parameters
    ----------
    study : Study
    config : FrameConfig
    region : Box or Plane, optional
        A box keeps the slices that cross it, cropped to it; a plane gives one slice.

    Returns
    -------
    Frames
        A 2D image gives one frame; volumes share the budget and give evenly spaced slices.

    Raises
    ------
    RequestError
        If the region misses the study, or there are more images than frames.
    """
    if len(study.images) > config.max_frames:
        raise RequestError(
            f"images: the study has {len(study.images)}; the model reads at most {config.max_frames}; choose fewer"
        )
    budget = config.max_frames // len(study.images)
    pixels, sources, planes, views = [], [], [], []
    for index, image in enumerate(study.images):
        scale = _intensity_scale(image, config)
        for piece in _slices(image, budget, region):
            frame, pixel_to_slice, shown = _letterbox(
                scale(piece.grey), piece.pixel_aspect, config.image_size
            )
            pixels.append(frame)
            sources.append(FrameSource(index, piece.to_ras @ pixel_to_slice, shown))
            planes.append(
                PLANES.index(piece.plane if image.calibrated and image.is_volume else "unknown")
            )
            views.append(_view_index(image.view))
    if not pixels:
        raise RequestError("region: outside the study; move it or ask about the whole volume")
    middle = np.array([(config.image_size - 1) / 2, (config.image_size - 1) / 2, 0.0, 1.0])
    centres = np.stack([(source.pixel_to_ras @ middle)[:3] for source in sources])
    return Frames(
        pixels=torch.stack(pixels),
        positions_mm=torch.from_numpy((centres - centres.mean(0)).astype(np.float32)),
        planes=torch.tensor(planes),
        views=torch.tensor(views),
        sources=tuple(sources),
    )


def _view_index(view: str | None) -> int:
    if not view:
        return 0
    return VIEWS.index(view) if view in VIEWS else VIEWS.index("other")


def _intensity_scale(image: StudyImage, config: FrameConfig) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from stored values (h, w) to channels (3, h, w) in [0, 1]."""
    if image.hounsfield:
        return lambda grey: np.stack([apply_window(grey, c, w) for c, w in config.windows_hu])
    bottom, top = percentile_range(image.voxels, *config.percentiles)
    return lambda grey: np.repeat(scale_between(grey, bottom, top)[None], 3, axis=0)


def _slices(image: StudyImage, budget: int, region: Box | Plane | None) -> Iterator[Slice]:
    if not image.is_volume:
        yield Slice(image.voxels[0], image.affine, "unknown")
    elif region is None:
        axis = slicing_axis(image)
        depth = image.voxels.shape[2 - axis]
        for index in evenly(0, depth, budget):
            yield oriented_slice(image, axis, index)
    elif isinstance(region, Box):
        yield from _box_slices(image, budget, np.asarray(region.box_mm))
    else:
        plane = region.slice_mm
        piece = plane_slice(image, np.asarray(plane.point), np.asarray(plane.normal))
        if piece is not None:
            yield piece


def _box_slices(image: StudyImage, budget: int, box: np.ndarray) -> Iterator[Slice]:
    crop = box_crop(image, box)
    if crop is None:
        return
    axis = slicing_axis(image)
    low, high = crop[axis]
    for index in evenly(int(low), int(high) + 1, budget):
        yield oriented_slice(image, axis, index, crop)


def _letterbox(
    channels: np.ndarray, aspect: float, size: int
) -> tuple[torch.Tensor, np.ndarray, tuple[int, int, int, int]]:
    """Fit (3, h, w) into (3, size, size), square pixels, black borders.

    Returns
    -------
    frame : float32 tensor, shape (3, size, size)
    pixel_to_slice : float64 array, shape (4, 4)
        Maps (column, row, 0, 1) of the frame to (column, row, 0, 1) of the slice.
    shown : (int, int, int, int)
        As in `FrameSource`.
    """
    height, width = channels.shape[1:]
    scale = size / max(height * aspect, width)
    new_height = min(size, max(1, round(height * aspect * scale)))
    new_width = min(size, max(1, round(width * scale)))
    resized = F.interpolate(
        torch.from_numpy(np.ascontiguousarray(channels, dtype=np.float32))[None],
        size=(new_height, new_width),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )[0]
    top, left = (size - new_height) // 2, (size - new_width) // 2
    frame = F.pad(resized, (left, size - new_width - left, top, size - new_height - top))
    to_slice = np.eye(4)
    to_slice[0, 0], to_slice[1, 1] = width / new_width, height / new_height
    to_slice[0, 3] = (0.5 - left) * to_slice[0, 0] - 0.5
    to_slice[1, 3] = (0.5 - top) * to_slice[1, 1] - 0.5
    return frame.clamp_(0.0, 1.0), to_slice, (left, top, left + new_width, top + new_height)
