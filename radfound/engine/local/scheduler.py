"""The scheduler: one thread owns the model and batches the waiting requests."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

from radfound.engine.local.batch import Batch, Prefill
from radfound.engine.local.kv_cache import KVCache
from radfound.engine.local.sequence import RunningSequence, Token
from radfound.exceptions import Cancelled

T = TypeVar("T")
Prepare = Callable[[], tuple[KVCache, Sequence[int]]]

_MAX_RUNNING = 8
_CHUNK_TOKENS = 256
_POLL_S = 0.1
# One thread stays, since the allocator keeps a memory pool for every thread that ever ran.
_LINGER_S = 60.0


class _Request:
    """A caller's request for an answer."""

    def __init__(self, begin: Prepare, limit: int):
        self.begin, self.left = begin, limit
        self.tokens: queue.SimpleQueue[Token | BaseException | None] = queue.SimpleQueue()
        self.is_cancelled = False


_Admitted = tuple[_Request, KVCache, Sequence[int]]


class Scheduler:
    """Decodes several requests in one batch; new requests join between two decoding steps.

    Prompts are prefilled in chunks. After each chunk the running sequences decode for as long as the chunk
    took, so a long prompt slows them down by a factor of 2 at most. The thread ends after a minute without
    work.

    Parameters
    ----------
    batch : Batch
    may_begin : callable
        Called in the scheduler's thread before requests are admitted; takes whether the scheduler is idle,
        returns whether to admit. The adapter is switched here.
    """

    def __init__(self, batch: Batch, may_begin: Callable[[bool], bool]):
        self._batch, self._may_begin = batch, may_begin
        self._lock = threading.Condition()
        self._calls: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._waiting: deque[_Request] = deque()
        self._prefilling: deque[tuple[list[_Request], Prefill]] = deque()
        self._next_chunk = 0.0  # earliest time of the next chunk while sequences run
        self._running: dict[RunningSequence, _Request] = {}
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

    def stream(self, begin: Prepare, limit: int, cancel: threading.Event | None) -> Iterator[Token]:
        """Yield an answer's tokens, at most `limit`.

        Parameters
        ----------
        begin : callable
            Called in the scheduler's thread on admission; returns the KV cache of the prompt's prefix and
            the token ids of the rest. Its exceptions are raised here.
        limit : int
        cancel : threading.Event, optional

        Raises
        ------
        Cancelled
            If `cancel` was set before the end.
        """
        request = _Request(begin, limit)
        with self._lock:
            self._waiting.append(request)
            self._wake()
        try:
            while True:
                if cancel is not None and cancel.is_set():
                    raise Cancelled("the answer was cancelled")
                try:
                    # Short waits, so that `cancel` is noticed.
                    token = request.tokens.get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                if token is None:
                    return
                if isinstance(token, BaseException):
                    raise token
                yield token
        finally:
            request.is_cancelled = True

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
            if request.is_cancelled:
                self._batch.leave(sequence)
                del self._running[sequence]
        self._prefilling = deque(
            (requests, prompts)
            for requests, prompts in self._prefilling
            if not all(request.is_cancelled for request in requests)
        )
        with self._lock:
            self._waiting = deque(request for request in self._waiting if not request.is_cancelled)

    def _admit(self) -> None:
        """Admit waiting requests up to the batch limit and, while others run, the time limit."""
        room = (
            _MAX_RUNNING
            - len(self._running)
            - sum(len(requests) for requests, _ in self._prefilling)
        )
        if not self._waiting or room < 1:
            return
        try:
            if not self._may_begin(self.is_idle):
                return
        except BaseException as error:
            while self._waiting:
                self._waiting.popleft().tokens.put(error)
            return
        short: list[_Admitted] = []
        until = time.monotonic() + _POLL_S
        while self._waiting and room and (self.is_idle or time.monotonic() < until):
            request = self._waiting.popleft()
            try:
                prefix, question = request.begin()
            except BaseException as error:
                request.tokens.put(error)
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
            request.tokens.put(token)
            if token.last or request.left == 0:
                request.tokens.put(None)
                self._batch.leave(sequence)
                del self._running[sequence]

    def _fail(self, error: BaseException) -> None:
        _send_error(self._running.values(), error)
        self._running.clear()
        self._batch.clear()


def _send_error(requests: Iterable[_Request], error: BaseException) -> None:
    for request in requests:
        request.tokens.put(error)
