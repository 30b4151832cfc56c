"""A simulated reader, who knows the correct answers about a ward's images and corrects a model.

Only questions outside the training data of `radfound-mini` are asked. `vqa_rad`: VQA-RAD's test questions, and
those of its train split that are held out for validation; most of the images occur in training with other
questions. `house_style`: MedPix's validation and test figures, named in a department's style; neither the figures
nor the wording occur in training.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from radfound.benchmark.scoring.metrics import exact_match
from radfound.correction import Correction
from radfound.datasets import Example, Kit
from radfound.datasets.metadata import METADATA_QUESTIONS
from radfound.model.checkpoints import REGRESSION, bundled
from radfound.question import Question as Prompt
from radfound.study.region import Box, Plane
from radfound.study.study import Study
from training.corrections.frozen.base import FrozenBase
from training.corrections.frozen.lessons import Lesson
from training.packing import branch

_LITTLE_WORDS = set(
    "a an any are be do does image in is it of on shown see the there this to what you".split()
)
_PLANES = ("axial", "coronal", "sagittal")
_LIMIT = 24  # tokens of an answer


@dataclass(frozen=True)
class Question:
    """A question about an image, its correct answer, and other wordings with the same answer."""

    image: str
    text: str
    answer: str
    others: tuple[str, ...] = ()


class Ward:
    """Images with questions and correct answers, encoded by the model's frozen encoder.

    Parameters
    ----------
    frozen : FrozenBase
    examples : dict of str to Example
        By image name.
    questions : list of Question
    figures : list of Example, optional
        Labelled figures of the regression set.
    """

    def __init__(
        self,
        frozen: FrozenBase,
        examples: dict[str, Example],
        questions: list[Question],
        figures: Sequence[Example] = (),
    ):
        self.frozen = frozen
        self.questions = questions
        self._examples = examples
        self._figures = figures
        self._tokens: dict[str, torch.Tensor] = {}

    @property
    def images(self) -> list[str]:
        """All images, by name."""
        return sorted({question.image for question in self.questions})

    def case(self, image: str) -> str:
        """Return the key of an image's case, or of the image if there is no case; never split over sets."""
        return self._examples[image].key

    def read(self, image: str) -> Study:
        """Load an image's study."""
        return self._examples[image].read()

    def tokens(self, image: str) -> torch.Tensor:
        """Return an image's visual tokens, shape (1, T, width)."""
        if image not in self._tokens:
            self._tokens[image] = self.frozen.base.encode(self.read(image))
        return self._tokens[image]

    @cached_property
    def regression(self) -> list[Lesson]:
        """Regression set: modality, plane and region of the figures."""
        processor, lessons = self.frozen.base.processor, []
        for example in self._figures:
            known = [(n, a) for n, a in example.labels.items() if n in METADATA_QUESTIONS]
            pieces = [branch(processor, "vqa", METADATA_QUESTIONS[n][0], a) for n, a in known]
            lessons.append(Lesson(self.frozen.base.encode(example.read()), pieces))
        return lessons

    def answers(self, questions: Sequence[Question]) -> list[str]:
        """Return the model's answers."""
        generated = self.frozen.generate(
            [self.tokens(question.image) for question in questions],
            [self.frozen.base.question_ids(Prompt("vqa", each.text)) for each in questions],
            _LIMIT,
        )
        return [answer.text.strip() for answer in generated]

    def accuracy(self, questions: Sequence[Question]) -> float:
        """Return the share of correctly answered questions, ignoring case."""
        if not questions:
            return float("nan")
        processor = self.frozen.base.processor
        lessons, owners = [], []
        for number, question in enumerate(questions):
            spellings = dict.fromkeys(
                (question.answer, question.answer.lower(), question.answer.capitalize())
            )
            pieces = [branch(processor, "vqa", question.text, each) for each in spellings]
            lessons.append(Lesson(self.tokens(question.image), pieces))
            owners += [number] * len(pieces)
        right = self.frozen.score(lessons).correct
        return len({n for n, is_right in zip(owners, right, strict=True) if is_right}) / len(
            questions
        )


class Visuals:
    """A ward's visual tokens, in place of a server's cache on disk."""

    def __init__(self, ward: Ward):
        self._ward = ward

    def of(self, images: Sequence[str], region: Box | Plane | None) -> torch.Tensor:
        """Return the visual tokens of an image, shape (1, T, width)."""
        return self._ward.tokens(images[0])


