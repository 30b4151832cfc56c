"""The JSON contract of server and clients: answers, corrections, questions and errors.

Validation is strict: an invalid value raises an error that names its field; no value is converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    create_model,
)

from radfound.correction import MAX_IMAGES, MAX_QUESTION_CHARS, Correction
from radfound.exceptions import (
    CorrectionError,
    RadFoundError,
    RequestError,
    StudyAmbiguousError,
)
from radfound.question import (
    CANNOT_TELL,
    SOURCES,
    TASKS,
    Answer,
    ModelVersion,
    ReaderText,
    ShownSlices,
    Turn,
)
from radfound.study.region import Region, region_to_json
from radfound.validation import (
    CONFIG,
    Fraction,
    Number,
    Text,
    Truth,
    kind_of,
    one_of,
    validate,
)

ANSWER_SCHEMA = "radfound.answer/1"
CORRECTION_SCHEMA = "radfound.correction/1"
TRAINING_SCHEMA = "radfound.training_status/1"
TRAINING_STATES = ("idle", "running", "published", "refused", "failed", "stopped")
MAX_NEW_TOKENS = 512
MAX_HISTORY_TURNS = 64
MAX_MODELS = 4
"""Most models asked at once."""
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


ImageIds = Annotated[tuple[Text, ...], Field(max_length=MAX_IMAGES), BeforeValidator(_image_ids)]


class AnswerJson(BaseModel):
    """`radfound.answer/1`; `radfound.Answer` documents the fields and `evidence_note`, which is not read."""

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
    evidence_note: Text | None = None
    model: ModelVersion
    timings_ms: dict[str, int]
    finished: Truth = True
    shown: ShownSlices | None = None
    source: Annotated[str, one_of(SOURCES)] = "model"
    reason: Text | None = None
    model_text: Text | None = None
    corrected_by: Text | None = None
    corrected_on: Text | None = None
    contradictions: tuple[ReaderText, ...] = ()
    series: tuple[Text, ...] = ()
    series_rule: Text | None = None


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """Return an answer as `radfound.answer/1`."""
    fields = asdict(answer)
    fields["images"] = list(answer.images)
    fields["contradictions"] = list(answer.contradictions)
    fields["series"] = list(answer.series)
    fields["evidence_note"] = answer.evidence_note
    return {"schema": ANSWER_SCHEMA, "id": fields.pop("id"), **fields}


_ANSWER = TypeAdapter(AnswerJson)


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
        If a field is missing, unknown or invalid, or "cannot tell" is accepted; the message begins with the field's
        name.
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
    correction: Correction = _CORRECTION.validate_python(fields)
    if correction.verdict == "accepted" and correction.text == CANNOT_TELL:
        # Recalled and learnt, it would keep every later model silent about this question.
        raise CorrectionError(
            "verdict: the model gave no answer, so there is none to accept; send the verdict edited with your answer"
        )
    return correction


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


_ModelName = Annotated[Text, Field(min_length=1, max_length=200)]


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
    recall : bool
        Whether a reader's earlier text about the same question answers it at once.
    model_only : bool
        Whether the language model's own text is wanted: without readers' earlier texts, classifiers and silence.
    model : str or None
        Name of the model that answers; None for the server's default.
    models : tuple of str
        Names of several models, for second opinions.
    """

    model_config = CONFIG | ConfigDict(extra="ignore", frozen=True)

    question: Annotated[
        Annotated[Text, Field(max_length=MAX_QUESTION_CHARS)] | None,
        AfterValidator(lambda text: (text or "").strip() or None),
    ] = None
    history: Annotated[
        tuple[Turn, ...],
        Field(max_length=MAX_HISTORY_TURNS),
        BeforeValidator(_check_turn_count),
        AfterValidator(_check_turn_length),
    ] = ()
    images: Annotated[ImageIds, BeforeValidator(lambda ids: () if ids is None else ids)] = ()
    region: Region | None = None
    max_new_tokens: Annotated[
        Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None, BeforeValidator(_token_limit)
    ] = None
    evidence: Annotated[Truth, BeforeValidator(lambda value: False if value is None else value)] = (
        False
    )
    recall: Annotated[Truth, BeforeValidator(lambda value: True if value is None else value)] = True
    model_only: Annotated[
        Truth, BeforeValidator(lambda value: False if value is None else value)
    ] = False
    model: _ModelName | None = None
    models: Annotated[tuple[_ModelName, ...], Field(max_length=MAX_MODELS)] = ()


_ASK = TypeAdapter(AskRequest)


def parse_ask(params: object) -> AskRequest:
    """Validate the parameters of a request.

    `image` is rejected: in MONAI Label it would override the one in the address.

    Raises
    ------
    RequestError
        If a parameter is invalid; the message begins with its name.
    """
    if isinstance(params, Mapping) and "image" in params:
        raise RequestError("image: belongs in the request's address, not in its params")
    return validate(_ASK, params, "params")


# Training -------------------------------------------------------------------------------------


