"""What a fine-tuning run learns from: corrections, and what the base model already says.

Beside the corrections, the model rehearses its own answers, so that learning one does not change the others:
about the corrected studies (standard questions, and those that were corrected in other studies, lest an answer
is learnt for its question whatever the study shows) and about the studies bundled with the checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from radfound.correction import Correction
from radfound.datasets.metadata import METADATA_QUESTIONS
from radfound.engine.local.backend import LocalModel, Prompt
from radfound.exceptions import RadFoundError, TrainingError
from radfound.model.checkpoints import REPLAY, bundled
from radfound.study.region import region_key
from training.corrections.visual_tokens import TokenSource
from training.packing import Branch, branch

_REHEARSED = tuple(wordings[0] for wordings in METADATA_QUESTIONS.values())
_REHEARSED_STUDIES = 48  # corrected studies, the newest, whose other answers are rehearsed
_ASKED_ELSEWHERE = 6  # questions corrected in other studies, rehearsed for each of these
_CAPTIONED = 4  # of these: captions are long
LONGEST_ANSWER = 256  # tokens


@dataclass(frozen=True, eq=False)
class Lesson:
    """A study or a region of it, and what to say about it.

    Parameters
    ----------
    visual : tensor, shape (1, T, width)
    branches : list of Branch
        Questions with their answers.
    study : str
        What must not be divided between learning and examination.
    corrections : tuple of str
        Ids of those that the branches teach, one for each.
    refused : tuple of Branch or None
        For each branch the answer that the reader replaced by it, where there is one.
    """

    visual: torch.Tensor
    branches: list[Branch]
    study: str = ""
    corrections: tuple[str, ...] = ()
    refused: tuple[Branch | None, ...] = ()


@dataclass(frozen=True, eq=False)
class Lessons:
    """What a run learns from.

    Parameters
    ----------
    corrected : list of Lesson
    rehearsed : list of Lesson
        Answers of the base model that are to stay as they are.
    left_out : dict of str to str
        By id of a correction, why nothing is learnt from it.
    """

    corrected: list[Lesson]
    rehearsed: list[Lesson]
    left_out: dict[str, str] = field(default_factory=dict)


def lessons_of(
    base: LocalModel, corrections: Sequence[Correction], visuals: TokenSource
) -> Lessons:
    """Return the corrections by study and region, and what the base model says to other questions there.

    Raises
    ------
    TrainingError
        If no correction can be learnt from.
    """
    by_view: dict[tuple[tuple[str, ...], str | None], list[Correction]] = {}
    for correction in corrections:
        view = (correction.images, region_key(correction.region))
        by_view.setdefault(view, []).append(correction)
    found = Lessons([], [])
    views: list[list[Correction]] = []
    for (images, _), some in by_view.items():
        try:
            visual = visuals.of(images, some[0].region)
        except RadFoundError as error:
            found.left_out.update({each.id: str(error) for each in some})
            continue
        taught = [
            (each, branch(base.processor, each.task, each.question, each.text, None))
            for each in some
        ]
        for each, piece in taught:
            if len(piece.answer) > LONGEST_ANSWER:
                found.left_out[each.id] = (
                    f"text: {len(piece.answer)} tokens; answers of at most {LONGEST_ANSWER} can be learnt"
                )
        kept = [(each, piece) for each, piece in taught if each.id not in found.left_out]
        if kept:
            ids = tuple(each.id for each, _ in kept)
            refused = tuple(_refused(base, each) for each, _ in kept)
            pieces = [piece for _, piece in kept]
            found.corrected.append(Lesson(visual, pieces, images[0], ids, refused))
            views.append(some)
    if not found.corrected:
        reasons = sorted(set(found.left_out.values()))
        raise TrainingError(f"corrections: none can be learnt from ({'; '.join(reasons[:3])})")
    found.rehearsed.extend(_own_answers(base, found.corrected, views))
    return found


def _refused(base: LocalModel, correction: Correction) -> Branch | None:
    said = correction.model_text.strip()
    if not said or said == correction.text.strip():
        return None
    return branch(base.processor, correction.task, correction.question, said)


def bundled_lessons(base: LocalModel, checkpoint: str | Path, count: int) -> list[Lesson]:
    """Return at most so many bundled studies, with the answers that the base model gave when it shipped."""
    return [
        Lesson(
            study.visual.to(base.model.device)[None],
            [
                branch(base.processor, "vqa" if question else "caption", question or None, answer)
                for question, answer in study.said
            ],
        )
        for study in bundled(checkpoint, REPLAY)[:count]
    ]


def _own_answers(
    base: LocalModel, lessons: Sequence[Lesson], views: Sequence[Sequence[Correction]]
) -> list[Lesson]:
    """Return the base model's own complete answers about corrected studies, to what was not corrected."""
    corrected = [{each.question for each in some if each.question} for some in views]
    everywhere, chance = sorted(set().union(*corrected)), random.Random(0)
    asked: list[tuple[int, Prompt]] = []
    for number in range(len(lessons))[-_REHEARSED_STUDIES:]:
        elsewhere = chance.sample(everywhere, min(_ASKED_ELSEWHERE, len(everywhere)))
        questions = dict.fromkeys([*_REHEARSED, *elsewhere])
        asked += [(number, Prompt("vqa", q)) for q in questions if q not in corrected[number]]
        if len(lessons) - number <= _CAPTIONED and all(e.task != "caption" for e in views[number]):
            asked.append((number, Prompt("caption")))
    asked.sort(key=lambda each: each[1].task)  # captions beside captions: they are longest
    said = base.generate(
        [lessons[number].visual for number, _ in asked], [prompt for _, prompt in asked], 64
    )
    branches: list[list[Branch]] = [[] for _ in lessons]
    for (number, prompt), answer in zip(asked, said, strict=True):
        if answer.complete and answer.text.strip():
            piece = branch(base.processor, prompt.task, prompt.question, answer.text.strip())
            branches[number].append(piece)
    return [
        Lesson(lesson.visual, some, lesson.study)
        for lesson, some in zip(lessons, branches, strict=True)
        if some
    ]
