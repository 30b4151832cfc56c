"""Addresses of model servers: which are allowed, and where pictures are sent."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from radfound.exceptions import ModelSettingsError

EXAMPLE = "http://127.0.0.1:8001/v1#name"


@dataclass(frozen=True)
class Address:
    """Address of a model server, and the name of a model there.

    Parameters
    ----------
    url : str
        Base URL of the protocol, such as "http://127.0.0.1:8001/v1".
    model : str or None
        Name of the model in requests; None for the only one that the server has.
    """

    url: str
    model: str | None = None

    @property
    def host(self) -> str:
        """Host name or IP address, lower case."""
        return urlsplit(self.url).hostname or ""

    @property
    def root(self) -> str:
        """URL of the server without the protocol's path, where servers keep routes of their own."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path.removesuffix('/v1')}"

    @property
    def is_this_machine(self) -> bool:
        """Whether the host is a loopback address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def destination(self) -> str | None:
        """Where pictures go, in words for the reader; None if they stay on this machine."""
        if self.is_this_machine:
            return None
        words = f"Images are sent to {self.host}"
        return words if self.url.startswith("https:") else f"{words}, without encryption"


def parse_address(text: str, send_images_to: Collection[str] = ()) -> Address:
    """Parse an address from the settings.

    Parameters
    ----------
    text : str
        URL; the name of the model may follow after "#".
    send_images_to : collection of str
        Hosts other than this machine that may receive pictures.

    Raises
    ------
    ModelSettingsError
        If it is no http address, holds a key or a password, or its host may not receive pictures.
    """
    parts = urlsplit(text)
    if parts.username or parts.password or parts.query:
        raise ModelSettingsError(
            "place: the address holds a user, password or query; put the key in a file or an environment "
            "variable, and name it by `key`"
        )
    try:
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        is_url = False
    if not is_url:
        raise ModelSettingsError(
            f"place: found {text[:80]!r}; expected an address such as {EXAMPLE}"
        )
    path = parts.path.rstrip("/") or "/v1"
    address = Address(f"{parts.scheme}://{parts.netloc.lower()}{path}", parts.fragment or None)
    if not address.is_this_machine and address.host not in {h.lower() for h in send_images_to}:
        raise ModelSettingsError(
            f"place: {address.host} is not this machine; patients' images may be sent there only if the "
            f"settings name it: send_images_to {address.host}"
        )
    return address
