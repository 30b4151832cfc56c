"""The processed pictures of the studies to learn from, kept on disk from run to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from radfound.engine.shown import Shown
from radfound.engine.transformers.backend import TransformersBackend
from radfound.engine.transformers.prompts import PicturesPart
from radfound.question import Question
from radfound.study.region import Box, Plane, region_key
from radfound.study.study import Study
from training.corrections.frozen.kept import Kept, key_of

_MOST_BYTES = 16 * 2**30  # pictures of some thousand studies


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
        Where to keep them, at most 16 GiB; None to keep none.
    """

    def __init__(
        self,
        backend: TransformersBackend,
        read: Callable[[str], Study],
        version: Callable[[str], str] | None = None,
        folder: Path | None = None,
    ):
        self._backend, self._read, self._version = backend, read, version
        self._kept = Kept(folder if version else None, "processed pictures", _MOST_BYTES)
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
        key = self._key(images, region)
        part = None if key is None else self._found(key)
        if part is None:
            part, _ = self._backend.prompts.pictures_part(shown, Question("caption"))
            self.processed += 1
            if key is not None:
                self._kept.put(key, part.inputs)
        return part, shown

    def _found(self, key: str) -> PicturesPart | None:
        inputs = self._kept.get(key)
        if inputs is None:
            return None
        if "input_ids" not in inputs:
            self._kept.drop(key)
            return None
        return PicturesPart(inputs, tuple(inputs["input_ids"][0].tolist()))

    def _key(self, images: Sequence[str], region: Box | Plane | None) -> str | None:
        if self._version is None:
            return None
        model = self._backend.describe()
        versions = [(image, self._version(image)) for image in images]
        return key_of(model.name, model.revision, model.recipe, versions, region_key(region))
