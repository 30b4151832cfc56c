"""The stream of one answer: a backend's thread puts tokens in, one caller takes them out."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from radfound.exceptions import Cancelled

if TYPE_CHECKING:
    from radfound.engine.instead import Instead
    from radfound.engine.shown import Shown


@dataclass(frozen=True)
class Token:
    """One generated token.

    Parameters
    ----------
    text : str
        Text that the token adds; may be empty while a character is incomplete.
    log_probability : float or None
        None if the backend does not know it.
    entropy : float or None
        Of the next-token distribution, in nats; a lower bound where only the most likely tokens are known.
    last : bool
        Whether it is the stop token.
    """

    text: str
    log_probability: float | None = None
    entropy: float | None = None
    last: bool = False


class Stream:
    """Tokens of one answer, for one caller: iterate over it, or use `async for`.

    A backend calls `put`, then `end` or `fail`; the caller iterates and may `cancel` from any thread.

    Parameters
    ----------
    on_cancel : callable, optional
        Called once, at the first `cancel`, so that the backend frees the slot without polling.
    """

    def __init__(self, on_cancel: Callable[[], None] | None = None):
        self.shown: Shown | None = None
        """What the model was shown; set by the backend before the first token, if it has a recipe."""
        self.encode_ms = 0
        """Time to encode the study, in ms; set by the backend before the first token."""
        self.instead: Instead | None = None
        """What takes the place of the text; set before the first token (`radfound.engine.silence.live`)."""
        self._on_cancel = on_cancel
        self._tokens: deque[Token] = deque()
        self._changed = threading.Condition()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self._error: BaseException | None = None
        self._has_ended = False
        self._is_cancelled = False

    # The backend's side -----------------------------------------------------------------------

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller has cancelled the answer."""
        return self._is_cancelled

    def put(self, token: Token) -> None:
        """Append a token."""
        with self._changed:
            self._tokens.append(token)
            self._notify()

    def end(self) -> None:
        """End the stream after the tokens that are in it."""
        with self._changed:
            self._has_ended = True
            self._notify()

    def fail(self, error: BaseException) -> None:
        """Raise an error from the stream after the tokens that are in it."""
        with self._changed:
            self._error, self._has_ended = error, True
            self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._waiter is not None:
            loop, future = self._waiter
            self._waiter = None
            try:
                loop.call_soon_threadsafe(_wake, future)
            except RuntimeError:  # the caller's event loop has stopped
                self._is_cancelled = True

    # The caller's side ------------------------------------------------------------------------

    def cancel(self) -> None:
        """Stop the answer; the stream then raises Cancelled, unless it had already ended."""
        with self._changed:
            if self._is_cancelled or self._has_ended:
                return
            self._is_cancelled = True
            self._notify()
        if self._on_cancel is not None:
            self._on_cancel()

    def _take(self) -> tuple[bool, Token | None]:
        """Return whether there is something to take, and the token; None at the end."""
        if self._is_cancelled:
            raise Cancelled("the answer was cancelled")
        if self._tokens:
            return True, self._tokens.popleft()
        if self._error is not None:
            raise self._error
        return self._has_ended, None

    def __iter__(self) -> Iterator[Token]:
        while True:
            with self._changed:
                while not (taken := self._take())[0]:
                    self._changed.wait()
            if taken[1] is None:
                return
            yield taken[1]

    async def __aiter__(self) -> AsyncIterator[Token]:
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                is_ready, token = self._take()
                if not is_ready:
                    future = loop.create_future()
                    self._waiter = loop, future
            if not is_ready:
                await future
            elif token is None:
                return
            else:
                yield token


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def ended_stream() -> Stream:
    """Return a stream without tokens, for an answer that no model gives."""
    stream = Stream()
    stream.end()
    return stream
