"""Temporarily uploaded studies, in MONAI Label's sessions."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
import time
import uuid
from pathlib import Path

from monailabel.utils.sessions import SessionInfo, Sessions

from radfound.records.durable import TEMPORARY_PREFIX, keep_private, make_directory, replace_text
from radfound.exceptions import NotFoundError

logger = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_META = "meta.info"


class StudySessions(Sessions):
    """MONAI Label's sessions with ids that are plain names and archives that stay packed.

    `read_study` unpacks a zip safely each time; MONAI Label would unpack any archive unchecked. A
    session is created atomically and removed after its expiry, by any server that shares the folder.
    Sessions are private to this user.

    Parameters
    ----------
    store_path : str
        A folder; if empty, MONAI Label's in the user's cache.
    expiry : int
        Longest time in seconds that a session stays after its last use.
    """

    def __init__(self, store_path: str = "", expiry: int = 3600):
        super().__init__(store_path, expiry)
        self._folder = Path(self.store_path)
        keep_private(self._folder)

    def get_session(
        self, session_id: str, update_ts: bool = True, fetch_cache: bool = True
    ) -> SessionInfo | None:
        """Return a session, or None if it does not exist or has expired."""
        if not _ID.fullmatch(session_id):
            return None
        session = _read(self._folder / session_id)
        if session is None or self._end_s(self._folder / session_id) < time.time():
            return None
        if update_ts:
            session.last_access_ts = int(time.time())
            try:
                self._write_meta_info(session_id, session)
            except OSError as error:
                logger.warning("a session's last use is not saved (%s)", error.strerror)
        return session

    def add_session(
        self,
        data_file: str,
        expiry: int = 0,
        uncompress: bool = False,
        session_id: str | None = None,
    ) -> tuple[str, SessionInfo]:
        """Store an uploaded file or folder; `uncompress` has no effect."""
        session_id = session_id or str(uuid.uuid4())
        folder, source = self._folder / session_id, Path(data_file)
        session = SessionInfo()
        session.name, session.path, session.meta = session_id, str(folder), {}
        session.image = str(folder / source.name)
        session.create_ts = session.last_access_ts = int(time.time())
        session.expiry = min(expiry, self.expiry) if expiry > 0 else self.expiry
        make_directory(self._folder)
        part = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=self._folder))
        try:
            shutil.move(source, part / source.name)
            replace_text(part / _META, session.to_str())
            part.rename(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return session_id, session

    def remove_session(self, session_id: str) -> None:
        """Remove a session, if there is one."""
        if _ID.fullmatch(session_id):
            shutil.rmtree(self._folder / session_id, ignore_errors=True)

    def remove_expired(self) -> int:
        """Remove expired sessions and incomplete ones of killed servers; return their number."""
        folders = self._folder.iterdir() if self._folder.is_dir() else ()
        expired = [folder for folder in folders if self._end_s(folder) < time.time()]
        for folder in expired:
            shutil.rmtree(folder, ignore_errors=True)
        return len(expired)

    def path_of(self, session_id: str) -> Path:
        """Return the path of a session's image; NotFoundError if there is no such session."""
        session = self.get_session(session_id)
        if session is None:
            raise NotFoundError("session_id: no such session; it may have expired, upload it again")
        return Path(session.image)

    def _end_s(self, folder: Path) -> float:
        """Return the expiry time of a session; an incomplete one gets the longest expiry."""
        session = _read(folder)
        if session is not None:
            return float(session.last_access_ts + session.expiry)
        try:
            return folder.stat().st_mtime + self.expiry
        except OSError:
            return float("inf")  # already removed

    def _write_meta_info(self, session_id: str, session_info: SessionInfo) -> None:
        replace_text(self._folder / session_id / _META, session_info.to_str())


def _read(folder: Path) -> SessionInfo | None:
    """Return the metadata of a session; None if the session is incomplete."""
    try:
        session = SessionInfo(json.loads((folder / _META).read_text(encoding="utf-8")))
        is_whole = os.path.exists(session.image) and session.last_access_ts + session.expiry > 0
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning("a session is damaged (%s) and cannot be used", type(error).__name__)
        return None
    return session if is_whole else None
