"""What every panel lists: the studies with their state, and the department's templates of reports."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Depends
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from pydantic import BaseModel

from radfound.exceptions import StorageError

from ..answering.service import RadFoundService

router = APIRouter(prefix="/radfound", tags=["RadFound"])

_MAX_TEMPLATE_BYTES = 64 << 10
_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)


class ListedStudy(BaseModel):
    """A study of the server.

    Parameters
    ----------
    id : str
        Its id in requests.
    name : str
        Its name for people.
    state : {"new", "read"}
        "read" if a reader has corrected or accepted an answer about it.
    drafts : int
        Reports that were drafted and wait for a reader.
    """

    id: str
    name: str
    state: Literal["new", "read"]
    drafts: int = 0


class Studies(BaseModel):
    """The studies of the server, by name."""

    studies: list[ListedStudy]


class Template(BaseModel):
    """A template of a report; its blanks are questions in braces."""

    name: str
    text: str


class Templates(BaseModel):
    """The department's templates, by name."""

    templates: list[Template]


@router.get("/studies", summary="List the studies and their state")
def list_studies(user: User = Depends(_USER)) -> Studies:
    """Return every study that can be asked about; `GET /datastore/` has more of each."""
    service: RadFoundService = app_instance().service
    read = service.log.images()
    return Studies(
        studies=[
            ListedStudy(id=image, name=image, state="read" if image in read else "new")
            for image in sorted(service.datastore.list_images())
        ]
    )


@router.get("/templates", summary="List the templates of reports")
def list_templates(user: User = Depends(_USER)) -> Templates:
    """Return the text files of the folder `.radfound/templates` beside the corrections."""
    service: RadFoundService = app_instance().service
    folder = service.log.path.parent / "templates"
    found = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    return Templates(templates=[Template(name=path.stem, text=_text(path)) for path in found])


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_TEMPLATE_BYTES:
            raise StorageError(
                f"template {path.name}: larger than {_MAX_TEMPLATE_BYTES >> 10} KiB; shorten it"
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(
            f"template {path.name}: cannot be read ({error}); expected a text file in UTF-8"
        ) from error
