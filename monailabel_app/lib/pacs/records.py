"""Records of an archive's server: outgoing documents, what each answer was about, and drafts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radfound.correction import utc_now
from radfound.question import Answer
from radfound.records.database import OUTBOX, Database
from radfound.wire import answer_from_json, answer_to_json

WAITING, DELIVERED, REFUSED = "waiting", "delivered", "refused"

_LAYOUT = (
    """CREATE TABLE documents (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        instance_uid TEXT NOT NULL UNIQUE,
        document_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        study_uid TEXT NOT NULL,
        series_uid TEXT NOT NULL,
        class_uid TEXT NOT NULL,
        created TEXT NOT NULL,
        state TEXT NOT NULL,
        problem TEXT,
        content BLOB
    )""",
    "CREATE INDEX documents_by_state ON documents (state)",
    """CREATE TABLE shown (
        answer_id TEXT PRIMARY KEY,
        images TEXT NOT NULL,
        series TEXT NOT NULL
    )""",
    """CREATE TABLE watched (
        study_uid TEXT PRIMARY KEY,
        size TEXT NOT NULL,
        content_key TEXT NOT NULL
    )""",
    "CREATE TABLE announced (study_uid TEXT PRIMARY KEY)",
    """CREATE TABLE drafts (
        study_uid TEXT NOT NULL,
        content_key TEXT NOT NULL,
        created TEXT NOT NULL,
        answer_id TEXT,
        answer TEXT,
        problem TEXT,
        PRIMARY KEY (study_uid, content_key)
    )""",
)
_DOCUMENT = (
    "instance_uid, document_id, kind, study_uid, series_uid, class_uid, created, state, problem"
)
_LISTED = 500


@dataclass(frozen=True)
class Outgoing:
    """A document for the archive.

    Parameters
    ----------
    instance_uid : str
    document_id : str
        Id of the answer or correction.
    kind : {"draft", "reader", "map"}
    study_uid, series_uid, class_uid : str
    created : str
    state : {"waiting", "delivered", "refused"}
    problem : str or None
        Why it is not delivered yet, or was refused.
    """

    instance_uid: str
    document_id: str
    kind: str
    study_uid: str
    series_uid: str
    class_uid: str
    created: str
    state: str = WAITING
    problem: str | None = None


@dataclass(frozen=True)
class Draft:
    """A draft of the watcher, or why there is none.

    Parameters
    ----------
    study_uid, created : str
    answer : Answer or None
    problem : str or None
    """

    study_uid: str
    created: str
    answer: Answer | None
    problem: str | None


class PacsRecords:
    """One SQLite file; what it has acknowledged survives a kill. Several threads may use it.

    Parameters
    ----------
    path : Path

    Raises
    ------
    StorageError
        From every method, if the file is damaged or cannot be written.
    """

    def __init__(self, path: Path):
        self._file = Database(path, OUTBOX, (_LAYOUT,))

    # Documents --------------------------------------------------------------------------------

    def add_document(self, document: Outgoing, content: bytes) -> Outgoing:
        """Keep a document until it is delivered; return it, or the earlier one of this UID."""
        with self._changing() as connection:
            _insert_document(connection, document, content)
        found = self.document(document.instance_uid)
        assert found is not None
        return found

    def document(self, instance_uid: str) -> Outgoing | None:
        """Return a document by its SOP instance UID."""
        found = self._documents("WHERE instance_uid = ?", instance_uid)
        return found[0] if found else None

    def documents(self) -> list[Outgoing]:
        """Return the newest documents, newest first."""
        return self._documents(f"ORDER BY seq DESC LIMIT {_LISTED}")

    def waiting(self) -> list[Outgoing]:
        """Return the documents that are not delivered yet, oldest first."""
        return self._documents("WHERE state = ? ORDER BY seq", WAITING)

    def content(self, instance_uid: str) -> bytes:
        """Return the DICOM file of a document that waits; empty if it is delivered."""
        with self._changing() as connection:
            row = connection.execute(
                "SELECT content FROM documents WHERE instance_uid = ?", (instance_uid,)
            ).fetchone()
        return bytes(row[0]) if row and row[0] is not None else b""

    def settle(self, instance_uid: str, state: str, problem: str | None = None) -> None:
        """Record what became of a document; its content is kept only while it waits."""
        with self._changing() as connection:
            connection.execute(
                "UPDATE documents SET state = ?, problem = ?, "
                "content = CASE WHEN ? = 'waiting' THEN content END WHERE instance_uid = ?",
                (state, problem, state, instance_uid),
            )

    def _documents(self, rest: str, *values: Any) -> list[Outgoing]:
        with self._changing() as connection:
            rows = connection.execute(f"SELECT {_DOCUMENT} FROM documents {rest}", values)
            return [Outgoing(*row) for row in rows]

    # What an answer was about -----------------------------------------------------------------

    def note_shown(self, answer: Answer) -> None:
        """Record which images and series an answer was about."""
        with self._changing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO shown VALUES (?, ?, ?)",
                (answer.id, json.dumps(answer.images), json.dumps(answer.series)),
            )

    def shown(self, answer_id: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Return images and series of an answer; None if they are not known."""
        with self._changing() as connection:
            row = connection.execute(
                "SELECT images, series FROM shown WHERE answer_id = ?", (answer_id,)
            ).fetchone()
        return (tuple(json.loads(row[0])), tuple(json.loads(row[1]))) if row else None

    # The watcher ------------------------------------------------------------------------------

    def sizes(self) -> dict[str, str]:
        """Return the size of each study that the watcher has dealt with."""
        with self._changing() as connection:
            return dict(connection.execute("SELECT study_uid, size FROM watched"))

    def note_watched(self, study_uid: str, size: str, content_key: str) -> None:
        """Record that a study of this size, with these images, needs nothing more."""
        with self._changing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO watched VALUES (?, ?, ?)", (study_uid, size, content_key)
            )

    def announce(self, study_uid: str) -> None:
        """Record a study that the archive says is complete."""
        with self._changing() as connection:
            connection.execute("INSERT OR IGNORE INTO announced VALUES (?)", (study_uid,))

    def announced(self) -> list[str]:
        """Return the announced studies that the watcher has not dealt with, oldest first."""
        with self._changing() as connection:
            rows = connection.execute("SELECT study_uid FROM announced ORDER BY rowid")
            return [row[0] for row in rows]

    def forget_announced(self, study_uid: str) -> None:
        """Record that the watcher has dealt with an announced study."""
        with self._changing() as connection:
            connection.execute("DELETE FROM announced WHERE study_uid = ?", (study_uid,))

    def is_settled(self, study_uid: str, content_key: str) -> bool:
        """Whether these images were drafted, or need no draft."""
        with self._changing() as connection:
            return any(
                connection.execute(
                    f"SELECT 1 FROM {table} WHERE study_uid = ? AND content_key = ?",
                    (study_uid, content_key),
                ).fetchone()
                for table in ("drafts", "watched")
            )

    def is_only_reported(self, study_uid: str) -> bool:
        """Whether there are documents about a study, and the watcher has not dealt with it."""
        with self._changing() as connection:
            return all(
                bool(
                    connection.execute(
                        f"SELECT 1 FROM {table} WHERE study_uid = ?", (study_uid,)
                    ).fetchone()
                )
                == is_there
                for table, is_there in (("documents", True), ("drafts", False), ("watched", False))
            )

    def add_draft(
        self,
        study_uid: str,
        content_key: str,
        answer: Answer | None,
        problem: str | None = None,
        document: tuple[Outgoing, bytes] | None = None,
    ) -> bool:
        """Record a draft and its document, both or neither; False if there is a draft already."""
        text = json.dumps(answer_to_json(answer)) if answer else None
        row = (study_uid, content_key, utc_now(), answer.id if answer else None, text, problem)
        with self._changing() as connection:
            done = connection.execute("INSERT OR IGNORE INTO drafts VALUES (?, ?, ?, ?, ?, ?)", row)
            if done.rowcount and document is not None:
                _insert_document(connection, *document)
            return bool(done.rowcount)

    def drafts(self) -> list[Draft]:
        """Return the newest drafts, newest first."""
        with self._changing() as connection:
            rows = connection.execute(
                "SELECT study_uid, created, answer, problem FROM drafts "
                f"ORDER BY rowid DESC LIMIT {_LISTED}"
            ).fetchall()
        return [
            Draft(study, created, answer_from_json(json.loads(text)) if text else None, problem)
            for study, created, text, problem in rows
        ]

    def draft_of(self, answer_id: str) -> Answer | None:
        """Return a draft by the id of its answer."""
        with self._changing() as connection:
            row = connection.execute(
                "SELECT answer FROM drafts WHERE answer_id = ?", (answer_id,)
            ).fetchone()
        return answer_from_json(json.loads(row[0])) if row else None

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._file.connection(create=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def _insert_document(connection: sqlite3.Connection, document: Outgoing, content: bytes) -> None:
    values = (*(getattr(document, name.strip()) for name in _DOCUMENT.split(",")), content)
    connection.execute(
        f"INSERT OR IGNORE INTO documents ({_DOCUMENT}, content) VALUES ({', '.join('?' * 10)})",
        values,
    )
