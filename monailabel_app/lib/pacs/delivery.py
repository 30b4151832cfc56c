"""Delivery of documents to the archive, in the background and again until it succeeds."""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from radfound.exceptions import PacsRefusedError, RadFoundError

from .archive import Archive
from .records import DELIVERED, REFUSED, WAITING, Outgoing, PacsRecords

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


class Delivery:
    """Stores waiting documents in the archive, oldest first.

    An archive that is down, slow, or refuses the password is asked again; one that refuses a document is
    not. A document that was stored and not noted as such, because the server was killed, is stored again
    under the same UID, which changes nothing.

    Parameters
    ----------
    archive : Archive
    records : PacsRecords
    lock : Path
        Lets one server of a state folder deliver at a time.
    """

    def __init__(self, archive: Archive, records: PacsRecords, lock: Path):
        self._archive = archive
        self._records = records
        self._lock = FileLock(lock, timeout=0)
        self._wake = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to deliver."""
        self._thread = threading.Thread(target=self._run, name="radfound-delivery", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Deliver now."""
        self._wake.set()

    def close(self) -> None:
        """Stop after the current document."""
        self._stop = True
        self._wake.set()

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._stop:
            self._wake.clear()
            try:
                is_done = self._deliver_all()
            except RadFoundError as error:  # the records cannot be used just now
                logger.warning("documents for the archive wait: %s", error.code)
                is_done = False
            except Exception:
                logger.exception("the delivery of documents failed; it goes on in a while")
                is_done = False
            pause_s = _FIRST_PAUSE_S if is_done else min(2 * pause_s, _LONGEST_PAUSE_S)
            self._wake.wait(_LONGEST_PAUSE_S if is_done else pause_s)

    def _deliver_all(self) -> bool:
        """Deliver what waits; return whether nothing waits any more."""
        try:
            with self._lock:
                return all([self._deliver(document) for document in self._records.waiting()])
        except Timeout:  # another server of this folder delivers
            return False

    def _deliver(self, document: Outgoing) -> bool:
        import pydicom

        if self._stop:
            return False
        content = self._records.content(document.instance_uid)
        try:
            self._archive.store(pydicom.dcmread(io.BytesIO(content)))
        except RadFoundError as error:
            is_final = isinstance(error, PacsRefusedError) and error.is_about_the_document
            state = REFUSED if is_final else WAITING
            self._records.settle(document.instance_uid, state, str(error))
            logger.warning("a document for the archive is %s: %s", state, error.code)
            return is_final
        self._records.settle(document.instance_uid, DELIVERED)
        logger.info("a document was delivered to the archive")
        return True


def packed(dataset: Dataset) -> bytes:
    """Return a dataset as the content of a DICOM file."""
    with io.BytesIO() as file:
        dataset.save_as(file, write_like_original=False)
        return file.getvalue()
