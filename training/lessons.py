"""What a fine-tuning run learns from: corrections, and what the base model already says.

Beside the corrections, the model rehearses its own answers: about the corrected studies (standard
questions) and about the studies bundled with the checkpoint, so that learning one answer does not change
the others. The encoder is frozen, so each study is encoded once.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from radfound.benchmark.medpix import METADATA_QUESTIONS
from radfound.checkpoints import replay
from radfound.correction import Correction
from radfound.exceptions import RadFoundError, TrainingError
from radfound.region import region_key
from radfound.study import Study
from radfound.study_model import LocalModel, Prompt
from training.packing import Branch, branch

logger = logging.getLogger(__name__)

_REHEARSED = tuple(wordings[0] for wordings in METADATA_QUESTIONS.values())


@dataclass(frozen=True, eq=False)
class Lesson:
    """The visual tokens, shape (1, T, width), of a study or a region of it, and what to say about it."""

    visual: torch.Tensor
    branches: list[Branch]
    corrections: tuple[str, ...] = ()  # ids of those it teaches


def lessons_of(
    base: LocalModel, corrections: Sequence[Correction], read: Callable[[str], Study]
) -> tuple[list[Lesson], list[Lesson]]:
    """Return the corrections by study and region, and what the base model says to other questions there."""
    by_view: dict[tuple[tuple[str, ...], str | None], list[Correction]] = {}
    for correction in corrections:
        view = (correction.images, region_key(correction.region))
        by_view.setdefault(view, []).append(correction)
    corrected, kept = [], []
    for (images, _), some in by_view.items():
        try:
            parts = [read(image) for image in images]
            study = Study(tuple(image for part in parts for image in part.images))
            visual = base.encode(study, some[0].region)
        except RadFoundError as error:
            logger.warning("a corrected study is left out: %s", error)
            continue
        lesson = [branch(base.processor, c.task, c.question, c.text) for c in some]
        corrected.append(Lesson(visual, lesson, tuple(c.id for c in some)))
        asked = {c.question for c in some}
        prompts = [Prompt("vqa", question) for question in _REHEARSED if question not in asked]
        if all(c.task != "caption" for c in some):
            prompts.append(Prompt("caption"))
        kept.append(_said(base, visual, prompts))
    if not corrected:
        raise TrainingError(
            "corrections: none of their studies can be read; see the warnings above"
        )
    return corrected, [lesson for lesson in kept if lesson.branches]


def bundled_lessons(base: LocalModel, count: int, seed: int) -> list[Lesson]:
    """Return some of the checkpoint's bundled studies with the answers that the base model gave when it shipped."""
    bundled = replay(base.name)
    chosen = random.Random(seed).sample(bundled, min(count, len(bundled)))
    return [
        Lesson(
            item.visual.to(base.model.device)[None],
            [branch(base.processor, "vqa", question, answer) for question, answer in item.said],
        )
        for item in chosen
    ]


def _said(base: LocalModel, visual: torch.Tensor, prompts: Sequence[Prompt]) -> Lesson:
    """Return a lesson of the base model's own complete answers."""
    branches = []
    for prompt in prompts:
        tokens = list(base.stream(visual, prompt, 64))
        text = "".join(token.text for token in tokens).strip()
        if tokens[-1].last and text:
            branches.append(branch(base.processor, prompt.task, prompt.question, text))
    return Lesson(visual, branches)
