"""Reports to the archive, notifications from it, and drafts, under `/radfound/pacs`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body, Depends
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from radfound.exceptions import NotFoundError, RequestError
from radfound.wire import answer_to_json

from ...pacs.archive import is_uid
from ...pacs.connection import PacsConnection
from ...pacs.records import Outgoing
from ..fields import sound_body

router = APIRouter(prefix="/radfound/pacs", tags=["RadFound"], dependencies=[Depends(sound_body)])

_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)
_ANNOTATOR = RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR)
_SOURCES = ("answer_id", "correction_id")


@router.post("/send", summary="Send a draft or a reader's report to the archive")
def send(body: dict[str, Any] = Body(...), user: User = Depends(_ANNOTATOR)) -> dict[str, Any]:
    """Put a report into the outbox; the same id is sent once.

    The body holds "answer_id" (a draft) or "correction_id" (a reader's accepted or edited report). With
    "evidence": true, the map of a draft over its first series is sent too.
    """
    given = [name for name in _SOURCES if body.get(name) is not None]
    if len(given) != 1 or not isinstance(body[given[0]], str):
        raise RequestError(f"expected one of {' or '.join(_SOURCES)}, as text")
    connection = _connection()
    if given[0] == "answer_id":
        # The map first: if there can be none, nothing is sent.
        is_asked = body.get("evidence") is True
        sent_map = connection.reports.send_map(body["answer_id"]) if is_asked else None
        document = connection.reports.send_answer(body["answer_id"])
        if sent_map is not None:
            connection.delivery.wake()
            return {**_shown(document), "map": _shown(sent_map)}
    else:
        correction = app_instance().service.log.get(body["correction_id"])
        document = connection.reports.send_correction(correction)
    connection.delivery.wake()
    return _shown(document)


@router.get("/outbox", summary="List the documents for the archive, newest first")
def outbox(user: User = Depends(_USER)) -> dict[str, Any]:
    """Return state and identifiers of each document, without its content."""
    return {"documents": [_shown(document) for document in _connection().records.documents()]}


@router.post("/notify", summary="Announce a study that has arrived in the archive")
def notify(body: dict[str, Any] = Body(...), user: User = Depends(_USER)) -> dict[str, Any]:
    """Draft a study if it is new; the body holds "study", its UID."""
    study = body.get("study")
    if not isinstance(study, str) or not is_uid(study):
        raise RequestError("study: expected the UID of a study")
    watcher = _connection().watcher
    if watcher is None:
        raise NotFoundError(
            "this server drafts no new studies; start it with --conf pacs_watch notify"
        )
    watcher.notify(study)
    return {"study": study, "queued": True}


@router.get("/drafts", summary="List the drafts of new studies, newest first")
def drafts(study: str | None = None, user: User = Depends(_USER)) -> dict[str, Any]:
    """Return each draft, of one study or of all, whether a reader has corrected it, and why there is none."""
    corrected = {row.answer_id for row in app_instance().service.log.rows()}
    return {
        "drafts": [
            {
                "study": draft.study_uid,
                "created": draft.created,
                "answer": answer_to_json(draft.answer) if draft.answer else None,
                "problem": draft.problem,
                "is_read": draft.answer is not None and draft.answer.id in corrected,
            }
            for draft in _connection().records.drafts()
            if study in (None, draft.study_uid)
        ]
    }


def _connection() -> PacsConnection:
    connection: PacsConnection = app_instance().pacs
    return connection


def _shown(document: Outgoing) -> dict[str, Any]:
    return {
        "id": document.document_id,
        "kind": document.kind,
        "sop_instance_uid": document.instance_uid,
        "study": document.study_uid,
        "created": document.created,
        "state": document.state,
        "problem": document.problem,
    }
