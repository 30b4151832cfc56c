"""Browser pages that replace MONAI Label's, which load scripts from other hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User

from radfound.exceptions import NotFoundError

from ..access.admission import COOKIE, LOG_IN, LOG_IN_LASTS_S, LOG_OUT, AccessError, GuessingError
from ..access.pages import log_in_page, page
from ..lifecycle.quiet import log_file
from .folders import Folders

router = APIRouter(include_in_schema=False)
logs = APIRouter(prefix="/logs", tags=["Others"])

_MOST_LINES = 10_000
_MOST_LOG_BYTES = 4 << 20
_LINKS = (
    "/radfound/panel",
    "/radfound/health",
    "/info/",
    "/logs/",
    "/radfound/metrics",
    "/ohif/",
    "/openapi.json",
)

_ADMIN = RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN)


@router.get("/")
@router.get("/docs")
def list_routes(request: Request) -> HTMLResponse:
    """Return a plain list of the server's routes."""
    root = escape(request.scope.get("root_path", ""), quote=True)
    links = " · ".join(f'<a href="{root}{path}">{path}</a>' for path in _LINKS)
    rows = "".join(
        f"<tr><td>{method}<td><code>{escape(path)}</code><td>{escape(summary)}"
        for method, path, summary in _operations(request.app.openapi())
    )
    log_out = f'<form method="post" action="{root}{LOG_OUT}"><button>Log out</button></form>'
    return page(
        "RadFound",
        f"<p>Captions, answers and reports about radiology studies. Not a medical device.</p><p>{links}</p>"
        f"{log_out if COOKIE in request.cookies else ''}"
        f"<table><tr><th>Method<th>Route<th>What it does{rows}</table>",
    )


def _operations(description: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for path, methods in sorted(description["paths"].items()):
        for method, operation in methods.items():
            yield method.upper(), path, operation.get("summary", "")


@router.get(LOG_IN)
def show_log_in(request: Request) -> HTMLResponse:
    """Return the page that asks for the token."""
    return log_in_page(request)


@router.post(LOG_IN)
async def log_in(request: Request, token: str = Form(""), then: str = Form("/")) -> Response:
    """Give a browser with the right token a log-in cookie, HttpOnly and SameSite=strict, and send it on to `then`."""
    admission = request.app.state.admission
    # A page of this server only: "//host" and "/\\host" would lead to another.
    here = then if re.fullmatch(r"/(?![/\\])[\x21-\x7e]*", then) else "/"
    done = RedirectResponse(request.scope.get("root_path", "") + here, status_code=303)
    if admission is None:
        return done
    try:
        log_in = admission.log_in(token.strip(), request.client.host if request.client else "")
    except (AccessError, GuessingError) as error:
        return log_in_page(request, str(error), error.http_status, then)
    done.set_cookie(
        COOKIE,
        log_in,
        max_age=LOG_IN_LASTS_S,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return done


@router.post(LOG_OUT)
async def log_out(request: Request) -> Response:
    """Forget a browser's log-in."""
    if request.app.state.admission is not None:
        request.app.state.admission.log_out(request.cookies.get(COOKIE, ""))
    done = RedirectResponse(request.scope.get("root_path", "") + LOG_IN, status_code=303)
    done.delete_cookie(COOKIE)
    return done


@logs.get("/", summary="Show the end of the server's log")
def show_log(
    request: Request,
    lines: int = Query(300, ge=1, le=_MOST_LINES),
    user: User = Depends(_ADMIN),
) -> PlainTextResponse:
    """Return the last lines of the log as plain text."""
    path = log_file()
    if path is None:
        raise NotFoundError("this server does not log to a file")
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _MOST_LOG_BYTES))
        found = file.read(_MOST_LOG_BYTES).decode("utf-8", "replace").splitlines()
    folders: Folders = request.app.state.folders
    return PlainTextResponse(folders.hidden("\n".join(found[-lines:])) + "\n")
