"""Training examples of a fine-tuning run: corrections, and replay of the base model's own answers.

Replay keeps other answers as they are. It covers the corrected studies (standard questions, and questions that
were corrected in other studies, so that an answer is not learnt for its question alone) and the studies
bundled with the checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from radfound.correction import Correction
from radfound.engine.local.model import LocalModel
from radfound.exceptions import RadFoundError
from radfound.model.checkpoints import REPLAY, bundled
from radfound.question import Question
from training.corrections.frozen.own_answers import OwnAnswers
from training.corrections.frozen.visual_tokens import TokenSource
from training.corrections.learnable import REPLAY_QUESTIONS, by_view, nothing_to_learn, too_long
from training.loop.config import Advance, no_advance
from training.packing import Branch, branch

_REPLAY_STUDIES = 48  # newest corrected studies whose other answers are replayed
_REPLAY_ELSEWHERE = 6  # questions corrected in other studies, for each of these studies
_REPLAY_CAPTIONS = 4  # of these studies: captions are long
_REPLAY_TOKENS = 64  # longest answer that is replayed


@dataclass(frozen=True, eq=False)
class Lesson:
    """A study, or a region of it, with questions and their answers.

    Parameters
    ----------
    visual : tensor, shape (1, T, width)
    branches : list of Branch
        Questions with their answers.
    study : str
        Key by which examples are split into training and held-out ones.
    corrections : tuple of str
        Ids of the corrections, one for each branch.
    rejected : tuple of Branch or None
        For each branch the answer that the reader replaced, where there is one.
    """

    visual: torch.Tensor
    branches: list[Branch]
    study: str = ""
    corrections: tuple[str, ...] = ()
    rejected: tuple[Branch | None, ...] = ()


@dataclass(frozen=True, eq=False)
class Lessons:
    """All training examples of a run.

    Parameters
    ----------
    corrected : list of Lesson
    replay : list of Lesson
        The base model's own answers, which should stay as they are.
    left_out : dict of str to str
        By id of a correction, why it is not used.
    """

    corrected: list[Lesson]
    replay: list[Lesson]
    left_out: dict[str, str] = field(default_factory=dict)


def lessons_of(
    base: LocalModel,
    corrections: Sequence[Correction],
    visuals: TokenSource,
    own: OwnAnswers | None = None,
    advance: Advance = no_advance,
) -> Lessons:
    """Group corrections by study and region, and add the base model's answers to other questions there.

    Parameters
    ----------
    base : LocalModel
        Without an adapter.
    corrections : sequence of Correction
    visuals : TokenSource
    own : OwnAnswers, optional
        Answers that earlier runs have kept.
    advance : callable, optional
        Called with the number of corrections that have been read since the last call.

    Raises
    ------
    TrainingError
        If no correction can be learnt from.
    """
    found = Lessons([], [])
    views: list[list[Correction]] = []
    for some in by_view(corrections):
        images = some[0].images
        try:
            visual = visuals.of(images, some[0].region)
        except RadFoundError as error:
            found.left_out.update({each.id: str(error) for each in some})
            continue
        finally:
            advance(len(some))
        kept: list[tuple[Correction, Branch]] = []
        for each in some:
            piece = branch(base.processor, each.task, each.question, each.text, None)
            if reason := too_long(len(piece.answer)):
                found.left_out[each.id] = reason
            else:
                kept.append((each, piece))
        if kept:
            ids = tuple(each.id for each, _ in kept)
            rejected = tuple(_rejected(base, each) for each, _ in kept)
            pieces = [piece for _, piece in kept]
            found.corrected.append(Lesson(visual, pieces, images[0], ids, rejected))
            views.append(some)
    if not found.corrected:
        raise nothing_to_learn(found.left_out)
    found.replay.extend(_own_answers(own or OwnAnswers(base), base, found.corrected, views))
    return found


def _rejected(base: LocalModel, correction: Correction) -> Branch | None:
    replaced = correction.model_text.strip()
    if not replaced or replaced == correction.text.strip():
        return None
    return branch(base.processor, correction.task, correction.question, replaced)


def bundled_lessons(base: LocalModel, checkpoint: str | Path, count: int) -> list[Lesson]:
    """Return at most `count` bundled studies with the base model's answers of when it was released."""
    return [
        Lesson(
            study.visual.to(base.model.device, base.model.dtype)[None],
            [
                branch(base.processor, "vqa" if question else "caption", question or None, answer)
                for question, answer in study.pairs
            ],
        )
        for study in bundled(checkpoint, REPLAY)[:count]
    ]


def _own_answers(
    own: OwnAnswers,
    base: LocalModel,
    lessons: Sequence[Lesson],
    views: Sequence[Sequence[Correction]],
) -> list[Lesson]:
    """Return the base model's own complete answers about corrected studies, to questions that were not corrected."""
    corrected = [{each.question for each in some if each.question} for some in views]
    everywhere, rng = sorted(set().union(*corrected)), random.Random(0)
    asked: list[tuple[int, Question]] = []
    for number in range(len(lessons))[-_REPLAY_STUDIES:]:
        elsewhere = rng.sample(everywhere, min(_REPLAY_ELSEWHERE, len(everywhere)))
        questions = dict.fromkeys([*REPLAY_QUESTIONS, *elsewhere])
        asked += [(number, Question("vqa", q)) for q in questions if q not in corrected[number]]
        if len(lessons) - number <= _REPLAY_CAPTIONS and all(
            e.task != "caption" for e in views[number]
        ):
            asked.append((number, Question("caption")))
    asked.sort(key=lambda each: each[1].task)  # captions are longest: keep them in one batch
    answers = own.of(
        [lessons[number].visual for number, _ in asked],
        [each for _, each in asked],
        _REPLAY_TOKENS,
    )
    branches: list[list[Branch]] = [[] for _ in lessons]
    for (number, question), answer in zip(asked, answers, strict=True):
        if answer:
            branches[number].append(branch(base.processor, question.task, question.text, answer))
    return [
        Lesson(lesson.visual, some, lesson.study)
        for lesson, some in zip(lessons, branches, strict=True)
        if some
    ]