def judged(question: Question, answer: str, number: int) -> Correction:
    """Return the reader's correction of an answer; correct answers are accepted."""
    right = bool(exact_match(answer, question.answer))
    return Correction(
        images=(question.image,),
        task="vqa",
        question=question.text,
        model_text=answer,
        verdict="accepted" if right and answer else "edited",
        text="" if right and answer else question.answer,
        author="simulated reader",
        id=f"c-{number:05d}",
    )


def divided(ward: Ward, seed: int, share: float = 0.75) -> tuple[list[Question], list[Question]]:
    """Return the questions about the reader's cases, and those about all other cases."""
    cases = list(dict.fromkeys(map(ward.case, ward.images)))
    random.Random(seed).shuffle(cases)
    chosen = set(cases[: round(share * len(cases))])
    inside = [question for question in ward.questions if ward.case(question.image) in chosen]
    return inside, [
        question for question in ward.questions if ward.case(question.image) not in chosen
    ]


def reworded(questions: Sequence[Question]) -> list[Question]:
    """Return other wordings of the same questions."""
    return [
        Question(question.image, other, question.answer)
        for question in questions
        for other in question.others
    ]


def vqa_rad(kit: Kit, frozen: FrozenBase) -> Ward:
    """Return VQA-RAD's images with the questions used by neither training nor the gate."""
    examples: dict[str, Example] = {}
    asked: dict[str, dict[str, str]] = {}
    held: dict[str, dict[str, str]] = {}
    for split in ("train", "validation", "test"):
        for example in kit.vqa(split):
            if example.source == "VQA-RAD":
                image = example.files[0].name
                examples[image] = example
                pairs = {turn.questions[0]: turn.answer for turn in example.turns}
                asked.setdefault(image, {}).update(pairs)
                if split != "train":
                    held.setdefault(image, {}).update(pairs)
    questions = [
        Question(image, text, answer, _reworded(text, answer, asked[image]))
        for image, pairs in sorted(held.items())
        for text, answer in pairs.items()
    ]
    ward = Ward(frozen, examples, questions, _held_figures(kit))
    used = _gate_questions(ward, examples)
    ward.questions = [each for each in questions if (each.image, each.text) not in used]
    return ward


def house_style(kit: Kit, frozen: FrozenBase) -> Ward:
    """Return MedPix's held-out figures, each with one question: the department's name of the series."""
    figures = [
        example
        for example in _held_figures(kit)
        if example.labels.keys() >= METADATA_QUESTIONS.keys() and example.labels["plane"] in _PLANES
    ]
    questions = [
        Question(
            example.files[0].name,
            "How does our department name this series?",
            "{modality} of the {region}, {plane}".format_map(example.labels),
        )
        for example in figures
    ]
    return Ward(frozen, {each.files[0].name: each for each in figures}, questions, figures)


WARDS = {"vqa-rad": vqa_rad, "house-style": house_style}


def open_ward(data: Path, checkpoint: str, questions: str = "vqa-rad", **settings) -> Ward:
    """Return a ward of `WARDS` over the data kit."""
    return WARDS[questions](Kit(data), FrozenBase(checkpoint, **settings))


def _held_figures(kit: Kit) -> list[Example]:
    return [example for split in ("validation", "test") for example in kit.medpix_figures(split)]


def _gate_questions(ward: Ward, images: Collection[str]) -> set[tuple[str, str]]:
    """Return (image, question) pairs of the gate's regression set, which must not be trained on."""
    known = {image: ward.tokens(image).float() for image in images}
    found = set()
    for study in bundled(ward.frozen.checkpoint, REGRESSION):
        visual = study.visual.float()
        image = min(known, key=lambda each: float((known[each] - visual).abs().mean()))
        found |= {(image, question) for question, _ in study.pairs}
    return found


def _reworded(text: str, answer: str, asked: dict[str, str]) -> tuple[str, ...]:
    """Return the questions about the same image with the same answer and at least half of the words."""
    words = _words(text)
    return tuple(
        other
        for other, its in asked.items()
        if other.lower() != text.lower()
        and exact_match(its, answer)
        and words
        and len(words & _words(other)) >= 0.5 * len(words | _words(other))
    )


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower())) - _LITTLE_WORDS
