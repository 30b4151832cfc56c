"""The one thread that uses the model: it writes waiting answers side by side."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

from radfound.engine.local.sequence import Batch, Draft, Prefill, Prefix, Token
from radfound.exceptions import Cancelled

T = TypeVar("T")
Beginning = Callable[[], tuple[Prefix, Sequence[int]]]

_SIDE_BY_SIDE = 8
_PIECE_TOKENS = 256
_LOOK_S = 0.1
# A thread for each answer would leave memory behind: the allocator keeps a pool for every thread.
_LINGER_S = 60.0


class _Order:
    """An answer that somebody waits for."""

    def __init__(self, begin: Beginning, limit: int):
        self.begin, self.left = begin, limit
        self.said: queue.SimpleQueue[Token | BaseException | None] = queue.SimpleQueue()
        self.is_gone = False  # nobody waits any more


_Begun = tuple[_Order, Prefix, Sequence[int]]


class Writer:
    """Writes answers, several at once; newcomers join between two tokens of the others.

    Prompts are read in pieces, and the answers under way get as much time as each piece took: a long
    prompt makes the others at most half as fast, whatever its length. The thread ends when there has been
    nothing to do for a while.

    Parameters
    ----------
    batch : Batch
    may_begin : callable
        Called in the thread before newcomers begin, with whether no answer is under way; returns
        whether they may. Here the adapter is changed.
    """

    def __init__(self, batch: Batch, may_begin: Callable[[bool], bool]):
        self._batch, self._may_begin = batch, may_begin
        self._lock = threading.Condition()
        self._calls: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._waiting: deque[_Order] = deque()
        self._reading: deque[tuple[list[_Order], Prefill]] = deque()
        self._next_piece = 0.0  # when the answers under way have had their time
        self._writing: dict[Draft, _Order] = {}
        self._is_running = False

    @property
    def is_idle(self) -> bool:
        """Whether no answer is being written, and no prompt read."""
        return not (self._writing or self._reading)

    def call(self, work: Callable[[], T]) -> T:
        """Return what a function returns that uses the model, between two tokens."""
        future: Future[T] = Future()
        with self._lock:
            self._calls.append((work, future))  # type: ignore[arg-type]
            self._wake()
        return future.result()

    def write(
        self, begin: Beginning, limit: int, cancel: threading.Event | None
    ) -> Iterator[Token]:
        """Yield an answer's tokens, at most `limit`.

        Parameters
        ----------
        begin : callable
            Called in the thread when it is this answer's turn; returns what the prompt begins with
            and the token ids of the rest. What it raises is raised here.
        limit : int
        cancel : threading.Event, optional

        Raises
        ------
        Cancelled
            If `cancel` was set before the end.
        """
        order = _Order(begin, limit)
        with self._lock:
            self._waiting.append(order)
            self._wake()
        try:
            while True:
                if cancel is not None and cancel.is_set():
                    raise Cancelled("the answer was cancelled")
                try:
                    # Waiting in short steps lets a caller who has given up leave.
                    said = order.said.get(timeout=_LOOK_S)
                except queue.Empty:
                    continue
                if said is None:
                    return
                if isinstance(said, BaseException):
                    raise said
                yield said
        finally:
            order.is_gone = True

    def _wake(self) -> None:
        if self._is_running:
            self._lock.notify()
        else:
            self._is_running = True
            threading.Thread(target=self._run, name="radfound-model", daemon=True).start()

    def _has_work(self) -> bool:
        def something() -> bool:
            return bool(self._calls or self._waiting or not self.is_idle)

        with self._lock:
            self._is_running = self._lock.wait_for(something, _LINGER_S)
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
                self._dismiss()
                self._admit()
                if self._reading and (not self._writing or time.monotonic() >= self._next_piece):
                    self._read_piece()
                if self._writing:
                    self._deliver(self._batch.step())
            except BaseException as error:  # who waits must hear of it, whatever it is
                self._fail(error)

    def _dismiss(self) -> None:
        """Let those leave whom nobody waits for."""
        for draft, order in list(self._writing.items()):
            if order.is_gone:
                self._batch.leave(draft)
                del self._writing[draft]
        self._reading = deque(
            (orders, prompts)
            for orders, prompts in self._reading
            if not all(order.is_gone for order in orders)
        )
        with self._lock:
            self._waiting = deque(order for order in self._waiting if not order.is_gone)

    def _admit(self) -> None:
        """Begin as many waiting answers as there is room and, with others under way, time for."""
        room = _SIDE_BY_SIDE - len(self._writing) - sum(len(orders) for orders, _ in self._reading)
        if not self._waiting or room < 1:
            return
        try:
            if not self._may_begin(self.is_idle):
                return
        except BaseException as error:
            while self._waiting:
                self._waiting.popleft().said.put(error)
            return
        short: list[_Begun] = []
        until = time.monotonic() + _LOOK_S
        while self._waiting and room and (self.is_idle or time.monotonic() < until):
            order = self._waiting.popleft()
            try:
                prefix, question = order.begin()
            except BaseException as error:
                order.said.put(error)
                continue
            room -= 1
            if len(question) > _PIECE_TOKENS:
                self._start([(order, prefix, question)])
            else:
                short.append((order, prefix, question))
        if short:
            self._start(short)
            self._reading.rotate()

    def _start(self, begun: Sequence[_Begun]) -> None:
        orders, prefixes, questions = zip(*begun, strict=True)
        try:
            self._reading.append((list(orders), self._batch.prefill(prefixes, questions)))
        except BaseException as error:
            _tell(orders, error)

    def _read_piece(self) -> None:
        """Read a piece of those whose turn it is; with the last one their answers begin."""
        orders, prompts = self._reading.popleft()
        began = time.monotonic()
        try:
            first = self._batch.read(prompts, _PIECE_TOKENS)
        except BaseException as error:
            _tell(orders, error)
            return
        ended = time.monotonic()
        self._next_piece = ended + (ended - began)
        if first is None:
            self._reading.append((orders, prompts))
            return
        self._writing |= {draft: order for (draft, _), order in zip(first, orders, strict=True)}
        self._deliver(first)

    def _deliver(self, tokens: Sequence[tuple[Draft, Token]]) -> None:
        for draft, token in tokens:
            order = self._writing[draft]
            order.left -= 1
            order.said.put(token)
            if token.last or order.left == 0:
                order.said.put(None)
                self._batch.leave(draft)
                del self._writing[draft]

    def _fail(self, error: BaseException) -> None:
        _tell(self._writing.values(), error)
        self._writing.clear()
        self._batch.clear()


def _tell(orders: Iterable[_Order], error: BaseException) -> None:
    for order in orders:
        order.said.put(error)
