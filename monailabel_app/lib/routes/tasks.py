"""Training, batches and scoring, under MONAI Label's addresses and with its parameters.

Invalid settings are refused before a task starts, and a task's status is always valid JSON.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Depends, Request
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks import utils
from starlette.concurrency import run_in_threadpool

from radfound.exceptions import NotFoundError, RequestError
from radfound.wire import parse_ask

from ..infers import MODELS
from ..lifecycle.tasks import Task, is_over, queues
from .fields import sound_body

router = APIRouter(dependencies=[Depends(sound_body)])

_MOST_BATCH_IMAGES, _MOST_BATCH_WORKERS = 1_000_000, 16
_POLL_S = 0.2

_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)
_ANNOTATOR = RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR)
_ADMIN = RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN)


# Training -------------------------------------------------------------------------------------


@router.post("/train/{model}", tags=["Train"], summary="Fine-tune on the corrections")
async def start_training(
    request: Request,
    model: str,
    params: dict | None = None,
    run_sync: bool = False,
    enqueue: bool = False,
    user: User = Depends(_ADMIN),
) -> Task:
    """Start a training task; parameters that are not settings of the trainer are ignored.

    One task runs at a time. Another is refused with 429 or, with `enqueue`, queued while there is
    room. With `run_sync` the reply is sent when the task ends.
    """
    checked = _named("model", model, app_instance().trainers).check(params or {})
    return await _start(request, "train", {"model": model, **checked}, run_sync, enqueue)


@router.post("/train/", tags=["Train"], include_in_schema=False, deprecated=True)
async def start_every_training(
    request: Request,
    params: dict | None = None,
    run_sync: bool = False,
    user: User = Depends(_ADMIN),
) -> dict[str, Any]:
    """Start every trainer, as old clients of MONAI Label do."""
    tasks = {}
    for model, trainer in app_instance().trainers.items():
        asked = _settings_of(model, params)
        tasks[model] = {"model": model, **trainer.check(asked)}
    return {
        model: {"result": await _start(request, "train", task, run_sync), "detail": None}
        for model, task in tasks.items()
    }


@router.get("/train/", tags=["Train"], summary="Get the state of the newest training")
def training_status(
    all: bool = False, check_if_running: bool = False, user: User = Depends(_USER)
) -> Task | list[Task]:
    """Return the newest training task, all of them, or the running one."""
    return _status("train", all, check_if_running)


@router.delete("/train/", tags=["Train"], summary="Stop the training")
def stop_training(user: User = Depends(_ADMIN)) -> Task | None:
    """Stop the running training; no adapter is published."""
    return _stopped("train")


# Batches --------------------------------------------------------------------------------------


@router.post("/batch/infer/{model}", tags=["Infer"], summary="Ask a model about many images")
async def start_batch(
    request: Request,
    model: str,
    images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
    params: dict | None = None,
    run_sync: bool = False,
    user: User = Depends(_ADMIN),
) -> Task:
    """Start answering about many images; each answer becomes a label with the tag `original`."""
    task = _named("model", model, MODELS)
    checked = _batch_settings(params or {})
    if task == "vqa" and not checked.get("question"):
        raise RequestError("question: missing; expected a question in the body")
    whole = {"model": model, "images": images.value, **checked}
    return await _start(request, "batch_infer", whole, run_sync)


@router.get("/batch/infer", tags=["Infer"], summary="Get the state of the newest batch")
def batch_status(
    all: bool = False, check_if_running: bool = False, user: User = Depends(_USER)
) -> Task | list[Task]:
    """Return the newest batch task, all of them, or the running one."""
    return _status("batch_infer", all, check_if_running)


@router.delete("/batch/infer", tags=["Infer"], summary="Stop the batch")
def stop_batch(user: User = Depends(_ADMIN)) -> Task | None:
    """Stop the running batch; saved labels stay."""
    return _stopped("batch_infer")


def _batch_settings(params: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a batch; RequestError names an invalid one."""
    ask = parse_ask({key: params.get(key) for key in ("question", "max_new_tokens")})
    checked: dict[str, Any] = {
        "max_workers": 1,
        "multi_gpu": False,  # MONAI Label's default fails where there is no GPU
        "device": "cpu",  # for MONAI Label; the model ignores it
        "question": ask.question,
        "max_new_tokens": ask.max_new_tokens,
    }
    for name, most in (
        ("max_workers", _MOST_BATCH_WORKERS),
        ("max_batch_size", _MOST_BATCH_IMAGES),
    ):
        if params.get(name) is not None:
            checked[name] = _whole_number(name, params[name], most)
    if params.get("label_tag") is not None:
        checked["label_tag"] = params["label_tag"]
        if not isinstance(params["label_tag"], str):
            raise RequestError("label_tag: expected text")
    if params.get("labels") is not None:
        checked["labels"] = params["labels"]
        if not isinstance(params["labels"], list):
            raise RequestError("labels: expected a list of names")
    return {key: value for key, value in checked.items() if value is not None}


