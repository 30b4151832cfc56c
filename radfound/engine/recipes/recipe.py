"""A recipe: how a study becomes pictures and words for one family of models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from radfound.engine.recipes.intensity import Greys, Intensity, Percentiles, Windows
from radfound.engine.recipes.pictures import fit, montage
from radfound.engine.recipes.sampling import middles
from radfound.engine.shown import Picture, Shown
from radfound.exceptions import RequestError
from radfound.question import Question, WorkedExample
from radfound.study.region import Box, Plane
from radfound.study.slices import Slice, box_crop, oriented_slice, plane_slice, slicing_axis
from radfound.study.study import Study, StudyImage

SOFT_TISSUE = Windows(((-160.0, 240.0),) * 3)
WIDE_SOFT_LUNG = Windows(((-600.0, 1000.0), (-160.0, 240.0), (-1350.0, 150.0)))
_FLATTEST = 3.0  # an axial slice across thicker slices than this shows too little
_MOST_TILES = 16
_EXAMPLE_SLICES = 4
_EXAMPLE_SHARE = 8  # part of the pixel budget that one worked example may take: an eighth


@dataclass(frozen=True)
class Recipe:
    """How a study is shown to one family of models.

    Parameters
    ----------
    name : str
    planes : {"axial", "acquired", "stored"}
        Slices of a volume: axial ones; those of its acquisition; or the stored ones as they lie in the
        file, columns along j, without turning them for display.
    max_slices : int
        Most slices in a study; volumes share them.
    slices : callable
        From (number of slices, most) to the indices that are shown.
    ct, other, image : Intensity
        Grey values of a CT in HU, of other volumes, and of 2D images.
    side : int or None
        The longer side of a picture; None keeps the size.
    square : bool
        Pad with black to a square.
    most_pixels : int or None
        Pixel budget of all pictures together, where the cost of a picture grows with its size.
    label : str or None
        Text beside each slice; {n} counts from 1.
    label_after : bool
        Whether the label follows its picture.
    instruction : str or None
        Text before the pictures of a volume.
    system : str or None
        System prompt.
    max_images : int
        Most images in a study.
    single : bool
        The model takes one picture: several slices or images become a montage.
    hidden : tuple of (str, str)
        Marks around text that is not part of the answer.
    hidden_tokens : int
        Most tokens of hidden text, besides those of the answer.
    processing : dict
        Options for the model's own processor.
    """

    name: str
    planes: Literal["axial", "acquired", "stored"] = "acquired"
    max_slices: int = 16
    slices: Callable[[int, int], list[int]] = middles
    ct: Intensity = WIDE_SOFT_LUNG
    other: Intensity = Percentiles()
    image: Intensity = Percentiles()
    side: int | None = None
    square: bool = False
    most_pixels: int | None = None
    label: str | None = "SLICE {n}"
    label_after: bool = False
    instruction: str | None = None
    system: str | None = None
    max_images: int = 8
    single: bool = False
    hidden: tuple[tuple[str, str], ...] = (("<think>", "</think>"),)
    hidden_tokens: int = 1024
    processing: dict[str, Any] = field(default_factory=dict, hash=False)

    def show(self, study: Study, question: Question) -> Shown:
        """Return what the model is shown of a study for a question.

        Parameters
        ----------
        study : Study
        question : Question
            Its region narrows the slices: a box keeps those that cross it, cropped; a plane is one slice. Its worked
            examples come first, each in at most four pictures, as long as all pictures together are no more than the
            model takes.

        Raises
        ------
        RequestError
            If there are too many images, or the region misses the study.
        """
        self.check_images(len(study.images))
        series = list(self._series(study, question.region))
        taken = sum(len(each.slices) for each in series)
        if not taken:
            raise RequestError("region: outside the study; move it or ask about the whole volume")
        if self.single:
            parts: tuple[str | Picture, ...] = self._one_picture(series)
        else:
            budget = self.most_pixels and self.most_pixels / taken
            parts = tuple(part for each in series for part in self._parts(each, series, budget))
        notes = [note for each in series for note in each.notes(self.single, len(series))]
        if examples := self._examples(question.examples, taken):
            worked = tuple(part for each in examples for part in each[1])
            parts = (*worked, "THE STUDY IN QUESTION:\n", *parts)
            told = "; ".join(f"{each.answer} ({each.source})" for each, _ in examples)
            count = "1 worked example" if len(examples) == 1 else f"{len(examples)} worked examples"
            notes.append(f"with {count}: {told}")
        return Shown(self.name, parts, self.system, "; ".join(dict.fromkeys(notes)) or None)

    def _examples(
        self, examples: tuple[WorkedExample, ...], taken: int
    ) -> list[tuple[WorkedExample, tuple[str | Picture, ...]]]:
        """Return the worked examples that there is room for beside a study's pictures, each with its parts."""
        if self.single:
            return []
        small = replace(
            self,
            max_slices=_EXAMPLE_SLICES,
            max_images=_EXAMPLE_SLICES,
            most_pixels=self.most_pixels and self.most_pixels // _EXAMPLE_SHARE,
            instruction=None,
        )
        found: list[tuple[WorkedExample, tuple[str | Picture, ...]]] = []
        room = max(self.max_slices, self.max_images) - taken
        for example in examples:
            if len(example.study.images) > _EXAMPLE_SLICES:
                continue
            shown = small.show(example.study, Question())
            room -= len(shown.pictures)
            if room < 0:
                break
            number = len(found) + 1
            found.append(
                (
                    example,
                    (
                        f"EXAMPLE {number}, ANOTHER STUDY:\n",
                        *(_of_example(part, number) for part in shown.parts),
                        f"QUESTION: {example.question}\nANSWER: {example.answer}\n",
                    ),
                )
            )
        return found

    def check_images(self, count: int) -> None:
        """Raise RequestError if a study has more images than the model takes."""
        if count > self.max_images:
            raise RequestError(
                f"images: the study has {count}; the model takes at most {self.max_images}; choose fewer"
            )

    def _series(self, study: Study, region: Box | Plane | None) -> Iterator[_Series]:
        volumes = sum(image.is_volume for image in study.images)
        most = max(1, self.max_slices // max(volumes, 1))
        if self.single:
            most = min(most, _MOST_TILES)
        for index, image in enumerate(study.images):
            intensity = self.image
            if image.hounsfield:
                intensity = self.ct
            elif image.is_volume:
                intensity = self.other
            yield self._cut(index, image, *intensity.of(image), most, region)

    def _cut(
        self,
        index: int,
        image: StudyImage,
        greys: Greys,
        words: str,
        most: int,
        region: Box | Plane | None,
    ) -> _Series:
        if not image.is_volume:
            piece = Slice(image.voxels[0], image.affine, "unknown")
            return _Series(index, image, greys, words, [piece], 1, None)
        if isinstance(region, Plane):
            plane = region.slice_mm
            cut = plane_slice(image, np.asarray(plane.point), np.asarray(plane.normal))
            return _Series(index, image, greys, words, [] if cut is None else [cut], 1, None)
        axis, remark = self._axis(image)
        size = np.array(image.voxels.shape[::-1])
        crop = np.stack([np.zeros(3, int), size - 1], axis=1)
        if isinstance(region, Box):
            found = box_crop(image, np.asarray(region.box_mm))
            if found is None:
                return _Series(index, image, greys, words, [], 0, None)
            crop = found
        first, last = (int(each) for each in crop[axis])
        there = last - first + 1
        indices = [first + n for n in self.slices(there, most)]
        if self.planes == "stored":
            pieces = [_stored(image, k, crop) for k in indices]
        else:
            pieces = [oriented_slice(image, axis, k, crop) for k in indices]
        return _Series(index, image, greys, words, pieces, there, remark)

    def _axis(self, image: StudyImage) -> tuple[int, str | None]:
        """Return the voxel axis of the slices, and what is unusual about it."""
        if self.planes == "stored":
            return 2, None
        acquired = slicing_axis(image)
        if self.planes == "acquired" or not image.calibrated:
            return acquired, None
        spacing = image.spacing_mm
        axial = int(np.argmax(np.abs(image.affine[2, :3]) / spacing))
        in_plane = [spacing[a] for a in range(3) if a != axial]
        if axial != acquired and max(in_plane) > _FLATTEST * min(in_plane):
            return acquired, "not axial: the volume was acquired in another plane"
        return axial, None

    def _parts(
        self, series: _Series, every: list[_Series], budget: float | None
    ) -> Iterator[str | Picture]:
        several = len(every) > 1
        if series.image.is_volume:
            if self.instruction and series.index == 0:
                yield self.instruction
            if several:
                yield f"SERIES {series.index + 1}{_when(series, every)}"
        for number, piece in enumerate(series.slices, start=1):
            picture = self._picture(series, piece, budget)
            label = self._label(series, number, every)
            if label and not self.label_after:
                yield label
            yield picture
            if label and self.label_after:
                yield label

    def _label(self, series: _Series, number: int, every: list[_Series]) -> str | None:
        if series.image.is_volume:
            return self.label and self.label.format(n=number)
        view = f" ({series.image.view})" if series.image.view else ""
        return f"IMAGE {series.index + 1}{view}{_when(series, every)}" if len(every) > 1 else None

    def _picture(self, series: _Series, piece: Slice, budget: float | None) -> Picture:
        # A slice in the file's own orientation keeps its pixels: the model was trained so.
        aspect = 1.0 if self.planes == "stored" else piece.pixel_aspect
        pixels = fit(
            series.greys(piece.grey), aspect, side=self.side, square=self.square, most_pixels=budget
        )
        return Picture(pixels, series.caption(piece), series.index, piece.stored)

    def _one_picture(self, series: list[_Series]) -> tuple[Picture, ...]:
        pictures = [self._picture(each, piece, None) for each in series for piece in each.slices]
        if len(pictures) == 1:
            return (pictures[0],)
        shown = f"montage of {len(pictures)}, row by row: " + "; ".join(p.caption for p in pictures)
        side = self.side or math.ceil(max(max(p.pixels.shape[:2]) for p in pictures))
        return (Picture(montage([p.pixels for p in pictures], side), shown, series[0].index),)


@dataclass(frozen=True, eq=False)
class _Series:
    """The slices of one image that are shown."""

    index: int
    image: StudyImage
    greys: Greys
    words: str
    slices: list[Slice]
    there: int
    remark: str | None

    def caption(self, piece: Slice) -> str:
        return ("prior study, " if self.image.prior else "") + self._place(piece)

    def _place(self, piece: Slice) -> str:
        if not self.image.is_volume:
            view = f", {self.image.view}" if self.image.view else ""
            return f"image {self.index + 1}{view}, {self.words}"
        plane = piece.plane if self.image.calibrated else "stored"
        if piece.stored is None:
            return f"{plane} slice across the stored ones, {self.words}"
        return f"{plane} slice {piece.stored + 1} of {self.image.voxels.shape[0]}, {self.words}"

    def notes(self, single: bool, several: int) -> Iterator[str]:
        named = f"image {self.index + 1}: " if several > 1 else ""
        if len(self.slices) < self.there:
            yield f"{named}{len(self.slices)} of {self.there} slices"
        if self.remark:
            yield named + self.remark
        if single and (len(self.slices) > 1 or several > 1):
            yield "in one montage, because the model takes one picture"


def _of_example(part: str | Picture, number: int) -> str | Picture:
    """Return a part of a worked example; its pictures name the example and no slice of the study."""
    if isinstance(part, str):
        return part
    return Picture(part.pixels, f"worked example {number}, {part.caption}", part.image)


def _when(series: _Series, every: list[_Series]) -> str:
    """Return whether an image is the prior or the current one, where a study has both."""
    if not any(each.image.prior for each in every):
        return ""
    return ", PRIOR" if series.image.prior else ", CURRENT"


def _stored(image: StudyImage, k: int, crop: np.ndarray) -> Slice:
    """Return a slice indexed (i, j), as nibabel gives it."""
    (i0, i1), (j0, j1) = crop[0], crop[1]
    grey = image.voxels[k, j0 : j1 + 1, i0 : i1 + 1].T
    to_ras = np.eye(4)
    to_ras[:3, 0], to_ras[:3, 1] = image.affine[:3, 1], image.affine[:3, 0]
    to_ras[:3, 2] = image.affine[:3, 2]
    to_ras[:3, 3] = (image.affine @ (i0, j0, k, 1))[:3]
    return Slice(grey, to_ras, oriented_slice(image, 2, k).plane, k)
