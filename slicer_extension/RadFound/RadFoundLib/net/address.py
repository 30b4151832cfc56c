"""The address of a server."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..translation import _
from .errors import ClientError

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """A server's normalised address.

    Parameters
    ----------
    scheme : {"http", "https"}
    host : str
        Name or IP address, the latter without brackets.
    port : int
    prefix : str
        Prefix of every path: empty, or such as "/radiology".
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Parse an address as users type it; ClientError "request" if it is invalid."""
        text = text.strip()
        try:
            parts = urlsplit(text if "://" in text else "http://" + text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port, parts = "", None, urlsplit("")
        # A password would be saved with the address; use a token instead.
        if "@" in parts.netloc:
            raise ClientError(
                _("The address holds a user name or password; enter it without, and use a token."),
                "request",
            )
        is_plain = host.isascii() and not set(host) & set(" %\\\"'<>")
        if parts.scheme not in _PORTS or not host or not is_plain or parts.query or parts.fragment:
            raise ClientError(
                _("This is not a server's address: expected one such as 127.0.0.1:8000."),
                "request",
            )
        return cls(parts.scheme, host, port or _PORTS[parts.scheme], parts.path.rstrip("/"))

    def __str__(self) -> str:
        return self.origin + self.prefix

    @property
    def origin(self) -> str:
        """Scheme, host and port; a token belongs to one origin."""
        return f"{self.scheme}://{self.where}"

    @property
    def where(self) -> str:
        """Host and port, as in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine (a loopback address)."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_private(self) -> bool:
        """Whether the connection is safe from eavesdropping: this machine, or TLS."""
        return self.is_local or self.scheme == "https"
