"""The JSON contract of server and clients: answers, corrections, questions and errors.

Validation is strict: an invalid value raises an error that names its field; no value is converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from radfound.correction import MAX_IMAGES, MAX_QUESTION_CHARS, Correction
from radfound.exceptions import (
    CorrectionError,
    RadFoundError,
    RequestError,
    StudyAmbiguousError,
)
from radfound.question import TASKS, Answer, ModelVersion, Turn
from radfound.study.region import Region, region_to_json
from radfound.validation import CONFIG, Fraction, Text, Truth, kind_of, one_of, validate

ANSWER_SCHEMA = "radfound.answer/1"
CORRECTION_SCHEMA = "radfound.correction/1"
MAX_NEW_TOKENS = 512
MAX_HISTORY_TURNS = 64
MAX_HISTORY_CHARS = 20_000
"""Limit for all turns together; the engine applies its token limit later."""


# Answers --------------------------------------------------------------------------------------


def _image_ids(value: object) -> object:
    if isinstance(value, (list, tuple)):
        if len(value) > MAX_IMAGES:
            raise ValueError(f"found {len(value)} ids; a study has at most {MAX_IMAGES} images")
        if any(isinstance(image_id, str) and not image_id.strip() for image_id in value):
            raise ValueError("found an empty id; expected the image's id")
    return value


ImageIds = Annotated[tuple[Text, ...], BeforeValidator(_image_ids)]


class AnswerJson(BaseModel):
    """`radfound.answer/1`; `radfound.Answer` documents the fields."""

    model_config = CONFIG | ConfigDict(extra="ignore")

    schema_: Literal["radfound.answer/1"] = Field(alias="schema")
    id: Text
    task: Annotated[str, one_of(TASKS)]
    images: ImageIds
    question: Text | None
    text: Text
    sections: dict[str, Text] | None
    confidence: Fraction | None
    uncertainty: Fraction | None
    evidence: Text | None
    model: ModelVersion
    timings_ms: dict[str, int]
    finished: Truth = True
    series: tuple[Text, ...] = ()
    series_rule: Text | None = None


_ANSWER = TypeAdapter(AnswerJson)


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """Return an answer as `radfound.answer/1`."""
    fields = asdict(answer)
    fields["images"] = list(answer.images)
    if answer.series:
        fields["series"] = list(answer.series)
    else:  # not from an archive
        del fields["series"], fields["series_rule"]
    return {"schema": ANSWER_SCHEMA, "id": fields.pop("id"), **fields}


def answer_from_json(value: object) -> Answer:
    """Parse `radfound.answer/1`; a RequestError names the invalid field."""
    checked = validate(_ANSWER, value, "answer")
    return Answer(**{name: getattr(checked, name) for name in Answer.__dataclass_fields__})


# Corrections ----------------------------------------------------------------------------------

_CORRECTION = TypeAdapter(Correction)
_NEEDED = ("id", "images", "task", "model_text", "verdict", "author")


def correction_to_json(correction: Correction) -> dict[str, Any]:
    """Return a correction as `radfound.correction/1`."""
    return {
        "schema": CORRECTION_SCHEMA,
        "id": correction.id,
        "answer_id": correction.answer_id,
        "images": list(correction.images),
        "task": correction.task,
        "question": correction.question,
        "model_text": correction.model_text,
        "verdict": correction.verdict,
        "text": correction.text,
        "author": correction.author,
        "created": correction.created,
        "model": asdict(correction.model) if correction.model else None,
        "image_hash": correction.image_hash,
        "region": region_to_json(correction.region),
    }


def correction_from_json(value: object) -> Correction:
    """Parse `radfound.correction/1`.

    `answer_id`, `question`, `text`, `created`, `model`, `image_hash` and `region` may be missing or
    null; task and verdict decide whether a question or a text is required.

    Raises
    ------
    CorrectionError
        If a field is missing, unknown or invalid; the message begins with its name.
    """
    if not isinstance(value, Mapping):
        raise CorrectionError(f"correction: found {kind_of(value)}; expected an object")
    if value.get("schema") != CORRECTION_SCHEMA:
        found = str(value.get("schema"))[:40]
        raise CorrectionError(f"schema: found {found!r}; expected {CORRECTION_SCHEMA!r}")
    for name in value:
        if name != "schema" and name not in Correction.__dataclass_fields__:
            raise CorrectionError(f"{str(name)[:40]}: not a field of {CORRECTION_SCHEMA}")
    for name in _NEEDED:
        if value.get(name) is None:
            raise CorrectionError(f"{name}: missing; every correction must have it")
    fields = {name: part for name, part in value.items() if name != "schema" and part is not None}
    return _CORRECTION.validate_python(fields)


# Questions ------------------------------------------------------------------------------------


def _check_turn_count(turns: object) -> object:
    if isinstance(turns, (list, tuple)) and len(turns) > MAX_HISTORY_TURNS:
        raise ValueError(f"found {len(turns)} turns; at most {MAX_HISTORY_TURNS} fit")
    return () if turns is None else turns


def _check_turn_length(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    count = sum(len(turn.question) + len(turn.answer) for turn in turns)
    if count > MAX_HISTORY_CHARS:
        raise ValueError(
            f"found {count:,} characters; at most {MAX_HISTORY_CHARS:,} fit; leave out the oldest turns"
        )
    return turns


def _token_limit(value: object) -> object:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_NEW_TOKENS:
        found = value if isinstance(value, int) and not isinstance(value, bool) else kind_of(value)
        raise ValueError(f"found {found}; expected a whole number from 1 to {MAX_NEW_TOKENS}")
    return value


class AskRequest(BaseModel):
    """A client's request for an answer, caption or report.

    Unknown keys are ignored, since clients of MONAI Label send their own.

    Parameters
    ----------
    question : str or None
        Stripped; None if empty.
    history : tuple of Turn
        Earlier turns, oldest first.
    images : tuple of str
        Ids of the study's images, if there are several; empty otherwise.
    region : Box, Plane or None
    max_new_tokens : int or None
        1 to 512.
    evidence : bool
        Whether an evidence map is requested.
    """

    model_config = CONFIG | ConfigDict(extra="ignore", frozen=True)

    question: Annotated[
        Annotated[Text, Field(max_length=MAX_QUESTION_CHARS)] | None,
        AfterValidator(lambda text: (text or "").strip() or None),
    ] = None
    history: Annotated[
        tuple[Turn, ...], BeforeValidator(_check_turn_count), AfterValidator(_check_turn_length)
    ] = ()
    images: Annotated[ImageIds, BeforeValidator(lambda ids: () if ids is None else ids)] = ()
    region: Region | None = None
    max_new_tokens: Annotated[int | None, BeforeValidator(_token_limit)] = None
    evidence: Annotated[Truth, BeforeValidator(lambda value: False if value is None else value)] = (
        False
    )


_ASK = TypeAdapter(AskRequest)


def parse_ask(params: object) -> AskRequest:
    """Validate the parameters of a request.

    `image` and `model` are rejected: in MONAI Label they would override those in the address.

    Raises
    ------
    RequestError
        If a parameter is invalid; the message begins with its name.
    """
    for name in ("image", "model"):
        if isinstance(params, Mapping) and name in params:
            raise RequestError(f"{name}: belongs in the request's address, not in its params")
    return validate(_ASK, params, "params")


# Errors ---------------------------------------------------------------------------------------


def error_to_json(error: BaseException) -> dict[str, Any]:
    """Return an error as a reply; an unexpected error shows no details."""
    if isinstance(error, StudyAmbiguousError) and error.choices:
        return {"detail": {**_detail(error), "choices": _choices_to_json(error)}}
    if isinstance(error, RadFoundError):
        return {"detail": _detail(error)}
    message = "the server failed on this request; its log has the details"
    return {"detail": {"code": "internal_error", "message": message}}


def _detail(error: RadFoundError) -> dict[str, Any]:
    return {"code": error.code, "message": str(error)}


def _choices_to_json(error: StudyAmbiguousError) -> list[dict[str, Any]]:
    """Return each choice as a request parameter with its description."""
    words = error.words or ("",) * len(error.choices)
    return [
        {error.argument: int(choice) if error.argument == "volume" else choice, "is": text}
        for choice, text in zip(error.choices, words, strict=True)
    ]
