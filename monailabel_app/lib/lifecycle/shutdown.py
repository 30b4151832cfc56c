"""Stop background processes when the server stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .tasks import queues


def at_shutdown(close: Callable[[], None]) -> None:
    """Stop background processes and call `close` at SIGINT and SIGTERM.

    `atexit` and the end of the main thread are not reached: uvicorn ends by sending itself the
    signal that stopped it, which kills the process at once and would leave a training running.
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