# Scoring --------------------------------------------------------------------------------------


@router.post("/scoring/{method}", tags=["Scoring"], summary="Score the unread studies")
async def start_scoring(
    request: Request,
    method: str,
    params: dict | None = None,
    run_sync: bool = False,
    user: User = Depends(_ANNOTATOR),
) -> Task:
    """Start scoring the studies that have no answer yet."""
    checked = _named("method", method, app_instance().scoring_methods).check(params or {})
    return await _start(request, "scoring", {"method": method, **checked}, run_sync)


@router.post("/scoring/", tags=["Scoring"], include_in_schema=False, deprecated=True)
async def start_every_scoring(
    request: Request,
    params: dict | None = None,
    run_sync: bool = False,
    user: User = Depends(_ANNOTATOR),
) -> dict[str, Any]:
    """Start every scoring method, as old clients of MONAI Label do."""
    tasks = {
        name: {"method": name, **method.check(_settings_of(name, params))}
        for name, method in app_instance().scoring_methods.items()
    }
    return {
        name: {"result": await _start(request, "scoring", task, run_sync), "detail": None}
        for name, task in tasks.items()
    }


@router.get("/scoring/", tags=["Scoring"], summary="Get the state of the newest scoring")
def scoring_status(
    all: bool = False, check_if_running: bool = False, user: User = Depends(_USER)
) -> Task | list[Task]:
    """Return the newest scoring task, all of them, or the running one."""
    return _status("scoring", all, check_if_running)


@router.delete("/scoring/", tags=["Scoring"], summary="Stop the scoring")
def stop_scoring(user: User = Depends(_ANNOTATOR)) -> Task | None:
    """Stop the running scoring; recorded scores stay."""
    return _stopped("scoring")


# Common ---------------------------------------------------------------------------------------


async def _start(
    request: Request, method: str, asked: dict[str, Any], run_sync: bool, enqueue: bool = False
) -> Task:
    """Start a task; with `run_sync`, wait for its end or until the caller disconnects."""
    task = await run_in_threadpool(queues.start, method, asked, enqueue=enqueue)
    while run_sync and not is_over(task) and not await request.is_disconnected():
        await asyncio.sleep(_POLL_S)
    return _snapshot(task)


def _status(method: str, all: bool, check_if_running: bool) -> Task | list[Task]:
    known = list(utils.tasks(method))
    if check_if_running:
        known = [task for task in known if task["status"] == "RUNNING"]
    if not known:
        raise NotFoundError(f"{method}: no task {'runs' if check_if_running else 'was started'}")
    found = [_snapshot(task) for task in known]
    return found if all and not check_if_running else found[-1]


def _stopped(method: str) -> Task | None:
    task = queues.stop(method)
    return _snapshot(task) if task is not None else None


def _snapshot(task: Task) -> Task:
    """Copy a task, which another thread keeps changing."""
    copy = dict(task)
    return copy | {"details": list(copy["details"])} if "details" in copy else copy


def _named(kind: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise NotFoundError(f"{kind}: found {name[:80]!r}; expected {' or '.join(known)}")
    return known[name]


def _settings_of(name: str, params: dict | None) -> dict[str, Any]:
    asked = (params or {}).get(name) or {}
    if not isinstance(asked, dict):
        raise RequestError(f"{name}: expected an object of settings")
    return asked


def _whole_number(name: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise RequestError(f"{name}: expected a whole number from 0 to {most:,}")
    return value
