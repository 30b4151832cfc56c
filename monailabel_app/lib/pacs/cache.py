"""Bounded cache of series on the disk, written atomically."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from radfound.exceptions import PacsRefusedError, PacsUnreachableError, StorageError
from radfound.records.durable import (
    TEMPORARY_PREFIX,
    has_no_room,
    keep_private,
    make_directory,
    open_private,
)

from .archive import SeriesRow

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

logger = logging.getLogger(__name__)

_FACTS = ".series.json"
_LOCKS = ".locks"
_IN_USE_S = 300.0  # a series used so recently may be being read
_STALE_S = 3600.0

Fetch = Callable[[str, str], Iterator["Dataset"]]
"""Yields the instances of a series, given the UIDs of study and series."""


class SeriesCache:
    """Folders of fetched series, one below the folder of each study.

    A series appears as a whole or not at all. It is fetched again when the archive has another number of
    instances. The series that were not used for the longest time are removed when there is no room.
    Several threads and processes may use one folder.

    Parameters
    ----------
    folder : Path
        Private to this user.
    max_bytes : int
        The newest series stays, whatever its size.
    fetch : callable
        See `Fetch`.
    """

    def __init__(self, folder: Path, max_bytes: int, fetch: Fetch):
        self._folder = folder
        self._max_bytes = max_bytes
        self._fetch = fetch
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        make_directory(folder / _LOCKS)
        keep_private(folder)
        self._remove_strays()

    def path_of(self, row: SeriesRow) -> Path:
        """Return the folder of a series, whether it is there or not."""
        return self.folder_of(row.study_uid) / row.uid

    def folder_of(self, study_uid: str) -> Path:
        """Return the folder that holds the series of a study."""
        return self._folder / study_uid

    def find(self, series_uid: str) -> Path | None:
        """Return the folder of a fetched series by its UID alone; None if it is not here."""
        found = [facts.parent for facts in self._folder.glob(f"[0-9]*/{series_uid}/{_FACTS}")]
        return found[0] if found else None

    def get(self, row: SeriesRow) -> Path:
        """Return the folder of a series, fetched if necessary.

        Raises
        ------
        PacsError
            If it cannot be fetched, or comes with fewer instances than the archive lists.
        StorageError
            If the disk is full.
        """
        path = self.path_of(row)
        if self._is_current(path, row):
            return path
        with self._locked(row.uid):
            if not self._is_current(path, row):
                self._fill(path, row)
                self._trim()
        return path

    def _is_current(self, path: Path, row: SeriesRow) -> bool:
        try:
            facts = json.loads((path / _FACTS).read_text(encoding="ascii"))
            os.utime(path)  # the time of the last use
        except (OSError, ValueError):
            return False
        return row.instances is None or facts["instances"] == row.instances

    def _fill(self, path: Path, row: SeriesRow) -> None:
        make_directory(path.parent)
        part = path.with_name(TEMPORARY_PREFIX + secrets.token_hex(8))
        try:
            part.mkdir(0o700)
            sizes: dict[str, int] = {}
            for dataset in self._fetch(row.study_uid, row.uid):
                name, size = _save(part, dataset)
                sizes[name] = size
            _check_count(row, len(sizes))
            facts = {"instances": len(sizes), "bytes": sum(sizes.values())}
            (part / _FACTS).write_text(json.dumps(facts), encoding="ascii")
            if path.exists():  # an earlier version
                path.rename(part.with_name(f"{part.name}-old"))
            part.rename(path)
        except OSError as error:
            raise StorageError(
                f"an image of the archive cannot be kept ({error.strerror or type(error).__name__}); "
                + (
                    "make room on the server's disk, or lower pacs_cache_mb"
                    if has_no_room(error)
                    else "check the folder that --conf state names"
                )
            ) from error
        finally:
            for stray in (part, part.with_name(f"{part.name}-old")):
                shutil.rmtree(stray, ignore_errors=True)

    def _trim(self) -> None:
        """Remove the series that were used the longest time ago until the rest fits."""
        found = sorted(self._series(), key=lambda entry: entry[0], reverse=True)
        total = 0
        for used_s, size, path in found:
            total += size
            if total > self._max_bytes and time.time() - used_s > _IN_USE_S:
                gone = path.with_name(TEMPORARY_PREFIX + secrets.token_hex(8))
                try:
                    path.rename(gone)
                except OSError:  # another process was quicker
                    continue
                shutil.rmtree(gone, ignore_errors=True)

    def _series(self) -> Iterator[tuple[float, int, Path]]:
        """Yield time of the last use, size in bytes and folder of each series."""
        for facts in self._folder.glob(f"[0-9]*/[0-9]*/{_FACTS}"):
            try:
                size = json.loads(facts.read_text(encoding="ascii"))["bytes"]
                yield facts.parent.stat().st_mtime, int(size), facts.parent
            except (OSError, ValueError, KeyError):
                continue

    def _remove_strays(self) -> None:
        """Remove what killed processes have left; other servers may be fetching just now."""
        for stray in self._folder.glob(f"[0-9]*/{TEMPORARY_PREFIX}*"):
            try:
                if time.time() - stray.stat().st_mtime > _STALE_S:
                    shutil.rmtree(stray, ignore_errors=True)
            except OSError:
                continue

    @contextmanager
    def _locked(self, uid: str) -> Iterator[None]:
        """Let one thread of one process fetch a series."""
        with self._guard:
            lock = self._locks.setdefault(uid, threading.Lock())
        name = hashlib.sha256(uid.encode("ascii")).hexdigest()[
            :2
        ]  # few files, whatever the archive
        with lock, FileLock(self._folder / _LOCKS / name):
            yield


def _save(folder: Path, dataset: Dataset) -> tuple[str, int]:
    """Save an instance under a name made from its UID; return the name and the size in bytes."""
    uid = str(dataset.get("SOPInstanceUID") or "")
    path = folder / f"{hashlib.sha256(uid.encode()).hexdigest()[:32]}.dcm"
    with open(path, "wb", opener=open_private) as file:
        dataset.save_as(file, write_like_original=True)
    return path.name, path.stat().st_size


def _check_count(row: SeriesRow, count: int) -> None:
    if count == 0:
        raise PacsRefusedError("the archive sent a series without instances; see the archive's log")
    if row.instances is not None and count < row.instances:
        raise PacsUnreachableError(
            f"the archive sent {count} of {row.instances} instances of a series; the connection may have "
            "broken; ask again"
        )
