"""The archive's DICOMweb service for a viewer: read only, streamed, with the query kept."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from monailabel.config import settings
from monailabel.endpoints import datastore
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from radfound.exceptions import NotFoundError, RadFoundError

from ...pacs.datastore import PacsDatastore

proxy = APIRouter(prefix="/proxy", tags=["Others"])
lists = APIRouter(prefix="/datastore", tags=["Datastore"])

_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)
_THREADS = 16
_CHUNK_BYTES = 1 << 18
_RESOURCE = re.compile(r"(studies|series|instances)(/[\w.,%-]+)*/?")
_SERVICES = ("qido", "wado")
_KEPT = ("content-type", "content-length", "content-encoding", "warning", "etag", "x-total-count")

# Own threads: slow images must not take those in which the server's other routes run.
_threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="radfound-proxy")


class ReadOnlyError(RadFoundError):
    """The archive is read through this server; it is not written to by viewers."""

    code = "read_only"
    http_status = 405


@proxy.get("/dicom/{path:path}", include_in_schema=False)
async def read_archive(request: Request, path: str, user: User = Depends(_USER)) -> Any:
    """Pass a QIDO-RS or WADO-RS request on to the archive."""
    service, _, rest = path.partition("/")
    prefix = ""
    store = _archive()
    if service in _SERVICES:
        path, prefix = rest, store.settings.prefixes.get(service, "")
        if service == "qido" and path.endswith("metadata"):  # so asks the viewer; it is of WADO-RS
            prefix = store.settings.prefixes.get("wado", "")
    if not _RESOURCE.fullmatch(path) or ".." in path:
        raise NotFoundError("proxy: expected a resource of studies, series or instances")
    address = f"{prefix.strip('/')}/{path}" if prefix else path
    # Orthanc 1.10 does not decode the commas that the viewer encodes.
    query = request.scope["query_string"].decode("latin-1")
    query = re.sub("includefield=[^&]*", lambda found: found[0].replace("%2C", ","), query)
    loop = asyncio.get_running_loop()
    answer = await loop.run_in_executor(
        _threads,
        store.archive.get,
        address,
        query,
        request.headers.get("accept", "*/*"),
    )
    headers = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
    return StreamingResponse(_content(answer), status_code=answer.status_code, headers=headers)


@proxy.api_route("/dicom/{path:path}", methods=["POST", "PUT", "DELETE"], include_in_schema=False)
async def refuse_writing(path: str, user: User = Depends(_USER)) -> Any:
    """Refuse to write; reports are sent with POST /radfound/pacs/send."""
    raise ReadOnlyError(
        "proxy: this server passes on GET only; send reports with /radfound/pacs/send"
    )


@lists.get("/", summary="List images and labels, or their counts")
def show_list(output: datastore.ResultType | None = None, user: User = Depends(_USER)) -> Any:
    """Return what MONAI Label returns, with a list of studies that is at most half a minute old."""
    _archive().need_list()
    return datastore.datastore(output)


def archive_state(app: Any) -> dict[str, Any]:
    """Return the archive's part of the health reply, empty without an archive; never waits."""
    store = app.datastore()
    if not isinstance(store, PacsDatastore):
        return {}
    state = store.connection
    known = {"reachable": state.is_reachable, "problem": state.problem, "checked": state.checked}
    return {"pacs": {**known, **(app.pacs.state() if app.pacs else {})}}


async def _content(answer: requests.Response) -> AsyncIterator[bytes]:
    """Yield the body as the archive sends it, compressed or not."""
    loop = asyncio.get_running_loop()
    pieces = answer.raw.stream(_CHUNK_BYTES, decode_content=False)
    try:
        while piece := await loop.run_in_executor(_threads, next, pieces, b""):
            yield piece
    finally:
        answer.close()


def _archive() -> PacsDatastore:
    store: PacsDatastore = app_instance().datastore()
    return store
