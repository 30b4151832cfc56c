"""Access settings."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from radfound.exceptions import RequestError
from radfound.same_origin import Authority

from ..lifecycle.settings import check_token

logger = logging.getLogger(__name__)

_DEFAULT_UPLOAD_MB = 2048


@dataclass(frozen=True)
class Rules:
    """Access settings of one server.

    Parameters
    ----------
    token : bytes, optional
        Required in every request; if None, only requests of this machine are answered.
    is_open : bool
        Whether other machines are answered without a token.
    max_upload_bytes : int
    hosts : tuple of Authority
        Host names that the server accepts besides its own addresses.
    origins : tuple of str
        Origins whose pages may send requests, such as "https://viewer.example.org".
    """

    token: bytes | None = None
    is_open: bool = False
    max_upload_bytes: int = _DEFAULT_UPLOAD_MB << 20
    hosts: tuple[Authority, ...] = ()
    origins: tuple[str, ...] = ()

    @classmethod
    def of(cls, conf: Mapping[str, str]) -> Rules:
        """Read the app's settings, and the token from `RADFOUND_TOKEN` or `RADFOUND_TOKEN_FILE`.

        The token is not a `--conf` setting: every user of the machine sees a command's arguments.
        """
        limit = conf.get("max_upload_mb", str(_DEFAULT_UPLOAD_MB))
        if not limit.isdecimal() or not 1 <= int(limit) <= 1 << 20:
            raise RequestError(f"max_upload_mb: found {limit!r}; expected 1 to {1 << 20}")
        is_open = conf.get("open", "no")
        if is_open not in ("yes", "no"):
            raise RequestError(f"open: found {is_open!r}; expected yes or no")
        hosts = tuple(Authority.parse(name, "hosts") for name in _listed(conf, "hosts"))
        origins = tuple(_listed(conf, "origins"))
        for origin in origins:
            if not re.fullmatch(r"https?://[a-z0-9.:\[\]-]+", origin):
                raise RequestError(
                    f"origins: found {origin!r}; expected such as https://viewer.example"
                )
        token = check_token(os.environ)
        secret = token.encode("ascii") if token else None
        rules = cls(secret, is_open == "yes", int(limit) << 20, hosts, origins)
        if rules.token is None and rules.is_open:
            logger.warning(
                "ANY MACHINE THAT REACHES THIS SERVER MAY READ AND CHANGE ITS STUDIES: it was "
                "opened without a token; set RADFOUND_TOKEN to ask for one"
            )
        return rules


def _listed(conf: Mapping[str, str], name: str) -> list[str]:
    return [each.strip() for each in conf.get(name, "").split(",") if each.strip()]
