"""Leaving nothing behind when the server stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .tasks import queues


def at_shutdown(close: Callable[[], None]) -> None:
    """Stop background processes, and call `close`, when the server is told to stop.

    Neither `atexit` nor the end of the main thread will do: uvicorn ends by sending itself the
    signal that stopped it, which kills the process on the spot and leaves a training behind.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _after(close, signal.getsignal(number)))


def _after(close: Callable[[], None], handler: Any) -> Callable[[int, FrameType | None], None]:
    def stop(number: int, frame: FrameType | None) -> None:
        close()
        queues.close()
        if callable(handler):
            handler(number, frame)
        elif handler == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    return stop
