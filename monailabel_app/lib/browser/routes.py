"""Routes of the browser panel: its page, the list of studies, and the pictures of a study."""

from __future__ import annotations

import threading
import uuid
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from cachetools import LRUCache
from fastapi import APIRouter, Body, Depends, Query
from fastapi.responses import Response
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from radfound.exceptions import NotFoundError
from radfound.study.evidence_map import Evidence
from radfound.study.study import Study
from radfound.viewer import PAGE as VIEWER
from radfound.viewer.pictures import Picture, pictures_of

from ..answering.service import RadFoundService
from ..answering.shelf import Selection

PANEL = "/radfound/panel"
"""Where the page lies."""
HEADERS = {
    "Cache-Control": "no-cache",
    # OHIF, which this server serves too, shows the page in a frame.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
}
"""Headers of the page and its parts."""

pages = APIRouter(include_in_schema=False)
router = APIRouter(prefix="/radfound", tags=["RadFound"])

_PAGE = Path(__file__).with_name("page")
_TYPES = {".css": "text/css", ".js": "text/javascript", ".html": "text/html"}
_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)

_prepared: weakref.WeakKeyDictionary[Study, tuple[Picture, ...]] = weakref.WeakKeyDictionary()
"""Pictures of loaded studies: their levels and windows are found once."""

_evidence: LRUCache[str, tuple[Picture, ...]] = LRUCache(8)
"""The last evidence maps that were looked at, as pictures, by an id of their own."""
_evidence_lock = threading.Lock()


@pages.get(PANEL)
@pages.get(PANEL + "/{name}")
def page(name: str = "index.html") -> Response:
    """Return the page or one of its parts; they hold nothing of a study."""
    for folder in (_PAGE, VIEWER):
        path = folder / name
        if path.parent == folder and path.suffix in _TYPES and path.is_file():
            return Response(path.read_bytes(), media_type=_TYPES[path.suffix])
    raise NotFoundError("no such page")


@router.get("/pictures", summary="Describe the pictures of a study")
def list_pictures(
    image: str, series: str | None = None, volume: int | None = None, user: User = Depends(_USER)
) -> dict[str, Any]:
    """Return size, planes, windows and encoding of each picture, for `GET /radfound/pictures/{picture}/…`."""
    return {"pictures": [each.to_json() for each in _pictures(image, series, volume)]}


@router.get(
    "/pictures/{picture}/{axis}/{position}",
    summary="Get one slice of a picture",
    response_class=Response,
)
def get_slice(
    picture: int,
    axis: int,
    position: int,
    image: str,
    series: str | None = None,
    volume: int | None = Query(None, ge=0),
    user: User = Depends(_USER),
) -> Response:
    """Return the levels of a slice row by row, little-endian, as `GET /radfound/pictures` describes them."""
    found = _pictures(image, series, volume)
    if not 0 <= picture < len(found):
        raise NotFoundError("no such picture")
    content = found[picture].encoded_slice(axis, position)
    return Response(content, 200, {"Content-Encoding": "gzip"}, "application/octet-stream")


@router.post("/evidence", summary="Compute the evidence maps of an answer or a sentence")
def make_evidence(
    body: dict[str, Any] = Body(...),
    output: Literal["json", "image"] = "json",
    user: User = Depends(_USER),
) -> Any:
    """Return the encoding of each map and the slices where it is highest, for `GET /radfound/evidence/{picture}/…?answer=ID`.

    The body holds the "answer" and, as in its question, "history", "region", "series", "volume" and "prior".
    With "text", a sentence of the answer or another text, the maps are of this text. `output=image` returns
    the first map as NRRD. The maps are always the language model's; the answer's `evidence_note` says where
    the answer is not.
    """
    service: RadFoundService = app_instance().service
    study, found = service.explain(body)
    if output == "image":
        return Response(found.nrrd(), media_type="application/octet-stream")
    pictures = _maps(study, found)
    key = uuid.uuid4().hex
    with _evidence_lock:
        _evidence[key] = pictures
    return {
        "id": key,
        "maps": [{"levels": vars(each.levels), "highest": each.brightest()} for each in pictures],
    }


@router.get(
    "/evidence/{picture}/{axis}/{position}",
    summary="Get one slice of an evidence map",
    response_class=Response,
)
def get_evidence(
    picture: int, axis: int, position: int, answer: str, user: User = Depends(_USER)
) -> Response:
    """Return a slice of the map over the slice of the picture of the same numbers."""
    with _evidence_lock:
        found = _evidence.get(answer, ())
    if not 0 <= picture < len(found):
        raise NotFoundError("no such evidence map, or no longer; compute it again")
    content = found[picture].encoded_slice(axis, position)
    return Response(content, 200, {"Content-Encoding": "gzip"}, "application/octet-stream")


def _maps(study: Study, evidence: Evidence) -> tuple[Picture, ...]:
    """Return the maps as pictures with the planes and sides of the study's images."""
    return tuple(
        Picture(replace(image, voxels=values))
        for image, values in zip(study.images, evidence.maps, strict=True)
    )


def _pictures(image: str, series: str | None, volume: int | None) -> tuple[Picture, ...]:
    service: RadFoundService = app_instance().service
    study = service.studies.get((image,), Selection(series, volume))
    if study not in _prepared:
        _prepared[study] = pictures_of(study)
    return _prepared[study]
