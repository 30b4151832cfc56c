"""A DICOM file as the other modules see it, its frames, and the tiles of a mosaic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from radfound.reading.dicom.elements import element
from radfound.reading.files import Source

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class ImageFile(Protocol):
    """The header of a DICOM file that holds an image; see `radfound.reading.dicom.header.DicomFile`."""

    @property
    def source(self) -> Source:
        """The file."""

    @property
    def header(self) -> Dataset:
        """The elements before the pixels."""

    @property
    def name(self) -> str:
        """The name for messages."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows and columns."""

    @property
    def modality(self) -> str | None:
        """The modality, as one of `radfound.study.taxonomy.MODALITIES`."""

    @property
    def instance_number(self) -> int:
        """The instance number; 0 if missing."""

    @property
    def thickness_mm(self) -> float:
        """The thickness of a single slice; 1 if unknown."""

    @property
    def body_part(self) -> str | None:
        """The body part examined, lower case."""

    @property
    def is_hounsfield(self) -> bool:
        """Whether the rescaled values are Hounsfield units."""

    @property
    def takes_rescale(self) -> bool:
        """Whether slope and intercept apply to the frames."""

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The frames."""

    @property
    def sheet(self) -> Sheet | None:
        """The tiles of a mosaic; None for other files."""

    def without_names(self, text: str) -> str:
        """Return the first 40 characters of a text; empty if it holds a part of the patient's name."""


@dataclass(frozen=True)
class Sheet:
    """Position of a Siemens mosaic's tiles in the sheet and in the patient.

    Parameters
    ----------
    tile_shape : (int, int)
        Rows and columns of a tile.
    positions_mm : array, shape (N, 3)
        Centre of the first pixel of each tile in use, LPS.
    directions : array, shape (2, 3)
    """

    tile_shape: tuple[int, int]
    positions_mm: np.ndarray
    directions: np.ndarray

    def unfold(self, picture: np.ndarray) -> np.ndarray:
        """Cut a sheet, shape (H, W), into its tiles, shape (N, h, w)."""
        rows, columns = self.tile_shape
        down, across = picture.shape[0] // rows, picture.shape[1] // columns
        tiles = picture.reshape(down, rows, across, columns).swapaxes(1, 2)
        return tiles.reshape(-1, rows, columns)[: len(self.positions_mm)]


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of one DICOM file, or one tile of a sheet.

    Parameters
    ----------
    file : ImageFile
    index : int
        Index of the frame in the file, or of the tile in its sheet.
    position_mm : array, shape (3,), or None
        Centre of the first pixel, LPS.
    directions : array, shape (2, 3), or None
        Unit vectors along a row (i grows) and along a column (j grows), LPS.
    spacing_mm : (float, float) or None
        Distance between neighbouring columns, and between neighbouring rows.
    slope, intercept : float
    groups : tuple of mappings
        Elements that apply to this frame and not to the whole file, most specific first.
    in_patient : bool
        Whether the position is in patient coordinates; False for the coordinates of a probe.
    """

    file: ImageFile
    index: int
    position_mm: Any
    directions: Any
    spacing_mm: tuple[float, float] | None
    slope: float
    intercept: float
    groups: tuple[Mapping, ...] = ()
    in_patient: bool = True

    @property
    def is_positioned(self) -> bool:
        """Whether position and orientation are known."""
        return self.position_mm is not None and self.directions is not None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        sheet = self.file.sheet
        return sheet.tile_shape if sheet else self.file.shape[1:]

    def find(self, *paths: str) -> Any:
        """Return the first element found in the frame's groups or the file's header, or None.

        Parameters
        ----------
        *paths : str
            Keywords, or paths through sequences: "MREchoSequence.EffectiveEchoTime". A damaged
            element counts as missing.
        """
        for path in paths:
            for group in (*self.groups, self.file.header):
                value = element(group, *path.split("."))
                if value is not None:
                    return value
        return None
