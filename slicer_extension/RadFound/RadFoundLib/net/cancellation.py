"""A wish to stop, known to every part that waits."""

import threading
from typing import Callable


class Cancellation:
    """Set once, from any thread; whoever waits for something else is woken by a callback."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._wake: list[Callable[[], None]] = []

    @property
    def is_set(self) -> bool:
        """Whether `set` has been called."""
        return self._is_set

    def set(self) -> None:
        """Wish to stop; returns at once."""
        with self._lock:
            self._is_set = True
            wake, self._wake = self._wake, []
        for each in wake:
            each()

    def call_when_set(self, wake: Callable[[], None]) -> None:
        """Call `wake` when (or now, if) the wish comes; it must return at once and not raise."""
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
