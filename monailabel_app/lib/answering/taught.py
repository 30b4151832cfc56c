"""What corrections teach, applied to the answers of the service before any training."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from radfound.exceptions import RadFoundError
from radfound.question import (
    Answer,
    ModelVersion,
    Question,
    ReaderText,
    WorkedExample,
    split_report,
)
from radfound.study.study import Study
from radfound.teaching import Taught, Teaching
from radfound.teaching.examples import ExamplesGain, worked_examples

from .inquiry import Inquiry

if TYPE_CHECKING:
    from radfound.engine.engine import Engine
    from radfound.engine.shown import Shown

logger = logging.getLogger(__name__)


class RecalledAnswer:
    """The answer of a reader's correction, as a stream that has ended."""

    shown: Shown | None = None
    has_begun = True

    def __init__(self, answer: Answer):
        self._pieces: list[str | Answer] = [answer.text, answer]

    def cancel(self) -> None:
        """Do nothing: the answer is there."""

    def __iter__(self) -> Iterator[str | Answer]:
        return iter(self._pieces)

    async def __aiter__(self) -> AsyncIterator[str | Answer]:
        for piece in self._pieces:
            yield piece


def recalled(
    teaching: Teaching,
    study: Study,
    images: tuple[str, ...],
    question: Question,
    model: ModelVersion,
) -> RecalledAnswer | None:
    """Return the reader's text about this question of this study, if there is one.

    Parameters
    ----------
    teaching : Teaching
    study : Study
    images : tuple of str
        The caller's ids of the study's images.
    question : Question
    model : ModelVersion
        The weights that would have answered.
    """
    began = time.monotonic()
    found = teaching.before_answer(study.digest, images, question)
    if found is None or found.text is None:
        return None
    own = teaching.memory.text_of_model(found.correction) if found.correction else None
    answer = Answer(
        task=question.task,
        images=images,
        question=question.text if question.task == "vqa" else None,
        text="",
        model=model,
        timings_ms={"read": 0, "encode": 0, "first_token": 0, "total": 0},
    )
    took_ms = round(1000 * (time.monotonic() - began))
    timings = {**answer.timings_ms, "first_token": took_ms, "total": took_ms}
    return RecalledAnswer(
        replace(applied(answer, replace(found, model_text=own)), timings_ms=timings)
    )


def applied(answer: Answer, taught: Taught) -> Answer:
    """Return an answer with what was taught in place of, or beside, the model's text."""
    remarks = replace(
        answer,
        reason=taught.reason,
        contradictions=tuple(
            ReaderText(
                text=each.text,
                author=each.author,
                created=each.created,
                correction=each.correction,
            )
            for each in taught.contradictions
        ),
    )
    if taught.text is None:
        return remarks
    return replace(
        remarks,
        text=taught.text,
        source=taught.source,
        confidence=taught.confidence,
        uncertainty=None if taught.confidence is None else 1 - taught.confidence,
        model_text=taught.model_text or None,
        corrected_by=taught.corrected_by,
        corrected_on=taught.corrected_on,
        sections=split_report(taught.text) if answer.task == "report" else None,
        finished=True,
    )


def examples_for(
    teaching: Teaching,
    engine: Engine,
    inquiry: Inquiry,
    measured: Path,
    read: Callable[[tuple[str, ...]], Study],
) -> tuple[WorkedExample, ...]:
    """Return corrected studies to show before a question; none unless they were measured to help this model.

    Parameters
    ----------
    teaching : Teaching
    engine : Engine
    inquiry : Inquiry
    measured : Path
        Folder with what was measured of the model.
    read : callable
        From the ids of images to their study.
    """
    model, question = engine.backend.describe(), inquiry.question
    if (
        not (inquiry.wants_teaching and model.abilities.examples)
        or question.task != "vqa"
        or question.region is not None
        or engine.model_version.adapter is not None  # the base model was measured
    ):
        return ()
    try:
        gain = ExamplesGain.read(measured, model.revision)
    except RadFoundError as error:
        logger.warning("no worked examples are shown: %s", error)
        return ()
    if gain is None or not gain.wins:
        return ()
    return worked_examples(
        teaching.memory.asked(question),
        inquiry.study,
        read,
        teaching.features,
        confirm=teaching.confirm,
        count=gain.count,
    )
