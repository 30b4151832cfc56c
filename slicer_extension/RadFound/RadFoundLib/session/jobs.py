"""Background jobs: a worker thread, and callbacks on Slicer's main thread."""

import logging
import queue
import threading
import time
from collections import deque
from typing import Any, Callable, Optional

from ..net.cancellation import Cancellation
from ..net.errors import ClientError
from ..translation import _

logger = logging.getLogger(__name__)

_YIELD_S = 0.002

Function = Callable[["Job"], Any]
Callback = Optional[Callable[[Any], None]]


class Job:
    """A function that runs in the background; created by `Jobs.submit`.

    The function gets the Job: it passes `job.cancellation` to the client, and calls `job.report`
    with the values for `on_progress`.
    """

    def __init__(
        self,
        jobs: "Jobs",
        function: Function,
        on_done: Callback,
        on_error: Callback,
        on_progress: Callback,
    ):
        self.cancellation = Cancellation()
        self._jobs = jobs
        self._function: Optional[Function] = function
        self._callbacks = {"done": on_done, "error": on_error, "progress": on_progress}
        self._lock = threading.Lock()
        self._is_settled = False
        self._was_cancelled = False
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether the result was delivered, or never will be."""
        return self._is_over

    def cancel(self) -> None:
        """Cancel the job: `on_error` gets a ClientError of kind "cancelled" at the next poll.

        The connection is closed at once; later reports and results of the function are dropped.
        Cancelling a finished job has no effect.
        """
        if self._settle("error", ClientError(_("Stopped."), "cancelled"), is_cancelling=True):
            self.cancellation.set()

    def report(self, value: Any) -> None:
        """Pass a value to `on_progress` at the next poll; called by the job's function."""
        if not self._is_settled:
            self._jobs._post(self, "progress", value)

    def _run(self) -> None:
        """Run the function; on the worker's thread."""
        function = self._function
        if function is None or self._is_settled:
            return
        try:
            outcome: tuple[str, Any] = ("done", function(self))
        except Exception as error:
            outcome = ("error", error)
        self._settle(*outcome)

    def _settle(self, kind: str, value: Any, is_cancelling: bool = False) -> bool:
        """Decide how it ends; only the first to do so is heard."""
        with self._lock:
            if self._is_settled:
                return False
            self._is_settled = True
            self._was_cancelled = is_cancelling
        self._jobs._post(self, kind, value)
        return True

    def _deliver(self, kind: str, value: Any) -> None:
        """Call a callback; on the main thread."""
        if self._is_over or (kind == "progress" and self._was_cancelled):
            return
        callback = self._callbacks[kind]
        if kind != "progress":
            self._end()
        if callback is not None:
            callback(value)

    def _end(self) -> None:
        self._is_over = True
        # They may keep a volume and the panel alive.
        self._function = None
        self._callbacks = dict.fromkeys(self._callbacks)


class Jobs:
    """One worker thread with a queue; callbacks are called by `poll`, on the main thread.

    A job waits for those before it. For calls that must not wait (stopping a training while an
    answer streams) create a second `Jobs`.
    """

    def __init__(self) -> None:
        self._to_do: queue.SimpleQueue[Optional[Job]] = queue.SimpleQueue()
        self._news: deque[tuple[Job, str, Any]] = deque()
        self._live: list[Job] = []
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="RadFound", daemon=True)
        self._thread.start()

    def submit(
        self,
        function: Function,
        on_done: Callback = None,
        on_error: Callback = None,
        on_progress: Callback = None,
    ) -> Job:
        """Queue work; call it on the main thread.

        Parameters
        ----------
        function : callable(Job)
            Runs on the worker's thread; must touch neither Qt nor MRML.
        on_done : callable(result), optional
        on_error : callable(Exception), optional
            Exactly one of these two is called, after all progress; a failed request is a
            ClientError.
        on_progress : callable(value), optional
            Gets the values that the function reports.
        """
        if self._is_closed:
            raise RuntimeError("jobs were submitted after the end")
        job = Job(self, function, on_done, on_error, on_progress)
        self._live.append(job)
        self._to_do.put(job)
        return job

    @property
    def is_busy(self) -> bool:
        """Whether a job is not over."""
        return bool(self._live)

    def poll(self, budget_s: float = 0.01) -> None:
        """Call the callbacks that are due; call it from a QTimer, every 20 ms or so.

        An exception in a callback is logged; the other callbacks are still called.

        Parameters
        ----------
        budget_s : float
            No callback starts after this time; the rest wait for the next poll.
        """
        began = time.monotonic()
        while self._news and not self._is_closed:
            job, kind, value = self._news.popleft()
            try:
                job._deliver(kind, value)
            except Exception:
                logger.exception("a callback failed")
            if job.is_over and job in self._live:
                self._live.remove(job)
            if time.monotonic() - began > budget_s:
                break
        if self._live and not self._is_closed:
            # While Qt's event loop holds Python's lock, the worker runs only during this sleep.
            time.sleep(_YIELD_S)

    def cancel_all(self) -> None:
        """Cancel every job that is not over."""
        for job in list(self._live):
            job.cancel()

    def close(self, timeout_s: float = 1.0) -> None:
        """Cancel all jobs, call no more callbacks, and wait up to `timeout_s` for the thread.

        Safe to call twice, and while a request runs: the thread does not keep Python alive.
        """
        self._is_closed = True
        self.cancel_all()
        for job in self._live:
            job._end()
        self._live.clear()
        self._news.clear()
        self._to_do.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _post(self, job: Job, kind: str, value: Any) -> None:
        if not self._is_closed:
            self._news.append((job, kind, value))

    def _work(self) -> None:
        while True:
            job = self._to_do.get()
            if job is None:
                return
            job._run()
            del job  # it may keep a volume alive
