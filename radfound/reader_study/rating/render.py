"""Render a study for the browser: slices of grey values in display orientation, and windows.

The browser applies the window itself, so that windowing needs no request.
"""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from cachetools import LRUCache

from radfound.exceptions import NotFoundError
from radfound.reader_study.design.plan import Case, Plan
from radfound.reading import read_study
from radfound.study.intensity import percentile_range
from radfound.study.slices import Slice, oriented_slice, slicing_axis
from radfound.study.study import Study, StudyImage

CT_WINDOWS_HU = {
    "Soft tissue": (40.0, 400.0),
    "Lung": (-600.0, 1500.0),
    "Bone": (450.0, 1800.0),
    "Brain": (40.0, 80.0),
}
"""Name to (centre, width), HU."""

_CROSS_SECTIONAL = ("CT", "MR", "PT", "NM")
_FEWEST_SLICES = 32  # thinner stacks are not shown in other planes
_MARGIN = 8.0  # grey values stay distinct this far beyond the usual window, in window widths
_CACHE_BYTES = 2 << 30


@dataclass(frozen=True)
class Levels:
    """Mapping of encoded levels to grey values: value = intercept + slope * level.

    Parameters
    ----------
    dtype : {"uint8", "uint16"}
        Type of the levels; little-endian.
    slope, intercept : float
    """

    dtype: str
    slope: float
    intercept: float

    @classmethod
    def of(cls, voxels: np.ndarray) -> Levels:
        """Choose levels that are exact for integers with a range up to 65535, and fine for other values.

        In the latter case far outliers, such as metal and faulty pixels, are clipped.
        """
        low, high = float(voxels.min()), float(voxels.max())
        if voxels.dtype.kind in "iub" and high - low <= 65535:
            return cls("uint8" if high - low <= 255 else "uint16", 1.0, low)
        bottom, top = percentile_range(voxels)
        low = max(low, bottom - _MARGIN * (top - bottom))
        high = min(high, top + _MARGIN * (top - bottom))
        return cls("uint16", (high - low) / 65535 or 1.0, low)

    def encode(self, grey: np.ndarray) -> bytes:
        """Return the levels of grey values, row by row."""
        dtype = np.dtype(self.dtype).newbyteorder("<")
        if grey.dtype.kind in "iub" and self.slope == 1.0:  # integers in range
            return (grey.astype(np.int64) - int(self.intercept)).astype(dtype).tobytes()
        scaled = (grey.astype(np.float64) - self.intercept) / self.slope
        return np.clip(np.rint(scaled), 0, np.iinfo(dtype).max).astype(dtype).tobytes()


