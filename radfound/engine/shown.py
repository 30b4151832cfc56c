"""What a model is shown of a study: pictures and words, in order.

A recipe (`radfound.engine.recipes`) makes it; a backend only carries it to its model.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture given to a model.

    Parameters
    ----------
    pixels : uint8 array, shape (H, W, 3)
    caption : str
        What it is, for people: "axial slice 41 of 300, windows -1024..1024, -135..215, 0..80 HU".
    image : int
        Index into `Study.images`.
    slice : int or None
        Stored slice, from 0; None for a 2D image, a montage or a resampled plane.
    """

    pixels: np.ndarray
    caption: str
    image: int
    slice: int | None = None


@dataclass(frozen=True, eq=False)
class Shown:
    """A prompt with its pictures, as one user turn.

    Parameters
    ----------
    recipe : str
        Name of the recipe.
    parts : tuple of str or Picture
        The study, in the order of the prompt; the question and its history come after it.
    system : str or None
        System prompt.
    note : str or None
        What was left out, for people: "85 of 300 slices".
    """

    recipe: str
    parts: tuple[str | Picture, ...]
    system: str | None = None
    note: str | None = None

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures alone, in order."""
        return tuple(part for part in self.parts if isinstance(part, Picture))

    def to_json(self) -> dict[str, Any]:
        """Return everything but the pixels as JSON types; a picture has its number for `png`."""
        parts: list[str | dict[str, Any]] = []
        number = 0
        for part in self.parts:
            if isinstance(part, str):
                parts.append(part)
                continue
            height, width = part.pixels.shape[:2]
            parts.append(
                {
                    "picture": number,
                    "caption": part.caption,
                    "image": part.image,
                    "slice": part.slice,
                    "size": [width, height],
                }
            )
            number += 1
        return {"recipe": self.recipe, "system": self.system, "note": self.note, "parts": parts}

    def png(self, number: int) -> bytes:
        """Return a picture, counted from 0, as a PNG file."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(self.pictures[number].pixels).save(file, "PNG", compress_level=1)
        return file.getvalue()
