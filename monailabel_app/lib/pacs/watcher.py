"""Drafts for new studies: found by asking the archive at intervals, or by its notification."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from radfound.exceptions import (
    Busy,
    NotFoundError,
    PacsError,
    RadFoundError,
)
from radfound.question import Answer

from .archive import SeriesRow, StudyRow
from .datastore import PacsDatastore
from .delivery import Delivery
from .records import PacsRecords
from .reports import DRAFT, Reports
from .selection import image_series, may_hold_images

logger = logging.getLogger(__name__)

_HOUR_S = 3600.0
_RETRY_S = 15.0
_BEGUN = ""  # in place of a study: the studies of the first list are all recorded

Answering = Callable[[str], Answer]
"""Returns a report about a study, given its UID."""


class Watcher:
    """Drafts a report for each new study, once for each set of image instances.

    The studies that are in the archive when a watcher starts for the first time are not drafted. A study
    is drafted when it was the same in two successive lists, or when the archive says that it is complete.
    Objects that are no images, among them this project's own reports and maps, change nothing.

    Parameters
    ----------
    store : PacsDatastore
    records : PacsRecords
    reports : Reports
    delivery : Delivery
    answer : callable
        See `Answering`.
    """

    def __init__(
        self,
        store: PacsDatastore,
        records: PacsRecords,
        reports: Reports,
        delivery: Delivery,
        answer: Answering,
    ):
        self._store, self._records, self._reports = store, records, reports
        self._delivery = delivery
        self._answer = answer
        self._settings = store.settings
        self._wake = threading.Event()
        self._stop = False
        self._before: dict[str, str] = {}
        self._drafted_s: deque[float] = deque()
        self._thread = threading.Thread(target=self._run, name="radfound-watcher", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the current draft."""
        self._stop = True
        self._wake.set()

    def notify(self, study_uid: str) -> None:
        """Draft a study that the archive says is complete, if it is new; survives a kill."""
        self._records.announce(study_uid)
        self._wake.set()

    def _run(self) -> None:
        problem = ""
        while not self._stop:
            self._wake.clear()
            try:
                is_done, problem = self._look(), ""
            except RadFoundError as error:
                if problem != error.code:
                    logger.warning("the watcher waits: %s", error.code)
                is_done, problem = False, error.code
            except Exception:
                logger.exception("the watcher failed; it goes on in a while")
                is_done = False
            pauses = [self._settings.watch_s or None, None if is_done else _RETRY_S]
            named = [pause for pause in pauses if pause]
            self._wake.wait(min(named) if named else None)

    def _look(self) -> bool:
        """Draft what is new; return whether nothing is left over."""
        left = 0
        for uid in self._records.announced():
            if self._stop:
                return False
            if self._draft_announced(uid):
                self._records.forget_announced(uid)
            else:
                left += 1
        if self._settings.watch_s:
            self._poll()
        return not left

    def _poll(self) -> None:
        query = {**self._settings.query, **self._settings.watch_query}
        rows = {row.uid: row for row in self._store.archive.studies(query)}
        now = {uid: _size(row) for uid, row in rows.items() if may_hold_images(row.modalities)}
        known = self._records.sizes()
        if _BEGUN not in known:
            for uid in now.keys() - known.keys():
                if self._stop:
                    return
                self._records.note_watched(uid, now[uid], _key(self._images_of(uid)))
            self._records.note_watched(_BEGUN, "", "")
            return
        for uid, size in now.items():
            # A study that is the same in two successive lists is complete.
            if known.get(uid) != size and self._before.get(uid) == size and not self._stop:
                self._draft(uid, size)
        self._before = now

    def _draft_announced(self, study_uid: str) -> bool:
        query = {
            **self._settings.query, **self._settings.watch_query, "StudyInstanceUID": study_uid
        }  # fmt: skip
        rows = [row for row in self._store.archive.studies(query) if row.uid == study_uid]
        return not rows or self._draft(study_uid, _size(rows[0]))

    def _images_of(self, study_uid: str) -> list[SeriesRow]:
        self._store.forget_series(study_uid)
        try:
            return image_series(self._store.series_of(study_uid), self._store.peek)
        except NotFoundError:  # removed meanwhile
            return []

    def _draft(self, study_uid: str, size: str) -> bool:
        """Draft a study unless its images need no draft; return whether it is dealt with."""
        rows = self._images_of(study_uid)
        key = _key(rows)
        # A report of this server, sent by hand, may be all that is new of an old study.
        is_old = self._records.is_only_reported(study_uid)
        if rows and not is_old and not self._records.is_settled(study_uid, key):
            if not self._may_draft():
                return False
            self._make_draft(study_uid, key)
        self._records.note_watched(study_uid, size, key)
        return True

    def _make_draft(self, study_uid: str, key: str) -> None:
        try:
            answer = self._answer(study_uid)
            document = None
            if self._settings.write == DRAFT:
                document = self._reports.draft(answer)
        except (PacsError, Busy):
            raise
        except RadFoundError as error:
            logger.warning("a new study is not drafted: %s", error.code)
            self._records.add_draft(study_uid, key, None, str(error))
            return
        self._records.add_draft(study_uid, key, answer, None, document)
        self._delivery.wake()
        logger.info("a new study was drafted")

    def _may_draft(self) -> bool:
        """Count a draft, unless there were as many as allowed within the last hour."""
        now_s = time.monotonic()
        while self._drafted_s and now_s - self._drafted_s[0] > _HOUR_S:
            self._drafted_s.popleft()
        if len(self._drafted_s) >= self._settings.drafts_per_hour:
            return False
        self._drafted_s.append(now_s)
        return True


def _size(row: StudyRow) -> str:
    return "{} {}".format(*row.size)


def _key(rows: Sequence[SeriesRow]) -> str:
    """Return a key of a set of image series and the number of their instances."""
    text = " ".join(sorted(f"{row.uid}:{row.instances}" for row in rows))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