class GateCheck(BaseModel):
    """One check of the gate.

    Parameters
    ----------
    name : str
    words : str
        The outcome for users, with its numbers.
    passed : bool or None
        None if the check was not done.
    value, limit : float or None
        What was measured and its bound, where the outcome is one number.
    """

    model_config = CONFIG

    name: Text
    words: Text
    passed: Truth | None = None
    value: Number | None = None
    limit: Number | None = None


class Skipped(BaseModel):
    """A study whose corrections could not be learnt, and why."""

    model_config = CONFIG

    id: Text
    reason: Text


class TrainingStatus(BaseModel):
    """`radfound.training_status/1`: the running training, or the last one.

    Parameters
    ----------
    id : str or None
        Identifies the run.
    state : str
        "idle" (none yet), "running", "published" (a new adapter is active), "refused" (the gate failed),
        "failed" (an error ended it) or "stopped".
    phase : str
        What a running training is doing, in words for users.
    message : str
        Why it was refused or failed, or what was published, in words for users.
    step, steps : int
        Of the phase; 0 of 0 if it has no steps.
    seconds_left : float or None
        Estimate for the rest of the run; of another model than RadFound's own, for the rest of the phase.
    loss : float or None
    corrections : int or None
        Number of corrections that it learns from.
    checks : tuple of GateCheck
    adapter : str or None
        Id of the published adapter.
    seconds : float or None
        Duration of a training that has ended.
    skipped : tuple of Skipped
        The first studies whose corrections could not be learnt.
    """

    model_config = CONFIG | ConfigDict(frozen=True, revalidate_instances="never")

    schema_: Literal["radfound.training_status/1"] = Field(
        default="radfound.training_status/1", alias="schema"
    )
    id: Text | None = None
    state: Literal["idle", "running", "published", "refused", "failed", "stopped"] = "idle"
    phase: Text = ""
    message: Text = ""
    step: Annotated[int, Field(ge=0)] = 0
    steps: Annotated[int, Field(ge=0)] = 0
    seconds_left: Number | None = None
    loss: Number | None = None
    corrections: int | None = None
    checks: tuple[GateCheck, ...] = ()
    adapter: Text | None = None
    seconds: Number | None = None
    skipped: tuple[Skipped, ...] = ()


_TRAINING = TypeAdapter(TrainingStatus)


def training_from_json(value: object) -> TrainingStatus:
    """Parse `radfound.training_status/1`; a RequestError names the invalid field."""
    return validate(_TRAINING, value, "training")


# Other replies, for the OpenAPI description -----------------------------------------------------


class AskBody(AskRequest):
    """Body of `POST /radfound/ask`.

    Parameters
    ----------
    task : {"vqa", "caption", "report"}
    image, session_id : str
        One of them is needed.
    """

    task: Annotated[str, one_of(TASKS)] = "vqa"
    image: Text = ""
    session_id: Text = ""


_FIELDS: dict[str, Any] = {
    "schema_": (Literal["radfound.correction/1"], Field(alias="schema")),
    **{
        name: (field.annotation, field)
        for name, field in vars(Correction)["__pydantic_fields__"].items()
    },
}
CorrectionJson: Any = create_model("CorrectionJson", __config__=CONFIG, **_FIELDS)
"""`radfound.correction/1`; `radfound.Correction` documents the fields."""


class CorrectionList(BaseModel):
    """Corrections, oldest first."""

    corrections: list[CorrectionJson]


class Receipt(BaseModel):
    """A correction's id, and whether it was new."""

    id: Text
    recorded: Truth


class Adapter(BaseModel):
    """A published adapter with its manifest."""

    id: Text
    active: Truth
    manifest: dict[str, Any]


class AdapterList(BaseModel):
    """Published adapters, the active one (null: the base model), and manifests of refused ones."""

    active: Text | None
    adapters: list[Adapter]
    refused: list[dict[str, Any]]


class ModelHealth(BaseModel):
    """The model that answers; `problem` says why its adapter cannot be used."""

    name: Text
    loaded: Truth
    adapter: Text | None
    problem: Text | None


class ListedModel(BaseModel):
    """A model of the server.

    `destination` tells where images are sent (null: they stay here), `cannot_learn` why it cannot be fine-tuned
    by `POST /train/radfound` (null: it can).
    """

    name: Text
    backend: Text
    loaded: Truth
    destination: Text | None
    cannot_learn: Text | None


class Health(BaseModel):
    """State of the server; `models` lists the default one first."""

    status: Text
    version: Text
    pid: int
    model: ModelHealth
    models: list[ListedModel]
    corrections: int
    training: Truth


class NextStudy(BaseModel):
    """The study to read next and why; an empty object if none is left."""

    id: Text | None = None
    reason: Text | None = None
    skipped: list[Skipped] = []


class ErrorDetail(BaseModel):
    """An error's code and message, and the choices where a request was ambiguous."""

    code: Text
    message: Text
    choices: list[dict[str, Any]] | None = None


class ErrorReply(BaseModel):
    """The reply to a request that failed."""

    detail: ErrorDetail


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
