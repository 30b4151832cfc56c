"""Phantoms with lesions at known positions, and a question about the position of one lesion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import zoom

from radfound.reading.geometry import flat_affine
from radfound.study.study import Study, StudyImage

QUESTIONS = {"bright": "Where is the bright lesion?", "dark": "Where is the dark lesion?"}
KINDS = ("2D", "3D")
LETTERS = "ABCDEF"

# Depth, height and width in voxels, and their size in mm along i, j and k.
_SHAPES = {"2D": (1, 96, 96), "3D": (12, 48, 48)}
_SPACINGS_MM = {"2D": (1.0, 1.0, 1.0), "3D": (4.0, 4.0, 8.0)}
# Radius of the lesion as a share of the width. A patch of the pointing model is a sixth of the width; a ball
# of at least 0.71 patches around any point holds the centre of a patch.
_RADII = (0.125, 0.16)


@dataclass(frozen=True, eq=False)
class Phantom:
    """A study of one image with one target lesion.

    Parameters
    ----------
    study : Study
    question : str
        Asks for the position of the lesion.
    answer : str
        Column and row of the lesion in a grid of six by six, as displayed, and in 3D its level.
    lesion : bool array, shape (D, H, W)
    """

    study: Study
    question: str
    answer: str
    lesion: np.ndarray


def phantom(kind: str, seed: int, lesions: int = 1) -> Phantom:
    """Return a textured background with one lesion, bright or dark, or with one of each.

    Parameters
    ----------
    kind : {"2D", "3D"}
        One image of 96 by 96 pixels, or 12 slices of 48 by 48 voxels of 4 by 4 by 8 mm; each axis has a
        random direction.
    seed : int
    lesions : {1, 2}
        With two, one is the target and the other a distractor.
    """
    rng = np.random.default_rng((KINDS.index(kind), lesions, seed))
    shape = np.array(_SHAPES[kind])
    grey = 100 + 6 * _texture(rng, shape) + rng.normal(0, 4, shape)
    asked, other = rng.permutation(list(QUESTIONS))
    centres = _centres(rng, lesions, kind == "2D")
    masks = [_ball(kind, centre, 2 * rng.uniform(*_RADII)) for centre in centres]
    for mask, brightness in zip(masks, (asked, other), strict=False):
        grey[mask] += (1 if brightness == "bright" else -1) * rng.uniform(40, 70)
    affine, shown = flat_affine(), centres[0]
    if kind == "3D":
        signs = rng.choice([-1.0, 1.0], 3)
        affine = np.diag([*(signs * _SPACINGS_MM[kind]), 1.0])
        # Radiological display runs from head to feet, from front to back, and from right to left.
        shown = -(centres[0] * signs[::-1])
    image = StudyImage(np.clip(grey, 0, 255).astype(np.int16), affine, calibrated=kind == "3D")
    return Phantom(
        Study((image,), id=f"phantom-{kind}-{lesions}-{seed}"),
        QUESTIONS[asked],
        _in_words(kind, shown),
        masks[0],
    )


def _ball(kind: str, centre: np.ndarray, radius: float) -> np.ndarray:
    """Return a ball, isotropic in mm: bool, shape (D, H, W)."""
    depth, _, width = _SHAPES[kind]
    # Places run from -1 to 1 along each axis.
    places = np.meshgrid(*(_places(count) for count in _SHAPES[kind]), indexing="ij", sparse=True)
    k, j, i = (place - middle for place, middle in zip(places, centre, strict=True))
    long = 1.0 if kind == "2D" else depth * _SPACINGS_MM[kind][2] / (width * _SPACINGS_MM[kind][0])
    return i**2 + j**2 + (k * long) ** 2 <= radius**2


def _in_words(kind: str, shown: np.ndarray) -> str:
    """Return the cell of a displayed place (level, row, column)."""
    level, row, column = (int(np.clip((place + 0.6) // 0.2, 0, 5)) for place in shown)
    words = f"column {LETTERS[column]} row {row + 1}"
    return words if kind == "2D" else f"{words} level {level + 1}"


def _places(count: int) -> np.ndarray:
    """Return the centres of `count` equal parts of [-1, 1]."""
    return (2 * np.arange(count) + 1) / count - 1


def _centres(rng: np.random.Generator, count: int, is_flat: bool) -> np.ndarray:
    """Return centres (k, j, i), shape (count, 3), of lesions inside the image that do not touch."""
    while True:
        centres = rng.uniform(-0.6, 0.6, (count, 3))
        if is_flat:
            centres[:, 0] = 0.0
        across = centres[:, 1:]
        is_apart = count == 1 or np.hypot(*(across[0] - across[1])) > 0.7
        if is_apart and np.hypot(*across.T).max() < 0.6:
            return centres


def _texture(rng: np.random.Generator, shape: np.ndarray) -> np.ndarray:
    """Return smooth noise of variance near 1: blobs of about the size of a lesion."""
    coarse = rng.normal(0, 1, (max(1, shape[0] // 4), 9, 9))
    factors = shape / coarse.shape
    return zoom(coarse, factors, order=1, mode="nearest", grid_mode=True)
