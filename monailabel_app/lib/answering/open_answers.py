"""Answers that callers wait for: their number and its limit, and their end when the server stops."""

from __future__ import annotations

import threading
import weakref
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from radfound.exceptions import Busy

if TYPE_CHECKING:
    from radfound.engine.answer_stream import AnswerStream
    from radfound.engine.engine import Engine

    from .taught import RecalledAnswer

MAX_RUNNING = 8
MAX_WAITING = 128
_STOP_GRACE_S = 5.0


class OpenAnswer:
    """One answer that a caller waits for, before and after the engine has its question."""

    def __init__(self) -> None:
        self._stream: AnswerStream | RecalledAnswer | None = None
        self._is_cancelled = False
        self._held = ExitStack()
        # Also for an answer that is forgotten, because its caller has gone before the first event.
        self.release = weakref.finalize(self, self._held.close)
        """Let the model be closed; once is enough."""

    def hold(self, engine: AbstractContextManager[Engine]) -> Engine:
        """Keep a model loaded until the answer is closed, and return its engine."""
        return self._held.enter_context(engine)

    @property
    def stream(self) -> AnswerStream | RecalledAnswer:
        """The engine's stream."""
        assert self._stream is not None
        return self._stream

    @stream.setter
    def stream(self, stream: AnswerStream | RecalledAnswer) -> None:
        self._stream = stream
        if self._is_cancelled:
            stream.cancel()

    @property
    def has_begun(self) -> bool:
        """Whether the first token has arrived."""
        return self._stream is not None and self._stream.has_begun

    def cancel(self) -> None:
        """Stop the answer, from any thread."""
        self._is_cancelled = True
        if self._stream is not None:
            self._stream.cancel()


class OpenAnswers:
    """All open answers. Thread-safe.

    One that is forgotten, because its caller has gone before the first event, leaves by itself.
    """

    def __init__(self) -> None:
        self._open: weakref.WeakSet[OpenAnswer] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_stopping = False

    @property
    def running(self) -> int:
        """Number of answers with a first token."""
        with self._lock:
            return sum(answer.has_begun for answer in self._open)

    @property
    def waiting(self) -> int:
        """Number of questions without a first token."""
        with self._lock:
            return sum(not answer.has_begun for answer in self._open)

    def open(self) -> OpenAnswer:
        """Return a new open answer.

        Raises
        ------
        Busy
            If too many are open or the server is stopping.
        """
        with self._lock:
            if self._is_stopping:
                raise Busy("the server is stopping; ask again when it is back")
            if len(self._open) >= MAX_RUNNING + MAX_WAITING:
                raise Busy(f"{MAX_WAITING} questions wait already; ask again in a while")
            answer = OpenAnswer()
            self._open.add(answer)
            return answer

    def close(self, answer: OpenAnswer) -> None:
        """End an answer; it stops if it is still running."""
        answer.cancel()
        answer.release()
        with self._lock:
            self._open.discard(answer)

    def stop(self) -> None:
        """Open no more answers, cancel those that have not begun, and the others after a grace period."""
        with self._lock:
            self._is_stopping = True
            waiting = [answer for answer in self._open if not answer.has_begun]
        for answer in waiting:
            answer.cancel()
        timer = threading.Timer(_STOP_GRACE_S, self._cancel_all)
        timer.daemon = True
        timer.start()

    def _cancel_all(self) -> None:
        with self._lock:
            answers = list(self._open)
        for answer in answers:
            answer.cancel()
