"""The one thread that runs the model: admits questions, decodes them together, runs single calls between steps."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from radfound.engine.transformers.adapters import Adapters
from radfound.engine.transformers.decoding import AnswerRow, Batch, Decoder
from radfound.engine.transformers.prefixes import Prefix
from radfound.exceptions import Busy, Cancelled

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Request:
    """A question whose pictures are ready.

    Parameters
    ----------
    row : AnswerRow
    prefix : callable
        Returns the prefix; runs on the worker, because it may have to prefill.
    rest : list of int
        Token ids after the pictures.
    """

    row: AnswerRow
    prefix: Callable[[], Prefix]
    rest: list[int]


class Worker:
    """Runs a model in one thread.

    Each turn runs the single calls, admits one question, then decodes one token of every answer: a long prefill
    delays the others once, not for each waiting question.

    Parameters
    ----------
    decoder : Decoder
    adapters : Adapters
    """

    def __init__(self, decoder: Decoder, adapters: Adapters):
        self._decoder = decoder
        self._adapters = adapters
        self._waiting: deque[Request] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future]] = deque()
        self._batches: list[Batch] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="radfound-transformers", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue a question."""
        with self._changed:
            if not self._is_closed:
                self._waiting.append(request)
                self._changed.notify()
                return
        request.row.stream.fail(Cancelled("the model was closed"))

    def call(self, function: Callable[[], T]) -> T:
        """Run a function between two decoding steps and return its result."""
        future: Future[T] = Future()
        with self._changed:
            if self._is_closed:
                raise Cancelled("the model was closed")
            self._calls.append((function, future))
            self._changed.notify()
        return future.result()

    def wake(self) -> None:
        """Let the worker look for cancelled answers."""
        with self._changed:
            self._changed.notify()

    def is_using(self, adapter: str) -> bool:
        """Whether an answer with this adapter is being decoded; call it on the worker."""
        return any(batch.adapter == adapter for batch in self._batches)

    def close(self) -> None:
        """End all answers and the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._is_closed or self._calls or self._waiting or self._batches):
                    self._changed.wait()
                if self._is_closed:
                    break
                calls, self._calls = self._calls, deque()
                request = self._waiting.popleft() if self._waiting else None
            for function, future in calls:
                _finish(function, future)
            if request is not None and not request.row.stream.is_cancelled:
                self._admit(request)
            for batch in self._batches:
                self._step(batch)
            self._batches = [batch for batch in self._batches if batch.rows]
        self._end_all()

    def _admit(self, request: Request) -> None:
        row = request.row
        try:
            self._adapters.use(row.adapter)
            prefix = request.prefix()
            self._adapters.use(row.adapter)
            if row.stream.is_cancelled:
                return
            batch = next(
                (b for b in self._batches if b.adapter == row.adapter and b.takes(prefix)), None
            )
            if batch is None:
                batch = Batch(self._decoder, row.adapter)
                self._batches.append(batch)
            batch.join(row, prefix, request.rest)
        except Exception as error:  # an error ends this answer, and not the thread of all others
            row.stream.fail(_named(error))
            for batch in self._batches:
                batch.remove(row)

    def _step(self, batch: Batch) -> None:
        try:
            self._adapters.use(batch.adapter)
            batch.step()
        except Exception as error:
            logger.exception("a decoding step failed")
            batch.fail(_named(error))

    def _end_all(self) -> None:
        ended = Cancelled("the model was closed")
        for batch in self._batches:
            batch.fail(ended)
        for request in self._waiting:
            request.row.stream.fail(ended)
        for _, future in self._calls:
            future.set_exception(ended)


def _finish(function: Callable[[], Any], future: Future) -> None:
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(_named(error))


def _named(error: Exception) -> Exception:
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        return Busy(
            "the device's memory is full; ask again later, about a region, or load the model in 4 bits"
        )
    return error
