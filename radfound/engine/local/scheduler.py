"""The scheduler: one thread owns the model and batches the waiting requests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from radfound.engine.local.batch import Batch, Prefill
from radfound.engine.local.kv_cache import KVCache
from radfound.engine.local.sequence import RunningSequence
from radfound.engine.stream import Stream, Token

T = TypeVar("T")
Prepare = Callable[[], tuple[KVCache, Sequence[int]]]

MAX_RUNNING = 8
_CHUNK_TOKENS = 256
_ADMISSION_S = 0.1  # most time for admissions between two steps
# One thread stays, since the allocator keeps a memory pool for every thread that ever ran.
_LINGER_S = 60.0


@dataclass(eq=False)
class Request:
    """A request for an answer.

    Parameters
    ----------
    stream : Stream
        Takes the tokens, or the error.
    adapter : str or None
        Adapter of the answer.
    prepare : callable
        Called in the scheduler's thread on admission; returns the KV cache of the prompt's prefix and the
        token ids of the rest. Its exceptions go to this stream only.
    left : int
        Tokens that the answer may still have.
    """

    stream: Stream
    adapter: str | None
    prepare: Prepare
    left: int


_Admitted = tuple[Request, KVCache, Sequence[int]]


class Scheduler:
    """Decodes several requests in one batch; new requests join between two decoding steps.

    Prompts are prefilled in chunks. After each chunk the running sequences decode for as long as the chunk
    took, so a long prompt slows them down by a factor of 2 at most. The thread ends after a minute without
    work.

    All sequences of the batch have one adapter. Requests are admitted in the order in which they came: one
    with another adapter waits until the batch is empty, and those behind it wait with it, so that no request
    waits forever.

    Parameters
    ----------
    batch : Batch
    use : callable
        Takes an adapter, or None, and loads it into the model; called in the scheduler's thread, before a
        request is admitted, only while no sequence is running. Its exceptions go to the request's stream.
    max_running : int
        Most sequences in the batch.
    """

    def __init__(
        self, batch: Batch, use: Callable[[str | None], None], max_running: int = MAX_RUNNING
    ):
        self._batch, self._use, self._max_running = batch, use, max_running
        self._adapter: str | None = None
        self._lock = threading.Condition()
        self._calls: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._waiting: deque[Request] = deque()
        self._prefilling: deque[tuple[list[Request], Prefill]] = deque()
        self._next_chunk = 0.0  # earliest time of the next chunk while sequences run
        self._running: dict[RunningSequence, Request] = {}
        self._is_running = False

    @property
    def is_idle(self) -> bool:
        """Whether no sequence is running and no prompt is being prefilled."""
        return not (self._running or self._prefilling)

    def call(self, work: Callable[[], T]) -> T:
        """Run a function that uses the model between two steps, and return its result."""
        future: Future[T] = Future()
        with self._lock:
            self._calls.append((work, future))  # type: ignore[arg-type]
            self._wake()
        return future.result()

    def submit(self, request: Request) -> None:
        """Queue a request. A stream that is cancelled leaves the batch before the next step."""
        with self._lock:
            self._waiting.append(request)
            self._wake()

    def cancel_all(self) -> None:
        """Cancel every request."""

        def cancel() -> None:
            prefilling = [request for requests, _ in self._prefilling for request in requests]
            for request in (*self._waiting, *prefilling, *self._running.values()):
                request.stream.cancel()

        self.call(cancel)

    def _wake(self) -> None:
        if self._is_running:
            self._lock.notify()
        else:
            self._is_running = True
            threading.Thread(target=self._run, name="radfound-model", daemon=True).start()

    def _has_work(self) -> bool:
        def pending() -> bool:
            return bool(self._calls or self._waiting or not self.is_idle)

        with self._lock:
            self._is_running = self._lock.wait_for(pending, _LINGER_S)
            return self._is_running

    def _run(self) -> None:
        while self._has_work():
            while self._calls:
                work, future = self._calls.popleft()
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
            try:
                self._drop_cancelled()
                self._admit()
                if self._prefilling and (not self._running or time.monotonic() >= self._next_chunk):
                    self._prefill_chunk()
                if self._running:
                    self._emit(self._batch.step())
            except BaseException as error:  # every waiting caller must get it
                self._fail(error)

    def _drop_cancelled(self) -> None:
        """Remove cancelled requests."""
        for sequence, request in list(self._running.items()):
            if request.stream.is_cancelled:
                self._batch.leave(sequence)
                del self._running[sequence]
        self._prefilling = deque(
            (requests, prompts)
            for requests, prompts in self._prefilling
            if not all(request.stream.is_cancelled for request in requests)
        )
        with self._lock:
            self._waiting = deque(
                request for request in self._waiting if not request.stream.is_cancelled
            )

    def _admit(self) -> None:
        """Admit waiting requests up to the batch limit and, while others run, the time limit."""
        room = (
            self._max_running
            - len(self._running)
            - sum(len(requests) for requests, _ in self._prefilling)
        )
        short: list[_Admitted] = []
        until = time.monotonic() + _ADMISSION_S
        while self._waiting and room and (self.is_idle or time.monotonic() < until):
            request = self._waiting[0]
            is_free = self.is_idle and not short
            if request.adapter != self._adapter and not is_free:
                break
            self._waiting.popleft()
            if request.stream.is_cancelled:
                continue
            try:
                if is_free:
                    self._use(request.adapter)
                    self._adapter = request.adapter
                prefix, question = request.prepare()
            except BaseException as error:
                request.stream.fail(error)
                continue
            room -= 1
            if len(question) > _CHUNK_TOKENS:
                self._start([(request, prefix, question)])
            else:
                short.append((request, prefix, question))
        if short:
            self._start(short)
            self._prefilling.rotate()

    def _start(self, admitted: Sequence[_Admitted]) -> None:
        requests, prefixes, questions = zip(*admitted, strict=True)
        try:
            self._prefilling.append(
                (list(requests), self._batch.begin_prefill(prefixes, questions))
            )
        except BaseException as error:
            _send_error(requests, error)

    def _prefill_chunk(self) -> None:
        """Prefill the next chunk; after the last chunk the sequences start to run."""
        requests, prompts = self._prefilling.popleft()
        began = time.monotonic()
        try:
            first = self._batch.prefill(prompts, _CHUNK_TOKENS)
        except BaseException as error:
            _send_error(requests, error)
            return
        ended = time.monotonic()
        self._next_chunk = ended + (ended - began)
        if first is None:
            self._prefilling.append((requests, prompts))
            return
        self._running |= {
            sequence: request for (sequence, _), request in zip(first, requests, strict=True)
        }
        self._emit(first)

    def _emit(self, tokens: Sequence[tuple[RunningSequence, Token]]) -> None:
        for sequence, token in tokens:
            request = self._running[sequence]
            request.left -= 1
            request.stream.put(token)
            if token.last or request.left == 0:
                request.stream.end()
                self._batch.leave(sequence)
                del self._running[sequence]

    def _fail(self, error: BaseException) -> None:
        _send_error(self._running.values(), error)
        self._running.clear()
        self._batch.clear()


def _send_error(requests: Iterable[Request], error: BaseException) -> None:
    for request in requests:
        request.stream.fail(error)
