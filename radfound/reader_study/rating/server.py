"""Serve a reader study to the browsers of its readers.

Every call has the reader's token in its `Authorization` header. A reader's link holds the token after `#`, which
browsers never send: so the token is in no log and no referrer, needs no cookie, and two readers at one machine are
not confused. The server never opens `key.json`, so it cannot reveal the sources.
"""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from radfound.exceptions import NotFoundError, RadFoundError, RequestError, StorageError, StudyError
from radfound.reader_study.design.config import HOST, PORT
from radfound.reader_study.design.plan import Item, Plan, Reader
from radfound.reader_study.rating.ratings import AGREEMENT, MAX_COMMENT_CHARS, Rating, RatingStore
from radfound.reader_study.rating.render import CaseCache, Picture
from radfound.same_origin import Authority, SameOrigin
from radfound.wire import error_to_json

logger = logging.getLogger(__name__)

_PAGE = Path(__file__).with_name("page")
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MAX_BODY_BYTES = 64 << 10
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}


class AccessError(RadFoundError):
    """The caller has no token of this study."""

    code = "token_needed"
    http_status = 401


class RatingBody(BaseModel):
    """A rating as sent by the browser, with the fields of `Rating`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: str
    value: str
    item: str = ""
    candidate: str = ""
    name: str = ""
    seconds: float = 0.0


def serve(folder: str | Path, host: str = HOST, port: int = PORT) -> None:
    """Serve a study until interrupted.

    Parameters
    ----------
    folder : path
        Folder made by `radfound reader-study create`.
    host : str
        Host to listen on. Traffic is not encrypted, so other machines should connect through an HTTPS proxy.
    port : int

    Raises
    ------
    ReaderStudyError, StorageError
        If the study or its record of ratings cannot be read.
    RequestError
        If the host or port is not available.
    """
    app = create_app(Plan.load(folder))
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise RequestError(
            f"host {host}, port {port}: cannot be opened ({error.strerror}); choose others"
        ) from error
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    with listening:
        uvicorn.Server(config).run(sockets=[listening])


def create_app(plan: Plan) -> FastAPI:
    """Return the application that serves a study.

    Raises
    ------
    StorageError
        If the record of ratings is damaged.
    """
    app = FastAPI(title=plan.title, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.plan, app.state.store, app.state.cache = plan, RatingStore(plan), CaseCache(plan)
    address = urlsplit(plan.address).netloc  # perhaps of a reverse proxy
    hosts = [Authority.parse(address, "address")] if address else []
    app.add_middleware(SameOrigin, hosts=hosts)
    app.add_middleware(_Shield)
    app.add_exception_handler(RadFoundError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_shape)
    _add_page(app)
    _add_calls(app)
    return app


# The page, the same for all readers -------------------------------------------------------------


def _add_page(app: FastAPI) -> None:
    files = {path.name: path.read_bytes() for path in _PAGE.iterdir() if path.suffix in _TYPES}
    start = (_PAGE / "index.html").read_bytes()

    @app.get("/")
    def page() -> Response:
        return Response(start, media_type="text/html")

    @app.get("/page/{name}")
    def part(name: str) -> Response:
        if name not in files:
            raise NotFoundError("no such page")
        return Response(files[name], media_type=_TYPES[Path(name).suffix])


# Calls of a reader -----------------------------------------------------------------


def _reader_of(request: Request) -> Reader:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    reader = request.app.state.plan.reader_of_token(token) if scheme.lower() == "bearer" else None
    if reader is None:
        raise AccessError(
            "this link opens no pages of this study; open the complete link that you received"
        )
    return reader


Caller = Annotated[Reader, Depends(_reader_of)]


def _add_calls(app: FastAPI) -> None:
    plan: Plan = app.state.plan
    store: RatingStore = app.state.store
    cache: CaseCache = app.state.cache

    def pictures_of(item: Item) -> tuple[Picture, ...]:
        try:
            return cache.pictures(plan.case(item.case))
        except StudyError as error:
            logger.error("case %s cannot be shown: %s", item.case, error)
            raise StorageError(
                "the images of this case cannot be read; inform the study's owner, and leave the case for later"
            ) from error

    @app.get("/study")
    def study(reader: Caller) -> dict[str, Any]:
        return _study_to_json(plan, store, reader)

    @app.get("/items/{item_id}")
    def item(item_id: str, reader: Caller) -> dict[str, Any]:
        item = reader.item(item_id)
        pictures = [picture.to_json() for picture in pictures_of(item)]
        return _item_to_json(plan, store, reader, item) | {"images": pictures}

    @app.get("/items/{item_id}/images/{image}/{axis}/{position}")
    def levels(item_id: str, image: int, axis: int, position: int, reader: Caller) -> Response:
        pictures = pictures_of(reader.item(item_id))
        if not 0 <= image < len(pictures):
            raise NotFoundError("no such image")
        content = pictures[image].encoded_slice(axis, position)
        return Response(content, 200, {"Content-Encoding": "gzip"}, "application/octet-stream")

    @app.post("/ratings")
    def rate(rating: RatingBody, reader: Caller) -> dict[str, bool]:
        store.record(Rating(reader=reader.id, **rating.model_dump()))
        return {"saved": True}


def _study_to_json(plan: Plan, store: RatingStore, reader: Reader) -> dict[str, Any]:
    complete = store.complete(reader)
    criteria = [
        {
            "key": each.key,
            "name": each.name,
            "description": each.description,
            "anchors": each.anchors,
        }
        for each in plan.criteria
    ]
    return {
        "title": plan.title,
        "instructions": plan.instructions,
        "reader": reader.id,
        "criteria": criteria,
        "pairwise": plan.pairwise,
        "comment": plan.comment,
        "max_comment_chars": MAX_COMMENT_CHARS,
        "started": any(each.kind != AGREEMENT for each in store.rows(reader.id)),
        "agreed": store.has_agreed(reader.id),
        "items": [{"id": item.id, "complete": item.id in complete} for item in reader.items],
    }


def _item_to_json(plan: Plan, store: RatingStore, reader: Reader, item: Item) -> dict[str, Any]:
    case = plan.case(item.case)
    ratings = [
        {"kind": each.kind, "candidate": each.candidate, "name": each.name, "value": each.value}
        for each in store.latest(reader.id)
        if each.item == item.id and each.kind != AGREEMENT
    ]
    return {
        "id": item.id,
        "task": case.task,
        "question": case.question,
        "context": case.context,
        "candidates": [{"id": each.id, "text": each.text} for each in item.candidates],
        "pairs": item.pairs if plan.pairwise else (),
        "ratings": ratings,
    }


# Refusals and headers -----------------------------------------------------------------------------


def _refuse(request: Request, error: Exception) -> JSONResponse:
    status = error.http_status if isinstance(error, RadFoundError) else 500
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, AccessError) else None
    return JSONResponse(error_to_json(error), status, headers)


def _refuse_shape(request: Request, error: Exception) -> JSONResponse:
    """Name the invalid fields of a request, without repeating their values."""
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    places = sorted({".".join(str(part) for part in each["loc"][1:]) for each in problems})
    return _refuse(
        request, RequestError(f"{', '.join(places)}: missing, unknown or of the wrong kind")
    )


class _Shield:
    """Add security headers to every response, and reject long bodies."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"0")
        is_measured = scope["method"] != "POST" or b"transfer-encoding" not in dict(
            scope["headers"]
        )
        if not is_measured or not length.isdigit() or int(length) > _MAX_BODY_BYTES:
            refusal = JSONResponse(
                error_to_json(RequestError(f"body: expected at most {_MAX_BODY_BYTES} bytes")), 413
            )
            return await refusal(scope, receive, send_with_headers)
        await self._app(scope, receive, send_with_headers)
