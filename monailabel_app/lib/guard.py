"""Who may call, and how much they may send; looked at before any route is.

Plain ASGI, so that streams pass through unbuffered.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from radfound.exceptions import RadFoundError, RequestError, StudyTooLargeError
from radfound.wire import error_to_json

from .settings import check_token

logger = logging.getLogger(__name__)

TOKEN_HEADER = "X-RadFound-Token"
"""Where the token goes when `Authorization` carries one of MONAI Label's own authentication."""
MAX_BODY_BYTES = 16 << 20
"""Most bytes of a request that carries no file."""

_DEFAULT_UPLOAD_MB = 2048


class AccessError(RadFoundError):
    """The caller has not shown that they may call."""

    code = "token_needed"
    http_status = 401


class ForeignError(RadFoundError):
    """The call comes from another machine, and there is no token that could show who calls."""

    code = "only_from_this_machine"
    http_status = 403


@dataclass(frozen=True)
class Rules:
    """What the guard goes by.

    Parameters
    ----------
    token : bytes, optional
        What every request must bear; without one, only requests of this machine are answered.
    is_open : bool
        Whether other machines are answered without a token.
    max_upload_bytes : int
    """

    token: bytes | None = None
    is_open: bool = False
    max_upload_bytes: int = _DEFAULT_UPLOAD_MB << 20

    @classmethod
    def of(cls, conf: Mapping[str, str]) -> Rules:
        """Read the app's settings, and the token from `RADFOUND_TOKEN` or `RADFOUND_TOKEN_FILE`.

        A token is no `--conf`: every user of the machine sees a command's arguments.
        """
        limit = conf.get("max_upload_mb", str(_DEFAULT_UPLOAD_MB))
        if not limit.isdecimal() or not 1 <= int(limit) <= 1 << 20:
            raise RequestError(f"max_upload_mb: found {limit!r}; expected 1 to {1 << 20}")
        is_open = conf.get("open", "no")
        if is_open not in ("yes", "no"):
            raise RequestError(f"open: found {is_open!r}; expected yes or no")
        token = check_token(os.environ)
        rules = cls(token.encode("ascii") if token else None, is_open == "yes", int(limit) << 20)
        if rules.token is None and rules.is_open:
            logger.warning(
                "ANY MACHINE THAT REACHES THIS SERVER MAY READ AND CHANGE ITS STUDIES: it was "
                "opened without a token; set RADFOUND_TOKEN to ask for one"
            )
        return rules


class Gate:
    """Let in who bears the token; without one, who calls from this machine.

    The health route asks for the token too: it tells the model and how many corrections there are.
    """

    def __init__(self, app: ASGIApp, rules: Rules):
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan" or (refusal := self._refusal(scope)) is None:
            return await self._app(scope, receive, send)
        await _refuse(refusal, scope, receive, send)

    def _refusal(self, scope: Scope) -> RadFoundError | None:
        if self._rules.token is None:
            if self._rules.is_open or _is_of_this_machine(scope):
                return None
            return ForeignError(
                "the server has no token, so it answers only the machine it runs on; set "
                "RADFOUND_TOKEN where it is started"
            )
        headers = Headers(scope=scope)
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        given = headers.get(TOKEN_HEADER) or (shown.strip() if scheme.lower() == "bearer" else "")
        if hmac.compare_digest(given.encode("utf-8"), self._rules.token):
            return None
        found = "a wrong token" if given else "no token"
        return AccessError(
            f"found {found}; expected the server's, as Authorization: Bearer or {TOKEN_HEADER}"
        )


class BodyLimit:
    """Refuse what is larger than a caller may send, as told by its header or as counted."""

    def __init__(self, app: ASGIApp, rules: Rules):
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count what is read of its body."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        is_form = headers.get("content-type", "").startswith("multipart/form-data")
        limit = self._rules.max_upload_bytes if is_form else MAX_BODY_BYTES
        refusal = StudyTooLargeError(
            f"body: expected at most {limit >> 20} MB; for files, max_upload_mb sets the limit"
        )
        told = headers.get("content-length", "0")
        if not told.isdecimal() or int(told) > limit:
            return await _refuse(refusal, scope, receive, send)
        counted, is_over, has_begun = 0, False, False

        async def counting_receive() -> Message:
            nonlocal counted, is_over
            message = await receive()
            counted += len(message.get("body", b""))
            is_over = is_over or counted > limit
            if is_over:
                raise refusal
            return message

        async def send_unless_over(message: Message) -> None:
            nonlocal has_begun
            if is_over and not has_begun:  # a route's own word on a body that broke off
                return
            has_begun = True
            await send(message)

        try:
            await self._app(scope, counting_receive, send_unless_over)
        except StudyTooLargeError:
            if not is_over or has_begun:
                raise
        if is_over and not has_begun:
            await _refuse(refusal, scope, receive, send)


async def _refuse(error: RadFoundError, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, AccessError) else None
    if scope["type"] == "websocket":
        return await send({"type": "websocket.close", "code": 1008})
    response = JSONResponse(error_to_json(error), status_code=error.http_status, headers=headers)
    await response(scope, receive, send)


def _is_of_this_machine(scope: Scope) -> bool:
    client = scope.get("client")
    if client is None:  # a Unix socket
        return True
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
