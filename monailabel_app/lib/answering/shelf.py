"""Cache of loaded studies."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from radfound.exceptions import StudyUnreadableError
from radfound.reading import read_study
from radfound.study.study import Study


@dataclass(frozen=True)
class Selection:
    """Series and volume of a file or folder, as `read_study` takes them."""

    series: str | None = None
    volume: int | None = None


@dataclass(frozen=True)
class _Entry:
    version: Hashable
    study: Future[Study]


class StudyShelf:
    """A bounded cache from paths to studies; safe for use by several threads.

    Concurrent requests load a study once; a study is loaded again when its files change.

    Parameters
    ----------
    max_bytes : int
        Limit for cached voxels; the last used study always stays.
    """

    def __init__(self, max_bytes: int = 1 << 30):
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    def get(self, paths: Sequence[Path], study_id: str, selection: Selection) -> Study:
        """Return the study at these paths, one view each; raises as `read_study` does."""
        key = (tuple(paths), study_id, selection)
        version = tuple(version_of(path) for path in paths)
        with self._lock:
            entry = self._entries.get(key)
            is_missing = entry is None or entry.version != version
            if is_missing:
                self.misses += 1
                entry = _Entry(version, Future())
                self._entries[key] = entry
            else:
                self.hits += 1
            self._entries.move_to_end(key)
        assert entry is not None
        if is_missing:
            self._fill(key, entry, paths, study_id, selection)
        return entry.study.result()

    def _fill(
        self,
        key: Hashable,
        entry: _Entry,
        paths: Sequence[Path],
        study_id: str,
        selection: Selection,
    ) -> None:
        source = paths[0] if len(paths) == 1 else list(paths)
        try:
            study = read_study(
                source, series=selection.series, volume=selection.volume, study_id=study_id
            )
        except BaseException as error:
            with self._lock:
                if self._entries.get(key) is entry:
                    del self._entries[key]
            entry.study.set_exception(error)
            return
        entry.study.set_result(study)
        with self._lock:
            self._trim()

    def _trim(self) -> None:
        total = 0
        for key, entry in reversed(list(self._entries.items())):
            if not entry.study.done():
                continue
            total += sum(image.voxels.nbytes for image in entry.study.result().images)
            if total > self._max_bytes and key != next(reversed(self._entries)):
                del self._entries[key]


def version_of(path: Path) -> Hashable:
    """Return a version key of a file or folder; the key changes with any file in it."""
    try:
        files = [path]
        if path.is_dir():
            files = [Path(root, name) for root, _, names in os.walk(path) for name in names]
        stats = [file.stat() for file in files]
    except OSError as error:
        raise StudyUnreadableError(
            f"{path.name}: cannot be read ({error.strerror}); it may have been moved just now"
        ) from error
    newest = max((stat.st_mtime_ns for stat in stats), default=0)
    return (len(stats), newest, sum(stat.st_size for stat in stats))
