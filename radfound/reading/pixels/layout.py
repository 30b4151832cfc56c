"""The layout of pixels by the header, decoded samples, and the errors of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

RGB_SPACES = {"RGB", "YBR_RCT", "YBR_ICT"}
YBR_SPACES = {"YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"}
_GREY_SPACES = {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"}


class UnsupportedPixels(Exception):
    """Intact pixel data that no decoder supports; the text says what was found and what to do."""


class TruncatedPixels(Exception):
    """Pixel data that end before the last pixel; the text says how much was found."""


@dataclass(frozen=True)
class Layout:
    """The storage of pixels according to the header.

    Parameters
    ----------
    frames, rows, columns, samples : int
    space : str
        Photometric interpretation.
    allocated, stored, high : int
        Bits Allocated, Bits Stored and High Bit.
    is_signed : bool
    by_plane : bool
        Whether samples are stored in planes: all red, then all green, then all blue ones.
    """

    frames: int
    rows: int
    columns: int
    samples: int
    space: str
    allocated: int
    stored: int
    high: int
    is_signed: bool
    by_plane: bool

    @classmethod
    def of(cls, dataset: Dataset) -> Layout:
        """Return the layout of a data set."""
        samples = int(dataset.get("SamplesPerPixel") or 1)
        allocated = int(dataset.get("BitsAllocated") or 0)
        stored = min(int(dataset.get("BitsStored") or allocated), allocated)
        high = int(dataset.get("HighBit") or stored - 1)
        usual_space = "RGB" if samples == 3 else "MONOCHROME2"
        layout = cls(
            frames=int(dataset.get("NumberOfFrames") or 1),
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            samples=samples,
            space=str(dataset.get("PhotometricInterpretation") or usual_space).strip().upper(),
            allocated=allocated,
            stored=stored,
            high=min(max(high, stored - 1), allocated - 1),
            is_signed=bool(dataset.get("PixelRepresentation")),
            by_plane=samples > 1 and bool(dataset.get("PlanarConfiguration")),
        )
        layout._check()
        return layout

    def _check(self) -> None:
        is_grey = self.space in _GREY_SPACES
        if not is_grey and self.space not in RGB_SPACES | YBR_SPACES:
            raise UnsupportedPixels(
                f"colour is stored as {self.space[:16]!r}, which is not supported; "
                "expected grey, a palette, RGB or YBR; convert it to RGB"
            )
        if self.samples != (1 if is_grey else 3):
            raise UnsupportedPixels(
                f"the header says {self.space} and {self.samples} sample(s) a pixel; "
                "expected 1 for grey and palettes, 3 for colour; export it again"
            )
        if self.allocated not in (1, 8, 12, 16, 32, 64):
            raise UnsupportedPixels(
                f"the header says {self.allocated} bits for a sample's cell; "
                "expected 1, 8, 12, 16, 32 or 64; export it again"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns


@dataclass(frozen=True)
class Samples:
    """Decoded pixels, possibly with overlay bits.

    Parameters
    ----------
    values : array, shape (frames, rows, columns, samples)
    space : str
        Photometric interpretation of `values`, which may differ from the header's.
    stored, high : int
        Bits Stored and High Bit; 0 and 0 for floats.
    is_signed : bool
    """

    values: np.ndarray
    space: str
    stored: int
    high: int
    is_signed: bool

    @classmethod
    def of(cls, layout: Layout, values: np.ndarray) -> Samples:
        """Build samples from values and the header's layout."""
        return cls(values, layout.space, layout.stored, layout.high, layout.is_signed)
