"""Limits of the request size."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from radfound.exceptions import StudyTooLargeError
from radfound.same_origin import refuse

from .rules import Rules

MAX_BODY_BYTES = 16 << 20
"""Largest body of a request without a file."""


class BodyLimit:
    """Refuse bodies over the limit, by their Content-Length and by the bytes received."""

    def __init__(self, app: ASGIApp, rules: Rules):
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count the bytes of its body."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        is_form = headers.get("content-type", "").startswith("multipart/form-data")
        limit = self._rules.max_upload_bytes if is_form else MAX_BODY_BYTES
        refusal = StudyTooLargeError(
            f"body: expected at most {limit >> 20} MB; for files, max_upload_mb sets the limit"
        )
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
            return await refuse(refusal, scope, receive, send)
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
            if is_over and not has_begun:  # drop the route's own error about the cut-off body
                return
            has_begun = True
            await send(message)

        try:
            await self._app(scope, counting_receive, send_unless_over)
        except StudyTooLargeError:
            if not is_over or has_begun:
                raise
        if is_over and not has_begun:
            await refuse(refusal, scope, receive, send)
