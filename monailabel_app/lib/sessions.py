"""Studies uploaded for a while, in MONAI Label's sessions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from monailabel.utils.sessions import SessionInfo, Sessions

from radfound.exceptions import NotFoundError

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


class StudySessions(Sessions):
    """MONAI Label's sessions with ids that are plain names and archives that stay packed.

    `read_study` unpacks a zip in a safe way each time; MONAI Label would unpack any archive with
    no check.
    """

    def get_session(
        self, session_id: str, update_ts: bool = True, fetch_cache: bool = True
    ) -> SessionInfo | None:
        """Return a session, or None if there is none."""
        if not _ID.fullmatch(session_id):
            return None
        return super().get_session(session_id, update_ts, fetch_cache)

    def add_session(
        self,
        data_file: str,
        expiry: int = 0,
        uncompress: bool = False,
        session_id: str | None = None,
    ) -> tuple[str, SessionInfo]:
        """Keep an uploaded file or folder; `uncompress` is not needed and has no effect."""
        added: Any = super().add_session(data_file, expiry, False, session_id)
        return added

    def path_of(self, session_id: str) -> Path:
        """Return where a session's image lies; NotFoundError if there is no such session."""
        session = self.get_session(session_id)
        if session is None:
            raise NotFoundError("session_id: no such session; it may have expired, upload it again")
        return Path(session.image)
