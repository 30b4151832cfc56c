"""Which study is with which reader for the moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class _Lease:
    image: str
    until_s: float


class Leases:
    """At most one study for each reader, for a while; safe for several threads.

    Parameters
    ----------
    seconds : float
        After which a study may go to somebody else.
    clock : callable
        Seconds that only grow.
    """

    def __init__(self, seconds: float = 1800.0, clock: Callable[[], float] = time.monotonic):
        self._seconds = seconds
        self._clock = clock
        self._held: dict[str, _Lease] = {}
        self._lock = threading.Lock()

    def taken(self, reader: str) -> set[str]:
        """Return the studies that are with other readers."""
        now_s = self._clock()
        with self._lock:
            self._held = {who: held for who, held in self._held.items() if held.until_s > now_s}
            return {held.image for who, held in self._held.items() if who != reader}

    def take(self, image: str, reader: str, *, shared: bool = False) -> bool:
        """Give a study to a reader, who gives back the one before.

        Parameters
        ----------
        shared : bool
            Also if another reader has it.

        Returns
        -------
        bool
            False if another reader was quicker.
        """
        now_s = self._clock()
        with self._lock:
            others: Collection[_Lease] = [
                held for who, held in self._held.items() if who != reader and held.until_s > now_s
            ]
            if not shared and any(held.image == image for held in others):
                return False
            self._held[reader] = _Lease(image, now_s + self._seconds)
            return True
