"""The list of studies and the department's templates, under `/radfound/`."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from pydantic import BaseModel

from radfound.records.ranking import reasons_to_read

from ...answering.service import RadFoundService
from ...studies.datastore import StudyDatastore
from .templates import read_templates

router = APIRouter(prefix="/radfound", tags=["RadFound"])

_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)

State = Literal["new", "asked", "read"]


class ListedStudy(BaseModel):
    """A study of the list: new, asked about, or read (it has a final label or a correction).

    `why` is what is known for or against reading it next, as a sentence; null if nothing is known.
    """

    id: str
    name: str
    state: State
    drafts: int
    why: str | None


class StudyList(BaseModel):
    """The server's studies, unread ones first."""

    studies: list[ListedStudy]


class Template(BaseModel):
    """A template of a report; a question in braces is a blank that the model fills."""

    name: str
    text: str


class TemplateList(BaseModel):
    """The department's templates, by name."""

    templates: list[Template]


@router.get("/studies", summary="List studies with their state")
def studies(user: User = Depends(_USER)) -> StudyList:
    """Return every study: new, asked about or read, and how many drafts wait for a reader."""
    app = app_instance()
    service: RadFoundService = app.service
    datastore: StudyDatastore = app.datastore()
    rows = service.log.rows()
    corrected = {image for row in rows for image in row.images}
    unread = set(datastore.get_unlabeled_images()) - corrected
    asked = service.journal.images()
    waiting = app.pacs.waiting_drafts({row.answer_id for row in rows}) if app.pacs else {}
    reasons = reasons_to_read(sorted(unread), service.scores.scores(), corrected)
    reasons |= {image: "A draft waits for a reader." for image in waiting if waiting[image]}
    found = []
    for image in sorted(datastore.list_images()):
        state: State = "read" if image not in unread else "asked" if image in asked else "new"
        listed = ListedStudy(
            id=image,
            name=datastore.title_of(image),
            state=state,
            drafts=waiting.get(image, 0),
            why=None if state == "read" else reasons.get(image),
        )
        found.append(listed)
    order = ("asked", "new", "read")
    return StudyList(
        studies=sorted(found, key=lambda study: (order.index(study.state), not study.drafts))
    )


@router.get("/templates", summary="List the department's templates of reports")
def templates(user: User = Depends(_USER)) -> TemplateList:
    """Return the text files of `.radfound/templates`, in the folder of the server's records."""
    service: RadFoundService = app_instance().service
    rows = read_templates(service.journal.path.parent / "templates")
    return TemplateList(templates=[Template(name=name, text=text) for name, text in rows])
