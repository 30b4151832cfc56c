"""Reject cross-origin requests of a reader's browser to a server of this project.

A browser sends requests of any page to any address it can reach, including this machine, so a local
address is no protection. Three headers that pages cannot set identify such requests: `Host` is the
address used by the browser (a name rebound to this machine stays foreign), `Origin` the page, and
`Sec-Fetch-Site` their relation. Clients other than browsers do not send the latter two.

Plain ASGI, so that streams pass through unbuffered.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from radfound.exceptions import RadFoundError, RequestError
from radfound.wire import error_to_json

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class UnknownHostError(RadFoundError):
    """The request names a host that is not this server."""

    code = "host_unknown"
    http_status = 421


class ForeignOriginError(RadFoundError):
    """The request comes from a page of another origin."""

    code = "origin_foreign"
    http_status = 403


class Authority(NamedTuple):
    """Host and port of an address; the port is None if left out."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str, field: str = "Host") -> Authority:
        """Parse `host`, `host:port` or `[address]:port`; otherwise RequestError names the field."""
        found = _AUTHORITY.fullmatch(text.strip().lower())
        if found is None or int(found[2] or 0) > 65535:
            raise RequestError(f"{field}: found {text[:80]!r}; expected a name, or name:port")
        return cls(_plain(found[1].strip("[]")), int(found[2]) if found[2] else None)

    def at(self, port: int) -> Authority:
        """Return the authority with this port as the default."""
        return self if self.port is not None else Authority(self.host, port)


class SameOrigin:
    """ASGI middleware that accepts only requests to an address of this server, from its own pages.

    Loopback names and the address of the connection are addresses of the server, with the listening
    port. `X-Forwarded-Host` is ignored.

    Parameters
    ----------
    app : ASGIApp
    hosts : iterable of Authority
        Further names, such as those of a reverse proxy; a name without a port matches any port.
    origins : iterable of str
        Origins whose pages may send requests, such as "https://viewer.example.org".
    """

    def __init__(
        self, app: ASGIApp, hosts: Iterable[Authority] = (), origins: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it."""
        if scope["type"] == "lifespan" or (refusal := self._refusal(scope)) is None:
            return await self._app(scope, receive, send)
        await refuse(refusal, scope, receive, send)

    def _refusal(self, scope: Scope) -> RadFoundError | None:
        headers = Headers(scope=scope)
        named = headers.getlist("host")
        if len(named) != 1 or not scope["path"].startswith("/"):
            return RequestError("Host: expected one, and a path that begins with /")
        try:
            host = Authority.parse(named[0])
        except RequestError as error:
            return error
        is_named = host in self._hosts or Authority(host.host, None) in self._hosts
        if not is_named and not _is_address_of(scope, host):
            return UnknownHostError(
                f"Host: found {named[0][:80]!r}; expected an address of this server, or a name that it was "
                "told where it was started (--conf hosts NAME; `address` of a reader study)"
            )
        origins = headers.getlist("origin")
        if origins and all(origin.lower() in self._origins for origin in origins):
            return None
        # A TLS proxy is in `hosts`, and its requests may not show the original scheme.
        schemes = ("http", "https") if is_named else (_scheme(scope),)
        is_same = all(_is_origin_of(origin, host, schemes) for origin in origins)
        if is_same and headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return None
        return ForeignOriginError(
            "the call comes from a page of another address; open the server's own address instead"
        )


async def refuse(
    error: RadFoundError,
    scope: Scope,
    receive: Receive,
    send: Send,
    headers: dict[str, str] | None = None,
) -> None:
    """Reply to a request, or a web socket's handshake, with an error."""
    if scope["type"] == "websocket":
        return await send({"type": "websocket.close", "code": 1008})
    response = JSONResponse(error_to_json(error), status_code=error.http_status, headers=headers)
    await response(scope, receive, send)


def _is_address_of(scope: Scope, host: Authority) -> bool:
    """Whether the host is an address of the connection."""
    served, port = scope.get("server") or ("", None)
    is_port = port is None or host.at(_PORTS[scope["scheme"]]).port == port
    return is_port and host.host in (*_LOOPBACK, _plain(served))


def _is_origin_of(origin: str, host: Authority, schemes: tuple[str, ...]) -> bool:
    scheme, _, authority = origin.lower().partition("://")
    if scheme not in schemes:  # "null" too
        return False
    try:
        return Authority.parse(authority).at(_PORTS[scheme]) == host.at(_PORTS[scheme])
    except RequestError:
        return False


def _scheme(scope: Scope) -> str:
    return "https" if _PORTS[scope["scheme"]] == _PORTS["https"] else "http"


def _plain(host: str) -> str:
    """Return an IP address in canonical form; other names are unchanged."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)  # IPv4 on a dual-stack socket
    return str(mapped or address)
