"""RadFound's own routes, under `/radfound/`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import Response, StreamingResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.utils import processes
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from radfound import __version__
from radfound.exceptions import NotFoundError, RadFoundError, RequestError
from radfound.question import TASKS, Answer
from radfound.wire import (
    AdapterList,
    AnswerJson,
    AskBody,
    CorrectionJson,
    CorrectionList,
    Health,
    Receipt,
    answer_to_json,
    correction_from_json,
    correction_to_json,
    error_to_json,
)

from ..answering.inquiry import Inquiry
from ..answering.open_answers import OpenAnswer
from ..answering.opinions import agree, one_for_each, opinions
from ..answering.service import RadFoundService
from .fields import json_body, sound_body
from .pacs.archive import archive_state
from .running import run_for

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/radfound", tags=["RadFound"], dependencies=[Depends(sound_body)])

BASE = "base"
_KEEP_ALIVE_S = 15.0

_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)
_ANNOTATOR = RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR)
_ADMIN = RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN)

_ADAPTERS: dict[int | str, dict[str, Any]] = {200: {"model": AdapterList}}


def _service() -> RadFoundService:
    service: RadFoundService = app_instance().service
    return service


@router.post(
    "/ask",
    summary="Ask about an image; the answer is sent as server-sent events",
    openapi_extra=json_body(AskBody),
    responses={200: {"model": AnswerJson, "description": "`token` events, then one `answer`"}},
)
async def ask(
    request: Request, body: dict[str, Any] = Body(...), user: User = Depends(_USER)
) -> StreamingResponse:
    """Stream an answer: `token` events, then one `answer` (or `error`).

    The body holds "task" (default "vqa"), "image" or "session_id", and the `params` of an inference
    request. An invalid request gets a 4xx before the stream begins. Closing the connection cancels
    the answer. With "models", several answer at once: tokens and errors name theirs, and a last event
    `opinions` tells whether they agree (null where words do not tell).
    """
    service = _service()
    params = {key: body[key] for key in body if key not in ("task", "image", "session_id")}
    task, image, session_id = (
        _text(body, key, default)
        for key, default in (("task", "vqa"), ("image", ""), ("session_id", ""))
    )
    if task not in TASKS:
        raise RequestError(f"task: found {task[:40]!r}; expected {' or '.join(TASKS)}")
    inquiry = await run_for(
        request, service.inquire_soon(task, params, image=image, session_id=session_id)
    )
    if inquiry.ask.models:
        return _event_stream(_events_of_several(service, inquiry))
    answer = await run_for(request, service.begin(inquiry))
    return _event_stream(_events(service, answer, inquiry))


def _event_stream(events: AsyncIterator[str]) -> StreamingResponse:
    return StreamingResponse(
        events,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events_of_several(service: RadFoundService, inquiry: Inquiry) -> AsyncIterator[str]:
    """Yield the events of each model with its name, then one `opinions` that tells whether they agree."""
    answers = []
    async with aclosing(opinions(service, one_for_each(inquiry))) as pieces:
        async for model, piece in ((each.model, each.piece) async for each in pieces):
            if isinstance(piece, str):
                yield _event("token", {"model": model, "text": piece})
            elif isinstance(piece, Answer):
                answers.append(piece)
                yield _event("answer", answer_to_json(piece))
            else:
                yield _event("error", {"model": model, **error_to_json(piece)["detail"]})
    yield _event("opinions", {"agree": agree(answers)})


async def _events(
    service: RadFoundService, answer: OpenAnswer, inquiry: Inquiry
) -> AsyncIterator[str]:
    """Yield `token` events, then one `answer` or `error`, with comments to keep the connection open."""
    pieces = service.pieces(answer, inquiry)
    waiting = asyncio.ensure_future(anext(pieces))
    try:
        while True:
            if not (await asyncio.wait({waiting}, timeout=_KEEP_ALIVE_S))[0]:
                yield ": still working\n\n"
                continue
            piece = waiting.result()
            if isinstance(piece, Answer):
                yield _event("answer", answer_to_json(piece))
                return
            yield _event("token", {"text": piece})
            waiting = asyncio.ensure_future(anext(pieces))
    except RadFoundError as error:
        yield _event("error", error_to_json(error)["detail"])
    except Exception as error:
        logger.exception("an answer failed")
        yield _event("error", error_to_json(error)["detail"])
    finally:
        waiting.cancel()
        service.open_answers.close(answer)


@router.get("/shown/{answer}", summary="List what the model was shown for an answer")
def list_shown(answer: str, user: User = Depends(_USER)) -> dict[str, Any]:
    """Return recipe, note, and the prompt's pictures and words in order, without the question."""
    return _service().shown.get(answer).to_json()


