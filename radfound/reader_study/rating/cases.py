"""A cache of the cases of a reader study."""

from __future__ import annotations

import threading

from cachetools import LRUCache

from radfound.reader_study.design.plan import Case, Plan
from radfound.reading import read_study
from radfound.viewer.pictures import Picture, pictures_of

_CACHE_BYTES = 2 << 30


class CaseCache:
    """A cache of loaded cases, least recently used out first; thread-safe.

    Parameters
    ----------
    plan : Plan
    max_bytes : int
        Maximum size of voxels; the case used last always stays.
    """

    def __init__(self, plan: Plan, max_bytes: int = _CACHE_BYTES):
        self._plan = plan
        # A case that is larger than the limit takes all of it.
        self._cases: LRUCache[str, tuple[Picture, ...]] = LRUCache(
            max_bytes, lambda pictures: min(max_bytes, _bytes_of(pictures))
        )
        self._locks = {case.id: threading.Lock() for case in plan.cases}
        self._lock = threading.Lock()

    def pictures(self, case: Case) -> tuple[Picture, ...]:
        """Return a case's images; raises the errors of `radfound.reading.read_study`."""
        with self._locks[case.id]:  # concurrent requests load a case once
            with self._lock:
                if case.id in self._cases:
                    return self._cases[case.id]
            study = read_study(self._plan.paths(case), series=case.series, volume=case.volume)
            pictures = pictures_of(study)
            with self._lock:
                self._cases[case.id] = pictures
            return pictures


def _bytes_of(pictures: tuple[Picture, ...]) -> int:
    return sum(each.image.voxels.nbytes for each in pictures)
