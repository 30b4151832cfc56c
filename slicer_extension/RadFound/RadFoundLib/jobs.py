"""Work that must not stop Slicer: one thread that does it, and callbacks on the main thread."""

from typing import Any, Callable, Optional

from .cancellation import Cancellation


class Job:
    """Something to do in the background.

    The function that does it gets the Job: it passes `job.cancellation` to the client, and calls
    `job.report` with whatever `on_progress` shall get.
    """

    def __init__(self) -> None:
        self.cancellation = Cancellation()

    @property
    def is_over(self) -> bool:
        """Whether its outcome was delivered, or never will be."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Give up: `on_error` gets a ClientError of kind "cancelled" at the next poll.

        The connection is closed at once, whatever is waited for; what the function still
        reports or returns is dropped. Nothing happens to a job that is over.
        """
        raise NotImplementedError

    def report(self, value: Any) -> None:
        """Let `on_progress` have a value at the next poll; called by the job's function."""
        raise NotImplementedError


class Jobs:
    """One worker thread with a queue; callbacks are called by `poll`, on the main thread.

    A job waits until those before it are over. For calls that shall not wait (stopping a
    training while an answer streams) make a second `Jobs`.
    """

    def submit(
        self,
        function: Callable[[Job], Any],
        on_done: Optional[Callable[[Any], None]] = None,
        on_error: Optional[Callable[[Exception], None]] = None,
        on_progress: Optional[Callable[[Any], None]] = None,
    ) -> Job:
        """Queue work; exactly one of `on_done` and `on_error` is called, after all progress."""
        raise NotImplementedError

    @property
    def is_busy(self) -> bool:
        """Whether outcomes are to come."""
        raise NotImplementedError

    def poll(self, budget_s: float = 0.01) -> None:
        """Call the callbacks that are due; call it from a QTimer, every 20 ms or so.

        Parameters
        ----------
        budget_s : float
            No new callback begins after that time; what is left waits for the next poll.
        """
        raise NotImplementedError

    def cancel_all(self) -> None:
        """Cancel every job that is not over."""
        raise NotImplementedError

    def close(self, timeout_s: float = 1.0) -> None:
        """Cancel everything, call no callback any more, and wait a little for the thread.

        Safe to call twice, and while a request runs: the thread never keeps a program alive.
        """
        raise NotImplementedError