@router.get(
    "/shown/{answer}/{picture}", summary="Get a picture as a model saw it", response_class=Response
)
def get_shown(answer: str, picture: int, user: User = Depends(_USER)) -> Response:
    """Return a picture of `GET /radfound/shown/{answer}`, counted from 0, as a PNG."""
    shown = _service().shown.get(answer)
    if not 0 <= picture < len(shown.pictures):
        raise NotFoundError(f"picture: found {picture}; the model was shown {len(shown.pictures)}")
    return Response(shown.png(picture), media_type="image/png")


@router.get(
    "/corrections",
    summary="List corrections, oldest first",
    responses={200: {"model": CorrectionList}},
)
def list_corrections(
    image: str | None = None, latest: bool = False, user: User = Depends(_USER)
) -> dict[str, Any]:
    """Return all corrections, those of one image, or only the newest for each question."""
    log = _service().log
    rows = log.latest() if latest else log.for_image(image) if image is not None else log.rows()
    if latest and image is not None:
        rows = [row for row in rows if image in row.images]
    return {"corrections": [correction_to_json(row) for row in rows]}


@router.post(
    "/corrections",
    summary="Record a correction",
    openapi_extra=json_body(CorrectionJson),
    responses={200: {"model": Receipt}},
)
def add_correction(body: Any = Body(...), user: User = Depends(_ANNOTATOR)) -> dict[str, Any]:
    """Record a `radfound.correction/1`; a repeated id is recorded once."""
    correction = correction_from_json(body)
    return {"id": correction.id, "recorded": _service().record([correction])[0]}


@router.get("/adapters", summary="List adapters", responses=_ADAPTERS)
def list_adapters(model: str | None = None, user: User = Depends(_USER)) -> dict[str, Any]:
    """Return the published adapters of a model and the active one (null: the base model)."""
    return _service().models.adapters(model).to_json()


@router.post("/adapters/rollback", summary="Go back to the previous adapter", responses=_ADAPTERS)
def roll_back(model: str | None = None, user: User = Depends(_ADMIN)) -> dict[str, Any]:
    """Activate the previously active adapter of a model."""
    adapters = _service().models.adapters(model)
    adapters.rollback()
    return adapters.to_json()


@router.post("/adapters/{adapter}/activate", summary="Activate an adapter", responses=_ADAPTERS)
def activate(
    adapter: str, model: str | None = None, user: User = Depends(_ADMIN)
) -> dict[str, Any]:
    """Activate an adapter of a model from the next question on; `base` means the base model."""
    adapters = _service().models.adapters(model)
    adapters.activate(None if adapter == BASE else adapter)
    return adapters.to_json()


@router.get("/metrics", summary="Counters for Prometheus", response_class=Response)
def metrics(user: User = Depends(_USER)) -> Response:
    """Return the server's metrics in Prometheus format."""
    found = generate_latest(_service().metrics.registry)
    return Response(found, media_type=CONTENT_TYPE_LATEST)


@router.get("/health", summary="Get the state of the server", responses={200: {"model": Health}})
def health() -> dict[str, Any]:
    """Return the state of the server; never waits for a running answer."""
    service = _service()
    adapter, problem = service.models.next_adapter()
    return {
        "status": "ok",
        "version": __version__,
        "pid": os.getpid(),  # identifies this server to the script that started it
        "model": {
            "name": service.models.default,
            "loaded": service.is_loaded,
            "adapter": adapter,
            "problem": problem,
        },
        "models": service.models.to_json(),
        "corrections": service.log.count(),
        "training": bool(processes("train")),
        **archive_state(app_instance()),
    }


def _text(body: dict[str, Any], key: str, default: str) -> str:
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise RequestError(f"{key}: expected text")
    return value


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