@dataclass(frozen=True, eq=False)
class Picture:
    """One image of a study, prepared for display.

    Parameters
    ----------
    image : StudyImage
    label : str
        Label among several images; the view, if known.
    """

    image: StudyImage
    label: str = ""

    @cached_property
    def levels(self) -> Levels:
        """The encoding of the grey values."""
        return Levels.of(self.image.voxels)

    @property
    def is_cross_sectional(self) -> bool:
        """Whether the axes are in patient space, so that planes and sides can be named."""
        modality = self.image.modality
        of_known_kind = modality in _CROSS_SECTIONAL or (modality is None and self.image.is_volume)
        return self.image.calibrated and of_known_kind

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """The voxel axes along which slices can be scrolled, the default first."""
        if not (self.image.is_volume and self.is_cross_sectional):
            return (2,)
        first = slicing_axis(self.image)
        others = [axis for axis in (2, 1, 0) if axis != first]
        return (first, *others) if self._depth(first) >= _FEWEST_SLICES else (first,)

    def slice(self, axis: int, position: int) -> Slice:
        """Return one slice in display orientation.

        Positions run from the head to the feet, from the front to the back and from the patient's right to the
        left; in stored order if the patient axes are unknown.

        Raises
        ------
        NotFoundError
            If the axis or position does not exist.
        """
        if axis not in self.axes or not 0 <= position < self._depth(axis):
            raise NotFoundError("no such slice")
        index = self._depth(axis) - 1 - position if self._is_backwards(axis) else position
        return oriented_slice(self.image, axis, index)

    def encoded_slice(self, axis: int, position: int) -> bytes:
        """Return the levels of a slice, row by row, gzipped."""
        return gzip.compress(self.levels.encode(self.slice(axis, position).grey), 1, mtime=0)

    def to_json(self) -> dict[str, Any]:
        """Return the data for display in the browser, without the levels."""
        return {
            "label": self.label,
            "unit": "HU" if self.image.hounsfield else "",
            "levels": vars(self.levels),
            "windows": self._windows(),
            "stacks": [self._stack(axis) for axis in self.axes],
        }

    def _depth(self, axis: int) -> int:
        return self.image.voxels.shape[2 - axis]

    def _is_backwards(self, axis: int) -> bool:
        step = self.image.affine[:3, axis]
        return self.is_cross_sectional and bool(step[np.argmax(np.abs(step))] > 0)

    def _windows(self) -> list[dict[str, Any]]:
        """Return named windows, the default first."""
        if self.image.hounsfield:
            is_head = any(
                word in (self.image.body_part or "") for word in ("head", "brain", "skull")
            )
            first = "Brain" if is_head else "Soft tissue"
            names = sorted(CT_WINDOWS_HU, key=lambda name: name != first)
            return [_window(name, *CT_WINDOWS_HU[name]) for name in names]
        voxels = self.image.voxels
        usual = _window_between("Usual", *percentile_range(voxels))
        full = _window_between("Full range", float(voxels.min()), float(voxels.max()))
        was_windowed = voxels.dtype == np.uint8 and not self.image.calibrated
        return [full, usual] if was_windowed else [usual, full]

    def _stack(self, axis: int) -> dict[str, Any]:
        piece = self.slice(axis, 0)
        rows, columns = piece.grey.shape
        return {
            "axis": axis,
            "plane": piece.plane if self.is_cross_sectional else "",
            "columns": columns,
            "rows": rows,
            "depth": self._depth(axis),
            "pixel_aspect": piece.pixel_aspect,
            "column_mm": float(np.linalg.norm(piece.to_ras[:3, 0]))
            if self.image.calibrated
            else None,
            "sides": _sides(piece) if self.is_cross_sectional else None,
        }


def _window(name: str, center: float, width: float) -> dict[str, Any]:
    return {"name": name, "center": center, "width": width}


def _window_between(name: str, low: float, high: float) -> dict[str, Any]:
    return _window(name, (low + high) / 2, (high - low) or 1.0)


def _sides(piece: Slice) -> dict[str, str]:
    """Return the letters of the patient's sides at the four edges of a slice."""
    left, right = _side_letters(piece.to_ras[:3, 0])
    top, bottom = _side_letters(piece.to_ras[:3, 1])
    return {"left": left, "right": right, "top": top, "bottom": bottom}


def _side_letters(step: np.ndarray) -> tuple[str, str]:
    """Return the letters at the start and end of a direction in RAS."""
    axis = int(np.argmax(np.abs(step)))
    negative, positive = (("L", "R"), ("P", "A"), ("I", "S"))[axis]
    return (negative, positive) if step[axis] > 0 else (positive, negative)


def pictures_of(study: Study) -> tuple[Picture, ...]:
    """Return the images of a study, in its order."""
    alone = len(study.images) == 1
    return tuple(
        Picture(image, image.view or ("" if alone else f"Image {number}"))
        for number, image in enumerate(study.images, 1)
    )


class CaseCache:
    """A cache of loaded cases, least recently used out first; thread-safe.

    Parameters
    ----------
    plan : Plan
    max_bytes : int
        Maximum size of voxels; the case used last always stays.
    """

    def __init__(self, plan: Plan, max_bytes: int = _CACHE_BYTES):
        self._plan = plan
        # A case that is larger than the limit takes all of it.
        self._cases: LRUCache[str, tuple[Picture, ...]] = LRUCache(
            max_bytes, lambda pictures: min(max_bytes, _bytes_of(pictures))
        )
        self._locks = {case.id: threading.Lock() for case in plan.cases}
        self._lock = threading.Lock()

    def pictures(self, case: Case) -> tuple[Picture, ...]:
        """Return a case's images; raises the errors of `radfound.reading.read_study`."""
        with self._locks[case.id]:  # concurrent requests load a case once
            with self._lock:
                if case.id in self._cases:
                    return self._cases[case.id]
            study = read_study(self._plan.paths(case), series=case.series, volume=case.volume)
            pictures = pictures_of(study)
            with self._lock:
                self._cases[case.id] = pictures
            return pictures


def _bytes_of(pictures: tuple[Picture, ...]) -> int:
    return sum(each.image.voxels.nbytes for each in pictures)
