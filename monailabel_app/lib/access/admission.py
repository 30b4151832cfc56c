"""Authentication by the token, sent with each request or once at a browser's log-in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict

from radfound.exceptions import Busy, RadFoundError

LOG_IN, LOG_OUT = "/radfound/login", "/radfound/logout"
COOKIE = "radfound_session"
LOG_IN_LASTS_S = 12 * 3600

_MOST_LOG_INS = 256
_MOST_WRONG = 60
_WRONG_WINDOW_S = 60.0
_MOST_ADDRESSES = 1024


class AccessError(RadFoundError):
    """The request carries no valid token."""

    code = "token_needed"
    http_status = 401


class GuessingError(Busy):
    """Too many wrong tokens came from one address; its next ones are refused for a while."""

    code = "too_many_wrong_tokens"
    http_status = 429


class Admission:
    """Compare tokens in constant time, and keep browser log-ins in memory.

    A browser gets a random id instead of the token; only the id's digest is kept. Not thread-safe:
    call on the event loop only.

    Parameters
    ----------
    token : bytes
    """

    def __init__(self, token: bytes):
        self._token = token
        self._log_ins: OrderedDict[bytes, float] = OrderedDict()
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def check(self, given: str, address: str) -> None:
        """Compare a token from `address`; raises AccessError or, after many wrong ones, GuessingError."""
        now = time.monotonic()
        began, count = self._wrong.get(address, (now, 0))
        if now - began > _WRONG_WINDOW_S:
            began, count = now, 0
        if count >= _MOST_WRONG:
            wait_s = int(began + _WRONG_WINDOW_S - now) + 1
            raise GuessingError(f"too many wrong tokens; try again in {wait_s} s", wait_s)
        if hmac.compare_digest(given.encode("utf-8"), self._token):
            return
        _put_last(self._wrong, address, (began, count + 1), _MOST_ADDRESSES)
        raise AccessError("found a wrong token; expected the one that the server was started with")

    def log_in(self, given: str, address: str) -> str:
        """Return the id of a new log-in; raises what `check` does."""
        self.check(given, address)
        log_in = secrets.token_urlsafe()
        _put_last(self._log_ins, _digest(log_in), time.monotonic() + LOG_IN_LASTS_S, _MOST_LOG_INS)
        return log_in

    def is_logged_in(self, log_in: str) -> bool:
        """Whether this is the id of a log-in that has not expired."""
        return self._log_ins.get(_digest(log_in), 0.0) > time.monotonic()

    def log_out(self, log_in: str) -> None:
        """Forget a log-in."""
        self._log_ins.pop(_digest(log_in), None)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8")).digest()


def _put_last(kept: OrderedDict, key: object, value: object, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
