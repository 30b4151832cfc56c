"""The processed pictures of the studies to learn from, kept on disk from run to run."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from radfound.engine.shown import Shown
from radfound.engine.transformers.backend import TransformersBackend
from radfound.engine.transformers.prompts import PicturesPart
from radfound.question import Question
from radfound.records.durable import make_directory, replacing
from radfound.study.region import Box, Plane, region_key
from radfound.study.study import Study

logger = logging.getLogger(__name__)


class ProcessedPictures:
    """Prompts of studies up to their last picture, as the model's processor makes them.

    Parameters
    ----------
    backend : TransformersBackend
    read : callable
        From an image's id to its study.
    version : callable, optional
        From an image's id to a text that changes when its file does; without it nothing is kept.
    folder : Path, optional
        Where to keep them; None to keep none.
    """

    def __init__(
        self,
        backend: TransformersBackend,
        read: Callable[[str], Study],
        version: Callable[[str], str] | None = None,
        folder: Path | None = None,
    ):
        self._backend, self._read, self._version = backend, read, version
        self._folder = folder if version else None
        self.processed = 0

    def study(self, images: Sequence[str]) -> Study:
        """Return the study of some images; raises RadFoundError if one cannot be read."""
        parts = [self._read(image) for image in images]
        return Study(tuple(image for part in parts for image in part.images))

    def of(
        self, images: Sequence[str], region: Box | Plane | None, study: Study
    ) -> tuple[PicturesPart, Shown]:
        """Return the prompt up to the last picture, and what the model is shown."""
        shown = self._backend.recipe.show(study, Question("caption", region=region))
        path = self._path(images, region)
        part = None if path is None else _load(path)
        if part is None:
            part, _ = self._backend.prompts.pictures_part(shown, Question("caption"))
            self.processed += 1
            if path is not None:
                _keep(path, part)
        return part, shown

    def _path(self, images: Sequence[str], region: Box | Plane | None) -> Path | None:
        if self._folder is None or self._version is None:
            return None
        model = self._backend.describe()
        versions = [(image, self._version(image)) for image in images]
        what = json.dumps([model.name, model.revision, model.recipe, versions, region_key(region)])
        return self._folder / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.safetensors"


def _keep(path: Path, part: PicturesPart) -> None:
    """Keep the tensors if that is possible; a full disk costs time at the next run, nothing else."""
    try:
        make_directory(path.parent)
        with replacing(path) as file:
            file.write(save({name: value.contiguous() for name, value in part.inputs.items()}))
    except (OSError, SafetensorError) as error:
        logger.warning("processed pictures are not kept: %s", error)


def _load(path: Path) -> PicturesPart | None:
    try:
        inputs: dict[str, torch.Tensor] = load_file(path)
        return PicturesPart(inputs, tuple(inputs["input_ids"][0].tolist()))
    except FileNotFoundError:
        return None
    except (OSError, KeyError, SafetensorError):
        logger.warning("%s: damaged, so the study is processed again", path.name)
        path.unlink(missing_ok=True)
        return None
