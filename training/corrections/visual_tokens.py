"""Visual tokens of the studies to learn from: the frozen encoder reads each once, and they are kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from radfound.engine.local.model import LocalModel
from radfound.records.durable import make_directory, replacing
from radfound.study.region import Box, Plane, region_key
from radfound.study.study import Study

logger = logging.getLogger(__name__)

_END = ".safetensors"


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
        self._folder = folder if version else None
        self._max_bytes = max_bytes
        self.encoded = 0

    def of(self, images: Sequence[str], region: Box | Plane | None) -> torch.Tensor:
        """Return the visual tokens, shape (1, T, width); raises RadFoundError if a study cannot be read."""
        kept = self._kept(images, region)
        if kept is not None and (known := _load(kept)) is not None:
            return known.to(self._base.model.device)
        parts = [self._read(image) for image in images]
        study = Study(tuple(image for part in parts for image in part.images))
        tokens = self._base.encode(study, region)
        self.encoded += 1
        if kept is not None:
            self._keep(kept, tokens)
        return tokens

    def _kept(self, images: Sequence[str], region: Box | Plane | None) -> Path | None:
        if self._folder is None or self._version is None:
            return None
        versions = [(image, self._version(image)) for image in images]
        what = json.dumps([self._base.name, self._base.revision, versions, region_key(region)])
        return self._folder / (hashlib.sha256(what.encode()).hexdigest()[:32] + _END)

    def _keep(self, path: Path, tokens: torch.Tensor) -> None:
        """Keep tokens if that is possible; a full disk costs time at the next run, nothing else."""
        try:
            make_directory(path.parent)
            with replacing(path) as file:
                file.write(save({"visual": tokens.contiguous().cpu()}))
            self._trim(path.parent)
        except (OSError, SafetensorError) as error:
            logger.warning("visual tokens are not kept: %s", error)

    def _trim(self, folder: Path) -> None:
        files = sorted(folder.glob(f"*{_END}"), key=lambda file: file.stat().st_mtime_ns)
        total = sum(file.stat().st_size for file in files)
        for file in files[:-1]:
            if total <= self._max_bytes:
                return
            total -= file.stat().st_size
            file.unlink(missing_ok=True)


def _load(path: Path) -> torch.Tensor | None:
    """Return kept tokens, or None where there are none that can be read."""
    try:
        tokens = load_file(path)["visual"]
        os.utime(path)  # used just now
        return tokens
    except FileNotFoundError:
        return None
    except (OSError, KeyError, SafetensorError):
        logger.warning("%s: damaged, so the study is encoded again", path.name)
        path.unlink(missing_ok=True)
        return None
