"""One correction: what a reader said about one answer."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from radfound.exceptions import CorrectionError, RequestError
from radfound.question import TASKS, ModelVersion
from radfound.study.region import parse_region

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


@dataclass(frozen=True, kw_only=True)
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
        What the model said; empty where it said nothing.
    verdict : {"accepted", "edited", "rejected"}
    text : str
        What the reader says instead: needed for "edited", the model's text for "accepted", may be
        empty for "rejected".
    author : str
        Who judged.
    created : str
        ISO 8601 with a time zone, kept in UTC; now by default.
    model : ModelVersion or None
        Which weights had spoken.
    image_hash : str or None
        Digest of the study that the reader saw.
    region : dict or None
        Where in the study, as a question has it (see `radfound.study.region.parse_region`); None for the
        whole study.

    Raises
    ------
    CorrectionError
        If a field is missing or not of this shape; the message begins with the field's name.
    """

    images: tuple[str, ...]
    task: str
    model_text: str
    verdict: str
    author: str
    question: str | None = None
    text: str = ""
    answer_id: str | None = None
    model: ModelVersion | None = None
    image_hash: str | None = None
    region: dict[str, Any] | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: str = field(default_factory=utc_now)

    def __post_init__(self) -> None:
        _check_id("id", self.id)
        if self.answer_id is not None:
            _check_id("answer_id", self.answer_id)
        if self.image_hash is not None:
            _check_id("image_hash", self.image_hash)
        object.__setattr__(self, "images", _checked_images(self.images))
        _check_choice("task", self.task, TASKS)
        _check_choice("verdict", self.verdict, VERDICTS)
        object.__setattr__(self, "question", _checked_question(self.task, self.question))
        _check_text("model_text", self.model_text, MAX_TEXT_CHARS)
        _check_text("author", self.author, MAX_AUTHOR_CHARS)
        if not self.author.strip():
            raise CorrectionError("author: found nothing; expected who made the correction")
        _check_text("text", self.text, MAX_TEXT_CHARS)
        object.__setattr__(self, "text", _text_of(self.verdict, self.text, self.model_text))
        object.__setattr__(self, "created", _checked_time(self.created))
        _check_model(self.model)
        object.__setattr__(self, "region", _checked_region(self.region))

    def says_the_same_as(self, other: Correction) -> bool:
        """Whether both carry one judgement, whatever their times and image hashes."""
        return replace(self, created=other.created, image_hash=other.image_hash) == other


def _check_id(name: str, value: object) -> None:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise CorrectionError(
            f"{name}: found {_shown(value)}; expected 1 to 128 letters, digits or . _ : -"
        )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise CorrectionError(f"{name}: found {_shown(value)}; expected {' or '.join(choices)}")


def _check_text(name: str, value: object, limit: int) -> None:
    if not isinstance(value, str):
        raise CorrectionError(f"{name}: found {type(value).__name__}; expected text")
    if len(value) > limit:
        raise CorrectionError(f"{name}: found {len(value):,} characters; at most {limit:,} fit")
    if not is_storable(value):
        raise CorrectionError(f"{name}: holds half a surrogate pair; expected valid Unicode")


def is_storable(text: str) -> bool:
    """Whether text can be written as UTF-8 (JSON may carry lone surrogates, which cannot)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: spaces, and characters without width or shape."""
    return not any(each.isprintable() and not each.isspace() for each in text)


def _checked_images(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise CorrectionError(f"images: found {type(value).__name__}; expected a list of ids")
    if not 1 <= len(value) <= MAX_IMAGES:
        raise CorrectionError(f"images: found {len(value)} ids; expected 1 to {MAX_IMAGES}")
    for image in value:
        _check_text("images", image, MAX_IMAGE_ID_CHARS)
        if not image.strip():
            raise CorrectionError("images: found an empty id; expected the image's id")
    if len(set(value)) != len(value):
        raise CorrectionError("images: found the same id twice; expected each image once")
    return tuple(value)


def _checked_question(task: str, value: object) -> str | None:
    if value is not None:
        _check_text("question", value, MAX_QUESTION_CHARS)
    question = str(value).strip() if value is not None else ""
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
        raise CorrectionError("model_text: found nothing; an accepted answer needs what it was")
    if text.strip() and text.strip() != model_text.strip():
        raise CorrectionError(
            "text: differs from model_text although the answer was accepted; "
            "leave it out, or send the verdict edited"
        )
    return model_text


def _checked_time(value: object) -> str:
    try:
        if not isinstance(value, str):
            raise ValueError("not text")
        moment = datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", value))
        if moment.tzinfo is None:
            raise ValueError("no time zone")
        return _iso_utc(moment)
    except (ValueError, OverflowError):
        raise CorrectionError(
            f"created: found {_shown(value)}; expected ISO 8601 with a time zone, "
            "such as 2026-08-01T09:30:00Z"
        ) from None


def _iso_utc(moment: datetime) -> str:
    utc = moment.astimezone(timezone.utc).replace(tzinfo=None)
    return utc.isoformat(timespec="milliseconds") + "Z"


def _check_model(model: object) -> None:
    if model is None:
        return
    if not isinstance(model, ModelVersion):
        raise CorrectionError(f"model: found {type(model).__name__}; expected a model version")
    for name in ("name", "revision"):
        _check_text(f"model.{name}", getattr(model, name), MAX_AUTHOR_CHARS)
    if model.adapter is not None:
        _check_text("model.adapter", model.adapter, MAX_AUTHOR_CHARS)


def _checked_region(value: object) -> dict[str, Any] | None:
    try:
        return parse_region(value)
    except RequestError as error:
        raise CorrectionError(str(error)) from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
