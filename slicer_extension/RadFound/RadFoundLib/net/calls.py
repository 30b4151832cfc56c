"""Calls of one server: limits, cancellation, the token, and replies in JSON."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from ..translation import _
from . import bodies, replies
from .address import Address
from .cancellation import Cancellation
from .errors import ClientError
from .transport import Reply, request


class Calls:
    """Sends requests to one server; the parameters are those of `Client`."""

    def __init__(
        self,
        address: str,
        token: Optional[str] = None,
        timeout_s: float = 15.0,
        answer_timeout_s: float = 180.0,
        ca_file: str = "",
    ):
        self._place = Address.parse(address)
        token = (token or "").strip()
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ClientError(_("The token contains an invalid character."), "request")
        self._token = token
        self._timeout_s = timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._ca_file = ca_file

    @property
    def address(self) -> str:
        """The server's normalised address, such as http://127.0.0.1:8000."""
        return str(self._place)

    @property
    def origin(self) -> str:
        """Scheme, host and port of the server."""
        return self._place.origin

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine (a loopback address)."""
        return self._place.is_local

    @property
    def is_private(self) -> bool:
        """Whether the connection is safe from eavesdropping: this machine, or TLS."""
        return self._place.is_private

    def _get(
        self, target: str, cancel: Optional[Cancellation], limit_s: Optional[float] = None
    ) -> Any:
        limit_s = limit_s or self._timeout_s
        call = self._call("GET", target, silence_s=limit_s, limit_s=limit_s, cancel=cancel)
        with call as reply:
            return self._json(reply)

    def _post(
        self,
        target: str,
        value: Any,
        cancel: Optional[Cancellation],
        limit_s: Optional[float] = None,
    ) -> Any:
        limit_s = limit_s or self._timeout_s
        call = self._call(
            "POST",
            target,
            headers={"Content-Type": "application/json"},
            body=bodies.json_bytes(value),
            silence_s=limit_s,
            limit_s=limit_s,
            cancel=cancel,
        )
        with call as reply:
            return self._json(reply)

    def _json(self, reply: Reply) -> Any:
        self._check(reply)
        return replies.read_json(replies.read_all(reply, self._place), self._place)

    def _check(self, reply: Reply) -> None:
        replies.check_status(reply, self._place, bool(self._token))

    @contextmanager
    def _call(self, method: str, target: str, **how: Any) -> Iterator[Reply]:
        """Send a request, by default with the limits of a short call."""
        headers = dict(how.pop("headers", {}))
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        how.setdefault("silence_s", self._timeout_s)
        how.setdefault("ca_file", self._ca_file)
        how.setdefault("limit_s", self._timeout_s)
        with request(self._place, method, target, headers=headers, **how) as reply:
            yield reply
