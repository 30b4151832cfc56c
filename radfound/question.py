"""Tasks, questions and answers, with the model version of an answer."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from radfound.study.region import Box, Plane
from radfound.study.study import Study
from radfound.validation import Text


@dataclass(frozen=True)
class Task:
    """A task of the model.

    Parameters
    ----------
    name : str
        Name in requests and records.
    label : str
        Name shown to users.
    prompt : str or None
        The instruction; None if the question is the instruction.
    max_new_tokens : int
        Default limit of an answer.
    """

    name: str
    label: str
    prompt: str | None
    max_new_tokens: int

    @property
    def needs_question(self) -> bool:
        """Whether a request must have a question."""
        return self.prompt is None


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("vqa", "answer", None, 48),
        Task("caption", "caption", "Describe the study in one or two sentences.", 80),
        Task("report", "report", "Write a report of the study with findings and impression.", 160),
    )
}

_Name = Annotated[Text, Field(max_length=200)]


@dataclass(frozen=True)
class ModelVersion:
    """Weights that gave an answer.

    Parameters
    ----------
    name : str
        Checkpoint name, such as "radfound-mini".
    revision : str
        Hash of the base weights (12 hexadecimal digits).
    adapter : str or None
        Id of the LoRA adapter that was active, or None for the base model.
    """

    name: _Name
    revision: _Name
    adapter: _Name | None = None


@dataclass(frozen=True)
class Turn:
    """An earlier question about the same study, and its answer."""

    question: Text
    answer: Text


@dataclass(frozen=True)
class WorkedExample:
    """A reader's answer to the same question about another study, which a model is shown before the question.

    Parameters
    ----------
    correction : str
        Id of the correction.
    study : Study
    question, answer : str
    source : str
        In words for people: "Dr A, 2026-08-01".
    """

    correction: str
    study: Study = field(compare=False, repr=False)
    question: str
    answer: str
    source: str


@dataclass(frozen=True)
class Question:
    """A question about a study, or a task without one; hashable.

    Parameters
    ----------
    task : {"vqa", "caption", "report"}
    text : str or None
        Needed for "vqa".
    history : tuple of Turn
        Earlier turns about the same study, oldest first.
    region : Box, Plane or None
        Part of the study that it is about; None for all of it.
    examples : tuple of WorkedExample
        Shown before the study by backends that can (`Abilities.examples`); others ignore them.
    """

    task: str = "vqa"
    text: str | None = None
    history: tuple[Turn, ...] = ()
    region: Box | Plane | None = None
    examples: tuple[WorkedExample, ...] = ()


class ShownSlices(TypedDict):
    """What a model was shown of a study: the recipe's name, what was left out, captions of the pictures."""

    recipe: Text
    note: Text | None
    slices: list[Text]


class ReaderText(TypedDict):
    """A reader's text about the same question: the text, who wrote it, when, and the correction's id."""

    text: Text
    author: Text
    created: Text
    correction: Text


CANNOT_TELL = "Cannot tell from this picture with this model."
"""Text of an answer where neither a classifier nor the model sees what is asked."""

SOURCES = ("model", "field", "recall", "head", "wording")
"""What an answer may come from; `Answer` describes them."""

IN_THE_FILE = "stated in the file"
"""Reason of an answer from the file's header."""

_WITHOUT_MAP = {
    "field": "a classifier of the picture",
    "recall": "a reader",
    "head": "a classifier learnt from corrections",
    "wording": "the department's wording",
}


@dataclass(frozen=True)
class Answer:
    """One answer, caption or report.

    Parameters
    ----------
    task : {"vqa", "caption", "report"}
    images : tuple of str
        Ids of the images it is about.
    question : str or None
    text : str
    model : ModelVersion
    sections : dict or None
        {"findings": str, "impression": str} for a report.
    confidence : float or None
        Calibrated probability of a correct answer, in [0, 1]; None without a calibration: for captions and
        reports, and for checkpoints, adapters and kinds of question without one.
    uncertainty : float or None
        Mean entropy of the answer's tokens divided by the entropy of a uniform choice, in [0, 1]; for a
        classifier's answer, 1 minus its confidence.
    evidence : str or None
        File name of the evidence map, if one was requested.
    timings_ms : dict of str to int
        "read", "encode", "first_token" and "total", counted from the start of the request.
    finished : bool
        False if the token limit or a cancellation cut the text off.
    shown : ShownSlices or None
        What the model was shown; None if the backend names no pictures.
    source : {"model", "field", "recall", "head", "wording"}
        What the text comes from: the language model; a classifier of the picture or the file's header
        (`radfound.fields`); a reader's correction; a classifier learnt from corrections; the department's
        wording (`radfound.teaching`).
    reason : str or None
        Why it is this text, or why it cannot be told, in words for people.
    model_text : str or None
        The language model's own text where another one is shown in its place.
    corrected_by, corrected_on : str or None
        Author and time of the correction that is recalled.
    contradictions : tuple of ReaderText
        Other readers' texts about the same question, where they differ.
    series : tuple of str
        UIDs of the series of an archive that were shown, in order; empty for a folder of studies.
    series_rule : str or None
        Why these series were chosen.
    """

    task: str
    images: tuple[str, ...]
    question: str | None
    text: str
    model: ModelVersion
    sections: dict[str, str] | None = None
    confidence: float | None = None
    uncertainty: float | None = None
    evidence: str | None = None
    timings_ms: dict[str, int] = field(default_factory=dict)
    finished: bool = True
    shown: ShownSlices | None = None
    source: str = "model"
    reason: str | None = None
    model_text: str | None = None
    corrected_by: str | None = None
    corrected_on: str | None = None
    contradictions: tuple[ReaderText, ...] = ()
    series: tuple[str, ...] = ()
    series_rule: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def evidence_note(self) -> str | None:
        """Why the answer has no evidence map of its own, in words for people; None for the language model's text."""
        if self.text == CANNOT_TELL:
            return "This is no answer, so there is no evidence map for it."
        if self.source == "model":
            return None
        origin = "the file's header" if self.reason == IN_THE_FILE else _WITHOUT_MAP[self.source]
        return (
            f"This answer comes from {origin}, which has no evidence map. A map for it shows where the language "
            "model looks for the same words."
        )


def split_report(text: str) -> dict[str, str] | None:
    """Return {"findings": …, "impression": …} of a report, or None without these headings."""
    found = re.match(
        r"\s*(?:findings:)?\s*(.*?)\s*impression:\s*(.*)\Z", text, re.IGNORECASE | re.DOTALL
    )
    if found:
        return {"findings": found.group(1), "impression": found.group(2).strip()}
    only = re.match(r"\s*findings:\s*(.*)\Z", text, re.IGNORECASE | re.DOTALL)
    return {"findings": only.group(1).strip(), "impression": ""} if only else None
