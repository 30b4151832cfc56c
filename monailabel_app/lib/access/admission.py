"""Authentication by the token, sent with each request or once at a browser's log-in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from cachetools import LRUCache, TTLCache

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
        self._log_ins: TTLCache[bytes, None] = TTLCache(_MOST_LOG_INS, LOG_IN_LASTS_S, _now_s)
        # By address: the start of the window, and the number of wrong tokens in it.
        self._wrong: LRUCache[str, tuple[float, int]] = LRUCache(_MOST_ADDRESSES)

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
        self._wrong[address] = began, count + 1
        raise AccessError("found a wrong token; expected the one that the server was started with")

    def log_in(self, given: str, address: str) -> str:
        """Return the id of a new log-in; raises what `check` does."""
        self.check(given, address)
        log_in = secrets.token_urlsafe()
        self._log_ins[_digest(log_in)] = None
        return log_in

    def is_logged_in(self, log_in: str) -> bool:
        """Whether this is the id of a log-in that has not expired."""
        return _digest(log_in) in self._log_ins

    def log_out(self, log_in: str) -> None:
        """Forget a log-in."""
        self._log_ins.pop(_digest(log_in), None)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8")).digest()


def _now_s() -> float:
    return time.monotonic()
