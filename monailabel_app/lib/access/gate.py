"""Middleware that refuses requests without a valid token or log-in."""

from __future__ import annotations

import ipaddress
from urllib.parse import quote

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from radfound.exceptions import RadFoundError
from radfound.same_origin import refuse

from .admission import COOKIE, LOG_IN, AccessError, Admission, GuessingError
from .pages import log_in_page
from .rules import Rules

TOKEN_HEADER = "X-RadFound-Token"
"""Header for the token when `Authorization` carries MONAI Label's own."""


class ForeignError(RadFoundError):
    """The request comes from another machine, and the server has no token set."""

    code = "only_from_this_machine"
    http_status = 403


class Gate:
    """Admit requests with the token or a log-in; if no token is set, requests of this machine.

    The health route needs the token too, since it returns the model and the number of corrections.
    """

    def __init__(self, app: ASGIApp, rules: Rules, admission: Admission | None = None):
        self._app = app
        self._rules = rules
        self._admission = admission or (Admission(rules.token) if rules.token else None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on or refuse it; a refused browser gets the log-in page."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        call = HTTPConnection(scope)
        try:
            self._check(call)
        except AccessError as error:
            if scope["type"] == "http" and "text/html" in call.headers.get("accept", ""):
                return await log_in_page(call, status_code=401, then=_address(call))(
                    scope, receive, send
                )
            await refuse(error, scope, receive, send, {"WWW-Authenticate": "Bearer"})
        except GuessingError as error:
            await refuse(error, scope, receive, send, {"Retry-After": str(error.retry_after_s)})
        except ForeignError as error:
            await refuse(error, scope, receive, send)
        else:
            await self._app(_without_secrets(scope), receive, send)

    def _check(self, call: HTTPConnection) -> None:
        if self._admission is None:
            if not self._rules.is_open and not _is_of_this_machine(call):
                raise ForeignError(
                    "the server has no token, so it answers only the machine it runs on; set "
                    "RADFOUND_TOKEN where it is started"
                )
            return
        path = call.scope["path"].removeprefix(call.scope.get("root_path", ""))
        if path == LOG_IN or self._admission.is_logged_in(call.cookies.get(COOKIE, "")):
            return
        scheme, _, shown = call.headers.get("authorization", "").partition(" ")
        given = call.headers.get(TOKEN_HEADER) or (
            shown.strip() if scheme.lower() == "bearer" else ""
        )
        if not given:
            raise AccessError(
                f"found no token; expected the server's, as Authorization: Bearer or {TOKEN_HEADER}"
            )
        self._admission.check(given, call.client.host if call.client else "")


def _address(call: HTTPConnection) -> str:
    """Return path and query of a call, as its server names them."""
    path = call.scope["path"].removeprefix(call.scope.get("root_path", ""))
    query = call.scope.get("query_string", b"").decode("latin-1")
    return quote(path) + (f"?{query}" if query else "")


def _without_secrets(scope: Scope) -> Scope:
    """Remove token and log-in from requests that MONAI Label's proxy forwards to a DICOM server."""
    if "/proxy/" not in scope["path"]:
        return scope
    secret = {TOKEN_HEADER.lower().encode(), b"authorization", b"cookie"}
    headers = [(name, value) for name, value in scope["headers"] if name not in secret]
    return {**scope, "headers": headers}


def _is_of_this_machine(call: HTTPConnection) -> bool:
    if call.client is None:  # a Unix socket
        return True
    try:
        return ipaddress.ip_address(call.client.host).is_loopback
    except ValueError:
        return False
