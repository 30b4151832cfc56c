"""What models were shown, kept for a while so that a reader can look at it."""

from __future__ import annotations

import threading

from cachetools import LRUCache

from radfound.engine.shown import Shown
from radfound.exceptions import NotFoundError

_MAX_BYTES = 256 << 20


class ShownPictures:
    """Prompts with their pictures by the id of the answer, least recently used out first. Thread-safe.

    Parameters
    ----------
    max_bytes : int
        Limit for pixels. Follow-up questions about a study share the same prompt, which counts each time.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES):
        self._kept: LRUCache[str, Shown] = LRUCache(max_bytes, getsizeof=_bytes_of)
        self._lock = threading.Lock()

    def keep(self, answer_id: str, shown: Shown | None) -> None:
        """Keep what an answer was given for; nothing if the model has no recipe or it is too large."""
        if shown is None or _bytes_of(shown) > self._kept.maxsize:
            return
        with self._lock:
            self._kept[answer_id] = shown

    def get(self, answer_id: str) -> Shown:
        """Return what the model was shown; NotFoundError if it is not kept, or no longer."""
        with self._lock:
            found = self._kept.get(answer_id)
        if found is None:
            raise NotFoundError(
                "answer: what the model was shown is not kept, or no longer; ask the question again"
            )
        return found


def _bytes_of(shown: Shown) -> int:
    return 1 + sum(picture.pixels.nbytes for picture in shown.pictures)
