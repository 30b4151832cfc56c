"""The one thread that uses the model: it writes waiting answers side by side."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

from radfound.decoding import Batch, Draft, Prefix, Token
from radfound.exceptions import Cancelled

T = TypeVar("T")
Beginning = Callable[[], tuple[Prefix, Sequence[int]]]

_SIDE_BY_SIDE = 8
_LOOK_S = 0.1
# A thread for each answer would leave memory behind: the allocator keeps a pool for every thread.
_LINGER_S = 60.0


class _Order:
    """An answer that somebody waits for."""

    def __init__(self, begin: Beginning, limit: int):
        self.begin, self.left = begin, limit
        self.said: queue.SimpleQueue[Token | BaseException | None] = queue.SimpleQueue()
        self.is_gone = False  # nobody waits any more


class Writer:
    """Writes answers, several at once; newcomers join between two tokens of the others.

    The thread ends when there has been nothing to do for a while.

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
        self._writing: dict[Draft, _Order] = {}
        self._is_running = False

    @property
    def is_idle(self) -> bool:
        """Whether no answer is being written."""
        return not self._writing

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
            return bool(self._calls or self._waiting or self._writing)

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
        with self._lock:
            self._waiting = deque(order for order in self._waiting if not order.is_gone)

    def _admit(self) -> None:
        """Begin as many waiting answers as there is room for."""
        room = _SIDE_BY_SIDE - len(self._writing)
        if not self._waiting or room < 1 or not self._may_begin(self.is_idle):
            return
        orders: list[_Order] = []
        prefixes: list[Prefix] = []
        questions: list[Sequence[int]] = []
        while self._waiting and len(orders) < room:
            order = self._waiting.popleft()
            try:
                prefix, question = order.begin()
            except BaseException as error:
                order.said.put(error)
                continue
            orders.append(order)
            prefixes.append(prefix)
            questions.append(question)
        if orders:
            self._begin(orders, prefixes, questions)

    def _begin(
        self,
        orders: Sequence[_Order],
        prefixes: Sequence[Prefix],
        questions: Sequence[Sequence[int]],
    ) -> None:
        try:
            first = self._batch.join(prefixes, questions)
        except BaseException as error:
            for order in orders:
                order.said.put(error)
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
        for order in self._writing.values():
            order.said.put(error)
        self._writing.clear()
        self._batch.clear()
