"""The list of the archive's studies, kept in memory and at most half a minute old."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from radfound.exceptions import RadFoundError

from .archive import Archive, StudyRow
from .selection import may_hold_images
from .settings import PacsSettings

logger = logging.getLogger(__name__)

MAX_AGE_S = 30.0
"""Age at which the list is asked for again, when somebody needs it."""
_REFRESH_AGE_S = 20.0  # a list of this age is renewed in the background
_WAIT_S = 15.0


class StudyList:
    """The studies of an archive that may hold images.

    The list is asked for when it is needed and too old; a failure leaves the former list in place.

    Parameters
    ----------
    archive : Archive
    settings : PacsSettings
    changed : callable
        Called in the refreshing thread after each successful refresh.
    """

    def __init__(self, archive: Archive, settings: PacsSettings, changed: Callable[[], None]):
        self._archive = archive
        self._settings = settings
        self._changed = changed
        self._rows: dict[str, StudyRow] | None = None
        self._asked_s = -float("inf")
        self._error: RadFoundError | None = None
        self._lock = threading.Lock()
        self._refreshing: threading.Thread | None = None

    @property
    def rows(self) -> dict[str, StudyRow] | None:
        """The studies by UID; None before the first successful request."""
        return self._rows

    @property
    def error(self) -> RadFoundError | None:
        """The error of the newest request; None if it succeeded."""
        return self._error

    def need(self, *, wait: bool = True) -> None:
        """Renew the list if it is too old.

        Parameters
        ----------
        wait : bool
            Whether to wait for a list that is not too old; never on an event loop.
        """
        age_s = time.monotonic() - self._asked_s
        if age_s < _REFRESH_AGE_S:
            return
        thread = self._start()
        if wait and age_s >= MAX_AGE_S and not _is_on_event_loop():
            thread.join(_WAIT_S)

    def refresh(self) -> None:
        """Ask for the list now, and wait for it."""
        self._start().join()

    def _start(self) -> threading.Thread:
        with self._lock:
            if self._refreshing is None or not self._refreshing.is_alive():
                self._refreshing = threading.Thread(
                    target=self._refresh, name="radfound-pacs-list", daemon=True
                )
                self._refreshing.start()
            return self._refreshing

    def _refresh(self) -> None:
        try:
            found = self._archive.studies(self._settings.query)
            self._rows = {row.uid: row for row in found if may_hold_images(row.modalities)}
            self._error = None
            self._changed()
        except RadFoundError as error:
            if self._error is None:
                logger.warning("the list of the archive's studies stays as it was: %s", error.code)
            self._error = error
        self._asked_s = time.monotonic()


def _is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
