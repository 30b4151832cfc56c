"""Cancellation of requests and uploads."""

import threading
from typing import Callable


class Cancellation:
    """A flag that any thread may set once; callbacks wake threads that wait elsewhere."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._wake: list[Callable[[], None]] = []

    @property
    def is_set(self) -> bool:
        """Whether `set` has been called."""
        return self._is_set

    def set(self) -> None:
        """Cancel; returns at once."""
        with self._lock:
            self._is_set = True
            wake, self._wake = self._wake, []
        for callback in wake:
            callback()

    def call_when_set(self, wake: Callable[[], None]) -> None:
        """Call `wake` on cancellation, or now if already set; it must not block or raise."""
        with self._lock:
            if not self._is_set:
                self._wake.append(wake)
                return
        wake()

    def forget(self, wake: Callable[[], None]) -> None:
        """Undo `call_when_set`."""
        with self._lock:
            if wake in self._wake:
                self._wake.remove(wake)
