"""Background tasks: one of each kind runs, a few may wait, and none runs in the server process.

MONAI Label's own check for a running task has a race, its queue is unbounded, and `run_sync` works in
the server process.
"""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any

import psutil
from monailabel.utils.async_tasks import utils

from radfound.exceptions import Busy, RadFoundError

METHODS = ("train", "batch_infer", "scoring")
MAX_WAITING = 4
"""Number of tasks of a kind that may wait behind the running one."""

Task = dict[str, Any]
"""As in MONAI Label: "id", "status", "request", "start_ts"; later "details" and "end_ts"."""

_ENDED_KEPT = 50
_STARTING_S = 10.0
_POLL_S = 0.05


class TaskRunningError(RadFoundError):
    """A task of this kind runs, or the queue is full."""

    code = "already_running"
    http_status = 429


class TaskQueues:
    """The background tasks of this process, in one queue for each kind; thread-safe."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may run while the main thread holds the lock.
        self._lock = threading.RLock()
        self._executors = {method: ThreadPoolExecutor(1) for method in METHODS}
        self._active: dict[str, list[tuple[Task, Future[None]]]] = {name: [] for name in METHODS}
        self._is_closed = False

    def start(self, method: str, request: dict[str, Any], *, enqueue: bool = False) -> Task:
        """Start a task in a process of its own, or queue it.

        Parameters
        ----------
        method : {"train", "batch_infer", "scoring"}
        request : dict
            For MONAI Label's app in that process.
        enqueue : bool
            Whether to wait if a task runs.

        Raises
        ------
        TaskRunningError
            If a task runs, or the queue is full.
        Busy
            If the server is stopping.
        """
        with self._lock:
            if self._is_closed:
                raise Busy("the server is stopping; start it when the server is back")
            count = len(self._unfinished(method))
            if count > (MAX_WAITING if enqueue else 0):
                raise TaskRunningError(
                    f"{method}: one runs and {count - 1} wait, of at most {MAX_WAITING}; "
                    "start it again when they have ended, or stop them with DELETE"
                )
            known = utils.background_tasks.setdefault(method, [])
            utils.background_processes.setdefault(method, {})
            del known[: -_ENDED_KEPT - MAX_WAITING]
            task = {
                "id": str(uuid.uuid4()),
                "status": "SUBMITTED",
                "request": request,
                "start_ts": _now(),
            }
            known.append(task)
            future = self._executors[method].submit(_run, task, method)
            self._active[method].append((task, future))
            return task

    def stop(self, method: str) -> Task | None:
        """Stop the running task and return it, or None; queued tasks stay."""
        with self._lock:
            unfinished = self._unfinished(method)
            return _stop(method, *unfinished[0]) if unfinished else None

    def close(self) -> None:
        """Stop all tasks and start no more."""
        with self._lock:
            self._is_closed = True
            for method in METHODS:
                for task, future in reversed(self._unfinished(method)):
                    _stop(method, task, future)

    def _unfinished(self, method: str) -> list[tuple[Task, Future[None]]]:
        self._active[method] = [entry for entry in self._active[method] if not entry[1].done()]
        return self._active[method]


queues = TaskQueues()
"""The queues of this server."""


def is_over(task: Task) -> bool:
    """Whether a task has ended."""
    return task["status"] not in ("SUBMITTED", "RUNNING")


def _run(task: Task, method: str) -> None:
    try:
        utils._task_func(task, method)
    except BaseException:
        task["status"] = "ERROR"
        raise


def _stop(method: str, task: Task, future: Future[None]) -> Task:
    """Stop a task in any state, and wait until its process has ended."""
    if not future.cancel():
        deadline = time.monotonic() + _STARTING_S
        while not future.done() and time.monotonic() < deadline:
            process = utils.background_processes[method].get(task["id"])
            if process is not None:
                _kill(process.pid)
            time.sleep(_POLL_S)  # the process may be starting
    task["status"], task["end_ts"] = "STOPPED", _now()
    return task


def _kill(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for member in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                member.kill()


def _now() -> str:
    return datetime.today().strftime("%Y-%m-%d %H:%M:%S")
