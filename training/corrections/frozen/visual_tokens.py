"""Visual tokens of the studies to learn from: the frozen encoder reads each once, and they are kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch

from radfound.engine.local.model import LocalModel
from radfound.study.region import Box, Plane, region_key
from radfound.study.study import Study
from training.corrections.frozen.kept import Kept, key_of

VISUAL_TOKENS = "visual"
"""Name of the folder where they are kept."""


class TokenSource(Protocol):
    """Where the visual tokens of corrected studies come from."""

    def of(self, images: Sequence[str], region: Box | Plane | None) -> torch.Tensor:
        """Return the visual tokens, shape (1, T, width); raises RadFoundError if a study cannot be read."""


class VisualTokens:
    """What the vision encoder says of studies and regions of them.

    Parameters
    ----------
    base : LocalModel
    read : callable
        From an image's id to its study.
    version : callable, optional
        From an image's id to a text that changes when its file does; without it nothing is kept.
    folder : Path, optional
        Where to keep the tokens; None to keep none.
    max_bytes : int
        The folder holds no more; what was used longest ago goes first.
    """

    def __init__(
        self,
        base: LocalModel,
        read: Callable[[str], Study],
        version: Callable[[str], str] | None = None,
        folder: Path | None = None,
        max_bytes: int = 512 * 2**20,
    ):
        self._base, self._read, self._version = base, read, version
        self.kept = Kept(folder if version else None, "visual tokens", max_bytes)
        self.encoded = 0

    def of(self, images: Sequence[str], region: Box | Plane | None) -> torch.Tensor:
        """Return the visual tokens, shape (1, T, width); raises RadFoundError if a study cannot be read."""
        key = self._key(images, region)
        if key is not None and (found := self._found(key)) is not None:
            return found
        parts = [self._read(image) for image in images]
        study = Study(tuple(image for part in parts for image in part.images))
        tokens = self._base.encode(study, region)
        self.encoded += 1
        if key is not None:
            self.kept.put(key, {"visual": tokens})
        return tokens

    def _found(self, key: str) -> torch.Tensor | None:
        found = self.kept.get(key)
        if found is None:
            return None
        if found.keys() != {"visual"}:
            self.kept.drop(key)
            return None
        # Another run may have kept them in another precision.
        return found["visual"].to(self._base.model.device, self._base.model.dtype)

    def _key(self, images: Sequence[str], region: Box | Plane | None) -> str | None:
        if self._version is None:
            return None
        versions = [(image, self._version(image)) for image in images]
        return key_of(self._base.name, self._base.revision, versions, region_key(region))
