"""Routes of what corrections teach: withdrawals, previews, templates and the agreement of readers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Body, Depends
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from radfound.exceptions import RadFoundError, RequestError
from radfound.teaching import Teaching
from radfound.teaching.agreement import consistency
from radfound.teaching.effect import Unread, effect_of
from radfound.teaching.teaching import TemplateState

from ...answering.service import RadFoundService
from ..fields import sound_body

router = APIRouter(prefix="/radfound", tags=["RadFound"], dependencies=[Depends(sound_body)])

_PREVIEW_S = 5.0  # for loading studies whose digest is not known

_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)
_ANNOTATOR = RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR)


def _teaching() -> Teaching:
    teaching: Teaching = app_instance().teaching
    return teaching


@router.post("/corrections/{correction}/withdraw", summary="Take a correction back")
def withdraw(
    correction: str, body: dict[str, Any] = Body(...), user: User = Depends(_ANNOTATOR)
) -> dict[str, Any]:
    """Record that a correction no longer holds; the body names the "author". A second call changes nothing."""
    service: RadFoundService = app_instance().service
    return {"id": correction, "withdrawn": service.log.withdraw(correction, _author(body))}


@router.get("/corrections/{correction}/effect", summary="Preview what a correction changes")
def effect(correction: str, user: User = Depends(_USER)) -> dict[str, Any]:
    """Return the unread studies on which a correction changes the answer to its question."""
    service: RadFoundService = app_instance().service
    service.log.get(correction)
    found = effect_of(_teaching(), correction, _unread(service))
    return asdict(found) | {"told": found.told()}


@router.get("/wordings", summary="List templates of the department's wording")
def list_templates(user: User = Depends(_USER)) -> dict[str, Any]:
    """Return the proposed, accepted and refused templates."""
    return {"wordings": [_template_to_json(each) for each in _teaching().templates()]}


@router.post("/wordings/{template}/accept", summary="Apply a template from the next answer on")
def accept(
    template: str, body: dict[str, Any] = Body(...), user: User = Depends(_ANNOTATOR)
) -> dict[str, Any]:
    """Accept a template; the body names the "author". It replaces the one accepted for the same question."""
    decision = _teaching().accept(template, _author(body))
    return {"id": template, "state": decision.state, "version": decision.version}


@router.post("/wordings/{template}/refuse", summary="Refuse a template")
def refuse(
    template: str, body: dict[str, Any] = Body(...), user: User = Depends(_ANNOTATOR)
) -> dict[str, Any]:
    """Refuse a template, accepted before or not; the body names the "author"."""
    decision = _teaching().refuse(template, _author(body))
    return {"id": template, "state": decision.state, "version": decision.version}


@router.get("/readers", summary="Compare the readers' corrections")
def list_readers(user: User = Depends(_USER)) -> dict[str, Any]:
    """Return for each author how often the corrections agree with others', with earlier ones and with heads."""
    teaching = _teaching()
    found = consistency(teaching.memory.rows(), features=teaching.features)
    return {"confirm": teaching.confirm, "readers": [asdict(each) for each in found]}


def _unread(service: RadFoundService) -> Iterator[Unread]:
    """Yield the studies without a correction; after a few seconds, without their digests."""
    read = service.log.images()
    until = time.monotonic() + _PREVIEW_S
    for image in sorted(service.datastore.list_images()):
        if image not in read:
            yield Unread((image,), _digest(service, image) if time.monotonic() < until else None)


def _digest(service: RadFoundService, image: str) -> str | None:
    try:
        return service.studies.get((image,)).digest
    except RadFoundError:  # unreadable: no question about it has an answer
        return None


def _template_to_json(state: TemplateState) -> dict[str, Any]:
    decision = state.decision
    return {
        **asdict(state.template),
        "state": state.state,
        "version": decision.version if decision else None,
        "author": decision.author if decision else None,
        "decided": decision.created if decision else None,
    }


def _author(body: dict[str, Any]) -> str:
    author = body.get("author")
    if not isinstance(author, str) or not author.strip():
        raise RequestError('author: missing; expected a name, as {"author": "Dr A"}')
    return author
