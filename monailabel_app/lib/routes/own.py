"""RadFound's own routes, under `/radfound/`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import Response, StreamingResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.utils import processes
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from radfound import __version__
from radfound.exceptions import RadFoundError, RequestError
from radfound.question import TASKS, Answer
from radfound.wire import (
    answer_to_json,
    correction_from_json,
    correction_to_json,
    error_to_json,
)

from ..answering.service import Inquiry, RadFoundService
from .fields import sound_body
from .pacs.archive import archive_state
from .running import run_for

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/radfound", tags=["RadFound"], dependencies=[Depends(sound_body)])

BASE = "base"
_KEEP_ALIVE_S = 15.0

_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)
_ANNOTATOR = RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR)
_ADMIN = RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN)


def _service() -> RadFoundService:
    service: RadFoundService = app_instance().service
    return service


@router.post("/ask", summary="Ask about an image; the answer is sent as server-sent events")
async def ask(
    request: Request, body: dict[str, Any] = Body(...), user: User = Depends(_USER)
) -> StreamingResponse:
    """Stream an answer: `token` events, then one `answer` (or `error`).

    The body holds "task" (default "vqa"), "image" or "session_id", and the `params` of an inference
    request. An invalid request gets a 4xx before the stream begins. Closing the connection cancels
    the answer.
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
        request,
        lambda cancel: service.readers.submit(
            service.inquire, task, params, image=image, session_id=session_id, cancel=cancel
        ),
    )
    stream = _AnswerStream(service, inquiry)
    return StreamingResponse(
        stream.events(),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


class _AnswerStream:
    """Events of a running answer; the answer is cancelled when the client disconnects.

    Constructed on the event loop; raises Busy, before the first event, if the queue is full.
    """

    def __init__(self, service: RadFoundService, inquiry: Inquiry):
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[str | Answer | Exception] = asyncio.Queue()
        self._cancel = threading.Event()
        future = service.begin(lambda: self._generate(service, inquiry), self._cancel)
        future.add_done_callback(self._end)

    def _generate(self, service: RadFoundService, inquiry: Inquiry) -> None:
        for piece in service.stream(inquiry, self._cancel):
            self._put(piece)

    def _end(self, future: Future[None]) -> None:
        error = future.exception()
        if isinstance(error, Exception):
            if not isinstance(error, RadFoundError):
                logger.error("an answer failed", exc_info=error)
            self._put(error)

    def _put(self, piece: str | Answer | Exception) -> None:
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
        except RuntimeError:  # the event loop has stopped
            self._cancel.set()

    async def events(self) -> AsyncIterator[str]:
        """Yield `token` events, then one `answer` or `error`."""
        try:
            while True:
                try:
                    piece = await asyncio.wait_for(self._pieces.get(), _KEEP_ALIVE_S)
                except asyncio.TimeoutError:
                    yield ": still working\n\n"
                    continue
                if isinstance(piece, str):
                    yield _event("token", {"text": piece})
                elif isinstance(piece, Answer):
                    yield _event("answer", answer_to_json(piece))
                    return
                else:
                    yield _event("error", error_to_json(piece)["detail"])
                    return
        finally:
            self._cancel.set()


@router.get("/corrections", summary="List corrections, oldest first")
def list_corrections(
    image: str | None = None, latest: bool = False, user: User = Depends(_USER)
) -> dict[str, Any]:
    """Return all corrections, those of one image, or only the newest for each question."""
    log = _service().log
    rows = log.latest() if latest else log.for_image(image) if image is not None else log.rows()
    if latest and image is not None:
        rows = [row for row in rows if image in row.images]
    return {"corrections": [correction_to_json(row) for row in rows]}


@router.post("/corrections", summary="Record a correction")
def add_correction(body: Any = Body(...), user: User = Depends(_ANNOTATOR)) -> dict[str, Any]:
    """Record a `radfound.correction/1`; a repeated id is recorded once."""
    correction = correction_from_json(body)
    return {"id": correction.id, "recorded": _service().record([correction])[0]}


@router.get("/adapters", summary="List adapters")
def list_adapters(user: User = Depends(_USER)) -> dict[str, Any]:
    """Return the published adapters and the active one (null: the base model)."""
    return _service().adapters.to_json()


@router.post("/adapters/rollback", summary="Go back to the previous adapter")
def roll_back(user: User = Depends(_ADMIN)) -> dict[str, Any]:
    """Activate the previously active adapter."""
    _service().adapters.rollback()
    return _service().adapters.to_json()


@router.post("/adapters/{adapter}/activate", summary="Activate an adapter")
def activate(adapter: str, user: User = Depends(_ADMIN)) -> dict[str, Any]:
    """Activate an adapter from the next question on; `base` means the base model."""
    _service().adapters.activate(None if adapter == BASE else adapter)
    return _service().adapters.to_json()


@router.get("/metrics", summary="Counters for Prometheus", response_class=Response)
def metrics(user: User = Depends(_USER)) -> Response:
    """Return the server's metrics in Prometheus format."""
    found = generate_latest(_service().metrics.registry)
    return Response(found, media_type=CONTENT_TYPE_LATEST)


@router.get("/health", summary="Get the state of the server")
def health() -> dict[str, Any]:
    """Return the state of the server; never waits for a running answer."""
    service = _service()
    adapter, problem = service.adapter()
    return {
        "status": "ok",
        "version": __version__,
        "pid": os.getpid(),  # identifies this server to the script that started it
        "model": {
            "name": service.checkpoint,
            "loaded": service.is_loaded,
            "adapter": adapter,
            "problem": problem,
        },
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
