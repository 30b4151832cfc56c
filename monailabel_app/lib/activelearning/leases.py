"""Leases of studies to readers."""

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
    """A lease of one study for each reader, with an expiry; thread-safe.

    Parameters
    ----------
    seconds : float
        Time until a lease expires.
    clock : callable
        Monotonic, in seconds.
    """

    def __init__(self, seconds: float = 1800.0, clock: Callable[[], float] = time.monotonic):
        self._seconds = seconds
        self._clock = clock
        self._held: dict[str, _Lease] = {}
        self._lock = threading.Lock()

    def taken(self, reader: str) -> set[str]:
        """Return the studies leased to other readers."""
        now_s = self._clock()
        with self._lock:
            self._held = {who: held for who, held in self._held.items() if held.until_s > now_s}
            return {held.image for who, held in self._held.items() if who != reader}

    def take(self, image: str, reader: str, *, shared: bool = False) -> bool:
        """Lease a study to a reader, whose previous lease ends.

        Parameters
        ----------
        shared : bool
            Also if another reader holds the study.

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
