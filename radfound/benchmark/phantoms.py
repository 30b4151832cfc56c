"""Phantoms with one lesion whose place is known, and the question where it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import zoom

from radfound.reading.geometry import flat_affine
from radfound.study import Study, StudyImage

WHERE = "Where is the lesion?"
KINDS = ("2D", "3D")
LETTERS = "ABCDEF"

# Depth, height and width in voxels, and their size in mm along i, j and k.
_SHAPES = {"2D": (1, 96, 96), "3D": (12, 48, 48)}
_SPACINGS_MM = {"2D": (1.0, 1.0, 1.0), "3D": (4.0, 4.0, 8.0)}
# Radius of the lesion as a share of the width: a patch of the pointing model is a sixth of the width, and
# a ball of at least 0.71 patches around any point holds the middle of some patch.
_RADII = (0.125, 0.16)


@dataclass(frozen=True, eq=False)
class Phantom:
    """A study of one image with one lesion.

    Parameters
    ----------
    study : Study
    lesion : bool array, shape (D, H, W)
    body : bool array, shape (D, H, W)
    where : str
        The true answer to `WHERE`.
    """

    study: Study
    lesion: np.ndarray
    body: np.ndarray
    where: str


def phantom(kind: str, seed: int) -> Phantom:
    """Make a body of uneven grey with one bright or dark lesion.

    Parameters
    ----------
    kind : {"2D", "3D"}
        One picture of 96 by 96 pixels, or 12 slices of 48 by 48 voxels of 4 by 4 by 8 mm, each axis of which
        may run either way through the patient.
    seed : int

    Returns
    -------
    Phantom
        `WHERE` is answered by column and row of a grid of six by six, and by level in 3D.
    """
    rng = np.random.default_rng((KINDS.index(kind), seed))
    shape = np.array(_SHAPES[kind])
    is_flat = kind == "2D"
    # Places run from -1 to 1 along each axis.
    k, j, i = np.meshgrid(*(_places(count) for count in shape), indexing="ij", sparse=True)
    semi = rng.uniform(0.8, 0.95, 2)
    body = np.broadcast_to((j / semi[0]) ** 2 + (i / semi[1]) ** 2 <= 1, shape)
    centre = _centre(rng, is_flat)
    radius = 2 * rng.uniform(*_RADII)
    stretch = 1.0 if is_flat else shape[0] * _SPACINGS_MM[kind][2] / (48 * 4.0)
    lesion = (i - centre[2]) ** 2 + (j - centre[1]) ** 2 + (
        (k - centre[0]) * stretch
    ) ** 2 <= radius**2
    texture = _texture(rng, shape)
    grey = np.where(body, 100 + 8 * texture, 10) + rng.normal(0, 4, shape)
    grey[lesion] += rng.choice([-1, 1]) * rng.uniform(35, 60)
    if is_flat:
        affine, shown = flat_affine(), centre
    else:
        signs = rng.choice([-1.0, 1.0], 3)
        affine = np.diag([*(signs * _SPACINGS_MM[kind]), 1.0])
        # A radiologist's display runs from the head down, from front to back, and from right to left.
        shown = -(centre * signs[::-1])
    level, row, column = (int(np.clip(np.floor((place + 0.6) / 0.2), 0, 5)) for place in shown)
    where = f"column {LETTERS[column]} row {row + 1}"
    if not is_flat:
        where += f" level {level + 1}"
    image = StudyImage(
        voxels=np.clip(grey, 0, 255).astype(np.int16), affine=affine, calibrated=not is_flat
    )
    return Phantom(
        Study((image,), id=f"phantom-{kind}-{seed}"),
        lesion,
        np.array(body),
        where,
    )


def _places(count: int) -> np.ndarray:
    """Return the middles of `count` equal parts of [-1, 1]."""
    return (2 * np.arange(count) + 1) / count - 1


def _centre(rng: np.random.Generator, is_flat: bool) -> np.ndarray:
    """Choose a lesion's place (k, j, i) inside the body."""
    while True:
        along, *across = rng.uniform(-0.6, 0.6, 3)
        if np.hypot(*across) < 0.6:
            return np.array([0.0 if is_flat else along, *across])


def _texture(rng: np.random.Generator, shape: np.ndarray) -> np.ndarray:
    """Return smooth noise of variance near 1: blobs of about a lesion's size."""
    coarse = rng.normal(0, 1, (max(1, shape[0] // 4), 9, 9))
    factors = shape / coarse.shape
    return zoom(coarse, factors, order=1, mode="nearest", grid_mode=True)
