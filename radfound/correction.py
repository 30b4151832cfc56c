"""One correction: what a reader said about one answer."""

from __future__ import annotations

import re
import uuid
from dataclasses import field, replace
from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from radfound.exceptions import CorrectionError
from radfound.question import TASKS, ModelVersion
from radfound.study.region import Region
from radfound.validation import CONFIG, Text, first_fault, kind_of, one_of, shown

VERDICTS = ("accepted", "edited", "rejected")
MAX_TEXT_CHARS = 20_000
MAX_QUESTION_CHARS = 4_000
MAX_AUTHOR_CHARS = 200
MAX_IMAGES = 64
MAX_IMAGE_ID_CHARS = 1_000

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def utc_now() -> str:
    """Return the present moment as ISO 8601 in UTC, such as 2026-08-01T09:30:00.000Z."""
    return _iso_utc(datetime.now(timezone.utc))


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: spaces, and characters without width or shape."""
    return not any(each.isprintable() and not each.isspace() for each in text)


def _id(value: object) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ValueError(f"found {shown(value)}; expected 1 to 128 letters, digits or . _ : -")
    return value


def _images(value: object) -> object:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"found {kind_of(value)}; expected a list of ids")
    if not 1 <= len(value) <= MAX_IMAGES:
        raise ValueError(f"found {len(value)} ids; expected 1 to {MAX_IMAGES}")
    if not all(isinstance(each, str) and each.strip() for each in value):
        raise ValueError("found an empty id, or none that is text; expected the image's id")
    if len(set(value)) != len(value):
        raise ValueError("found the same id twice; expected each image once")
    return tuple(value)


def _time(value: object) -> str:
    try:
        if not isinstance(value, str):
            raise ValueError("not text")
        moment = datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", value))
        if moment.tzinfo is None:
            raise ValueError("no time zone")
        return _iso_utc(moment)
    except (ValueError, OverflowError):
        raise ValueError(
            f"found {shown(value)}; expected ISO 8601 with a time zone, such as 2026-08-01T09:30:00Z"
        ) from None


def _named(author: str) -> str:
    if not author.strip():
        raise ValueError("found nothing; expected who made the correction")
    return author


Id = Annotated[str, BeforeValidator(_id)]
LongText = Annotated[Text, Field(max_length=MAX_TEXT_CHARS)]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Correction:
    """A reader's verdict on one answer, caption or report.

    Parameters
    ----------
    id : str
        Made by whoever creates the correction, so that sending it twice records it once.
    answer_id : str or None
        Id of the answer that was judged, where there is one.
    images : sequence of str, at least one
        Ids of the images it is about.
    task : {"vqa", "caption", "report"}
    question : str or None
        Needed for "vqa"; None for the other tasks.
    model_text : str
        The model's answer; empty where there was none.
    verdict : {"accepted", "edited", "rejected"}
    text : str
        The reader's text: needed for "edited", the model's text for "accepted", may be
        empty for "rejected".
    author : str
    created : str
        ISO 8601 with a time zone, kept in UTC; now by default.
    model : ModelVersion or None
        Which weights gave the answer.
    image_hash : str or None
        Digest of the study that the reader saw.
    region : Box, Plane or None
        Part of the study that it is about; None for the whole study.

    Raises
    ------
    CorrectionError
        If a field is missing or not of this shape; the message begins with the field's name.
    """

    images: Annotated[
        tuple[Annotated[Text, Field(max_length=MAX_IMAGE_ID_CHARS)], ...],
        Field(min_length=1, max_length=MAX_IMAGES),
        BeforeValidator(_images),
    ]
    task: Annotated[str, one_of(TASKS)]
    model_text: LongText
    verdict: Annotated[str, one_of(VERDICTS)]
    author: Annotated[Text, Field(max_length=MAX_AUTHOR_CHARS), AfterValidator(_named)]
    question: Annotated[Text, Field(max_length=MAX_QUESTION_CHARS)] | None = None
    text: LongText = ""
    answer_id: Id | None = None
    model: ModelVersion | None = None
    image_hash: Id | None = None
    region: Region | None = None
    id: Id = field(default_factory=lambda: str(uuid.uuid4()))
    created: Annotated[str, BeforeValidator(_time)] = field(default_factory=utc_now)

    @model_validator(mode="wrap")
    @classmethod
    def _raise_correction_error(cls, data: Any, check: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return check(data)
        except ValidationError as error:
            raise CorrectionError(first_fault(error, "correction")) from None

    @model_validator(mode="after")
    def _fit_together(self) -> Correction:
        object.__setattr__(self, "question", _question_of(self.task, self.question))
        object.__setattr__(self, "text", _text_of(self.verdict, self.text, self.model_text))
        return self

    def equals_judgement_of(self, other: Correction) -> bool:
        """Whether both carry one judgement, whatever their times and image hashes."""
        return replace(self, created=other.created, image_hash=other.image_hash) == other


def _question_of(task: str, question: str | None) -> str | None:
    question = (question or "").strip()
    if task == "vqa" and not question:
        raise CorrectionError("question: found nothing; a correction of a vqa answer needs it")
    if task != "vqa" and question:
        raise CorrectionError(f"question: a {task} has none; leave it out or send null")
    return question or None


def _text_of(verdict: str, text: str, model_text: str) -> str:
    if verdict == "edited" and is_blank(text):
        raise CorrectionError("text: found nothing; an edited answer needs the reader's text")
    if verdict != "accepted":
        return text
    if is_blank(model_text):
        raise CorrectionError("model_text: found nothing; an accepted answer needs it")
    if text.strip() and text.strip() != model_text.strip():
        raise CorrectionError(
            "text: differs from model_text although the answer was accepted; "
            "leave it out, or send the verdict edited"
        )
    return model_text


def _iso_utc(moment: datetime) -> str:
    utc = moment.astimezone(timezone.utc).replace(tzinfo=None)
    return utc.isoformat(timespec="milliseconds") + "Z"
