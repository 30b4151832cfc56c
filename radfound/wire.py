"""The JSON that RadFound speaks: answers, corrections, questions and errors.

Every reader here is strict: what has the wrong shape is refused by the name of the field, and
never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from radfound.correction import MAX_IMAGES, MAX_QUESTION_CHARS, Correction, is_storable
from radfound.exceptions import (
    CorrectionError,
    RadFoundError,
    RequestError,
    StudyAmbiguousError,
)
from radfound.question import TASKS, Answer, ModelVersion
from radfound.records.adapters import AdapterStore
from radfound.shapes import kind_of, number_of, object_of
from radfound.study.region import parse_region

ANSWER_SCHEMA = "radfound.answer/1"
CORRECTION_SCHEMA = "radfound.correction/1"
MAX_NEW_TOKENS = 512
MAX_HISTORY_TURNS = 64
MAX_HISTORY_CHARS = 20_000
"""Of all turns together; what the model has room for is counted in tokens later."""

_ANSWER_KEYS = {
    "schema", "id", "task", "images", "question", "text", "sections", "confidence", "uncertainty",
    "evidence", "model", "timings_ms", "finished",
}  # fmt: skip
_CORRECTION_KEYS = {
    "schema", "id", "answer_id", "images", "task", "question", "model_text", "verdict", "text",
    "author", "created", "model", "image_hash", "region",
}  # fmt: skip
_CORRECTION_REQUIRED = ("schema", "id", "images", "task", "model_text", "verdict", "author")


# Answers --------------------------------------------------------------------------------------


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """Return an answer as `radfound.answer/1`."""
    return {
        "schema": ANSWER_SCHEMA,
        "id": answer.id,
        "task": answer.task,
        "images": list(answer.images),
        "question": answer.question,
        "text": answer.text,
        "sections": dict(answer.sections) if answer.sections is not None else None,
        "confidence": answer.confidence,
        "uncertainty": answer.uncertainty,
        "evidence": answer.evidence,
        "model": _model_to_json(answer.model),
        "timings_ms": dict(answer.timings_ms),
        "finished": answer.finished,
    }


def answer_from_json(value: object) -> Answer:
    """Read `radfound.answer/1`; RequestError names the field that is not of its shape."""
    data = object_of("answer", value, RequestError)
    _check_schema(data, ANSWER_SCHEMA, RequestError)
    for key in sorted(_ANSWER_KEYS - {"finished"}):
        if key not in data:
            raise RequestError(f"{key}: missing from the answer")
    task = _text("task", data["task"])
    if task not in TASKS:
        raise RequestError(f"task: found {task[:40]!r}; expected {' or '.join(TASKS)}")
    return Answer(
        id=_text("id", data["id"]),
        task=task,
        images=_ids("images", data["images"]),
        question=_optional_text("question", data["question"]),
        text=_text("text", data["text"]),
        sections=_sections(data["sections"]),
        confidence=_fraction("confidence", data["confidence"]),
        uncertainty=_fraction("uncertainty", data["uncertainty"]),
        evidence=_optional_text("evidence", data["evidence"]),
        model=_model_from_json(data["model"], RequestError),
        timings_ms=_timings(data["timings_ms"]),
        finished=_truth("finished", data.get("finished", True)),
    )


# Corrections ----------------------------------------------------------------------------------


def correction_to_json(correction: Correction) -> dict[str, Any]:
    """Return a correction as `radfound.correction/1`."""
    model = correction.model
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
        "model": _model_to_json(model) if model is not None else None,
        "image_hash": correction.image_hash,
        "region": correction.region,
    }


def correction_from_json(value: object) -> Correction:
    """Read `radfound.correction/1`.

    `answer_id`, `question`, `text`, `created`, `model`, `image_hash` and `region` may be left out
    or null; whether a question or a text is needed depends on the task and the verdict.

    Raises
    ------
    CorrectionError
        If a field is missing, unknown or not of its shape; the message begins with its name.
    """
    data = object_of("correction", value, CorrectionError)
    _check_schema(data, CORRECTION_SCHEMA, CorrectionError)
    for key in data:
        if key not in _CORRECTION_KEYS:
            raise CorrectionError(f"{str(key)[:40]}: not a field of {CORRECTION_SCHEMA}")
    for key in _CORRECTION_REQUIRED:
        if data.get(key) is None:
            raise CorrectionError(f"{key}: missing; every correction needs it")
    fields = {key: data[key] for key in data if key != "schema" and data[key] is not None}
    if "model" in fields:
        fields["model"] = _model_from_json(fields["model"], CorrectionError)
    return Correction(**fields)


# Questions ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AskRequest:
    """What a caller asks, checked, whatever the task.

    Parameters
    ----------
    question : str or None
        Without surrounding blanks; None where nothing was asked.
    history : tuple of {"question": str, "answer": str}
        Earlier turns, oldest first.
    images : tuple of str
        Ids of the study's images where there is more than one; empty otherwise.
    region : dict or None
        As `radfound.study.region.parse_region` returns it.
    max_new_tokens : int or None
        1 to 512.
    evidence : bool
        Whether a map of where the model looked is wanted too.
    """

    question: str | None = None
    history: tuple[dict[str, str], ...] = ()
    images: tuple[str, ...] = ()
    region: dict[str, Any] | None = None
    max_new_tokens: int | None = None
    evidence: bool = False


def parse_ask(params: object) -> AskRequest:
    """Check the parameters that a client sends with a question.

    Keys that are not of an `AskRequest` are ignored, since clients of MONAI Label send their own;
    but `image` and `model` are refused: MONAI Label would let them replace those of the address.

    Raises
    ------
    RequestError
        If a parameter is not of its shape; the message begins with its name.
    """
    data = object_of("params", params)
    for key in ("image", "model"):
        if key in data:
            raise RequestError(f"{key}: belongs in the request's address, not in its params")
    question = _optional_text("question", data.get("question"), MAX_QUESTION_CHARS)
    return AskRequest(
        question=(question or "").strip() or None,
        history=_history(data.get("history")),
        images=_ids("images", data["images"]) if data.get("images") is not None else (),
        region=parse_region(data.get("region")),
        max_new_tokens=_token_limit(data.get("max_new_tokens")),
        evidence=data.get("evidence") is not None and _truth("evidence", data["evidence"]),
    )


# Errors and adapters --------------------------------------------------------------------------


def error_to_json(error: BaseException) -> dict[str, Any]:
    """Return what the server says about an error; nothing of an error that was not foreseen."""
    if isinstance(error, StudyAmbiguousError) and error.choices:
        return {"detail": {**_detail(error), "choices": _choices_to_json(error)}}
    if isinstance(error, RadFoundError):
        return {"detail": _detail(error)}
    message = "the server failed at this request; its log says more"
    return {"detail": {"code": "internal_error", "message": message}}


def adapters_to_json(store: AdapterStore) -> dict[str, Any]:
    """Return the published adapters, which one is active (null: the base model), and what was refused."""
    return {
        "active": store.active(),
        "adapters": [
            {"id": info.id, "active": info.active, "manifest": info.manifest}
            for info in store.list()
        ],
        "refused": store.refusals(),
    }


# Parts ----------------------------------------------------------------------------------------


def _detail(error: RadFoundError) -> dict[str, Any]:
    return {"code": error.code, "message": str(error)}


def _choices_to_json(error: StudyAmbiguousError) -> list[dict[str, Any]]:
    """Return what can be asked for instead: the parameter as a request has it, and what it is."""
    words = error.words or ("",) * len(error.choices)
    return [
        {error.argument: int(choice) if error.argument == "volume" else choice, "is": text}
        for choice, text in zip(error.choices, words, strict=True)
    ]


def _check_schema(data: Mapping[str, Any], expected: str, error: type[RequestError]) -> None:
    found = data.get("schema")
    if found != expected:
        raise error(f"schema: found {str(found)[:40]!r}; expected {expected!r}")


def _text(name: str, value: object, limit: int | None = None) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{name}: found {kind_of(value)}; expected text")
    if limit is not None and len(value) > limit:
        raise RequestError(f"{name}: found {len(value):,} characters; at most {limit:,} fit")
    if not is_storable(value):
        raise RequestError(f"{name}: holds half a surrogate pair; expected valid Unicode")
    return value


def _optional_text(name: str, value: object, limit: int | None = None) -> str | None:
    return None if value is None else _text(name, value, limit)


def _ids(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise RequestError(f"{name}: found {kind_of(value)}; expected a list of ids")
    if len(value) > MAX_IMAGES:
        raise RequestError(f"{name}: found {len(value)} ids; at most {MAX_IMAGES} are read at once")
    ids = tuple(_text(f"{name}[{index}]", each) for index, each in enumerate(value))
    if not all(each.strip() for each in ids):
        raise RequestError(f"{name}: found an empty id; expected the image's id")
    return ids


def _history(value: object) -> tuple[dict[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise RequestError(f"history: found {kind_of(value)}; expected a list of turns")
    if len(value) > MAX_HISTORY_TURNS:
        raise RequestError(f"history: found {len(value)} turns; at most {MAX_HISTORY_TURNS} fit")
    turns = []
    for index, each in enumerate(value):
        turn = object_of(f"history[{index}]", each, RequestError)
        turns.append(
            {
                key: _text(f"history[{index}].{key}", turn.get(key), MAX_HISTORY_CHARS)
                for key in ("question", "answer")
            }
        )
    count = sum(len(text) for turn in turns for text in turn.values())
    if count > MAX_HISTORY_CHARS:
        raise RequestError(
            f"history: found {count:,} characters; at most {MAX_HISTORY_CHARS:,} fit; "
            "leave out the oldest turns"
        )
    return tuple(turns)


def _token_limit(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_NEW_TOKENS:
        found = value if isinstance(value, int) and not isinstance(value, bool) else kind_of(value)
        raise RequestError(
            f"max_new_tokens: found {found}; expected a whole number from 1 to {MAX_NEW_TOKENS}"
        )
    return value


def _fraction(name: str, value: object) -> float | None:
    if value is None:
        return None
    number = number_of(name, value)
    if not 0 <= number <= 1:
        raise RequestError(f"{name}: found {number:g}; expected 0 to 1, or null")
    return number


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"{name}: found {kind_of(value)}; expected true or false")
    return value


def _sections(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    sections = object_of("sections", value, RequestError)
    return {str(key): _text(f"sections.{key}", text) for key, text in sections.items()}


def _timings(value: object) -> dict[str, int]:
    timings = object_of("timings_ms", value, RequestError)
    return {str(key): round(number_of(f"timings_ms.{key}", ms)) for key, ms in timings.items()}


def _model_to_json(model: ModelVersion) -> dict[str, str | None]:
    return {"name": model.name, "revision": model.revision, "adapter": model.adapter}


def _model_from_json(value: object, error: type[RequestError]) -> ModelVersion:
    data = object_of("model", value, error)
    for key, kinds in (("name", str), ("revision", str), ("adapter", (str, type(None)))):
        if not isinstance(data.get(key), kinds):
            raise error(f"model.{key}: found {kind_of(data.get(key))}; expected text")
    return ModelVersion(data["name"], data["revision"], data.get("adapter"))
