"""The log of what readers said about answers; it never forgets one."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from radfound.answer import ModelVersion
from radfound.correction import Correction
from radfound.durable import TEMPORARY_PREFIX, make_directory, sync_directory, sync_file
from radfound.exceptions import CorrectionError, NotFoundError, RequestError, StorageError

__all__ = ["Correction", "CorrectionLog", "log_path", "rows_digest"]

_BUSY_TIMEOUT_S = 30.0
_APPLICATION_ID = 0x52464C31  # "RFL1": tells a correction log from any other SQLite file
_LAYOUT = 1
_COLUMNS = (
    "id",
    "answer_id",
    "images",
    "task",
    "question",
    "model_text",
    "verdict",
    "text",
    "author",
    "created",
    "model_name",
    "model_revision",
    "model_adapter",
    "image_hash",
)
_INSERT = (
    f"INSERT INTO corrections ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
)
_SCHEMA = (
    """CREATE TABLE corrections (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        answer_id TEXT,
        images TEXT NOT NULL,
        task TEXT NOT NULL,
        question TEXT,
        model_text TEXT NOT NULL,
        verdict TEXT NOT NULL,
        text TEXT NOT NULL,
        author TEXT NOT NULL,
        created TEXT NOT NULL,
        model_name TEXT,
        model_revision TEXT,
        model_adapter TEXT,
        image_hash TEXT
    )""",
    """CREATE TRIGGER corrections_are_not_changed BEFORE UPDATE ON corrections
        BEGIN SELECT RAISE(ABORT, 'corrections are append-only'); END""",
    """CREATE TRIGGER corrections_are_not_deleted BEFORE DELETE ON corrections
        BEGIN SELECT RAISE(ABORT, 'corrections are append-only'); END""",
    # INSERT OR REPLACE deletes without firing the trigger above
    """CREATE TRIGGER corrections_are_not_replaced BEFORE INSERT ON corrections
        WHEN EXISTS (SELECT 1 FROM corrections WHERE id = NEW.id OR seq = NEW.seq)
        BEGIN SELECT RAISE(ABORT, 'corrections are append-only'); END""",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_LAYOUT}",
)


def log_path(studies: str | Path) -> Path:
    """Return where the corrections of a folder of studies are kept."""
    return Path(studies) / ".radfound" / "corrections.sqlite"


class CorrectionLog:
    """An append-only log of corrections in one SQLite file.

    Several threads and processes may use one file at once. An append that has returned survives
    a kill and a power cut. Reading a log that does not exist yet finds it empty and makes nothing.

    Parameters
    ----------
    path : str or Path
        The SQLite file, see `log_path`.

    Raises
    ------
    StorageError
        From every method, if the file is damaged, is something else, or cannot be written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._name = f"{self.path.parent.name}/{self.path.name}"
        if self.path.exists():
            with self._connection() as connection:
                _check_whole(connection, self._name)

    def append(self, correction: Correction) -> bool:
        """Record a correction.

        Returns
        -------
        bool
            True if it is new; False if the same correction is there already.

        Raises
        ------
        CorrectionError
            If another correction has the same id. The earlier one stays.
        """
        with self._connection(create=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            known = self._select(connection, "WHERE id = ?", correction.id)
            if known:
                connection.execute("ROLLBACK")
                if known[0].says_the_same_as(correction):
                    return False
                raise CorrectionError(
                    f"id: a different correction is already recorded as {correction.id}; "
                    "give an edit an id of its own"
                )
            connection.execute(_INSERT, _to_row(correction))
            connection.execute("COMMIT")
        return True

    def __iter__(self) -> Iterator[Correction]:
        """Go through the corrections, oldest first."""
        return iter(self.rows())

    def rows(self) -> list[Correction]:
        """Return every correction in the order of recording."""
        return self._query("")

    def latest(self) -> list[Correction]:
        """Return the newest correction for each images, task and question, oldest first."""
        return self._query(
            "WHERE seq IN (SELECT MAX(seq) FROM corrections GROUP BY images, task, question)"
        )

    def for_image(self, image: str) -> list[Correction]:
        """Return the corrections that name an image, oldest first."""
        return self._query(
            "WHERE EXISTS (SELECT 1 FROM json_each(corrections.images) WHERE value = ?)", image
        )

    def get(self, correction_id: str) -> Correction:
        """Return one correction; NotFoundError if there is none with that id."""
        found = self._query("WHERE id = ?", correction_id)
        if not found:
            raise NotFoundError(f"no correction {correction_id!r} in {self._name}")
        return found[0]

    def count(self) -> int:
        """Return how many corrections were recorded."""
        if not self.path.exists():
            return 0
        with self._connection() as connection:
            if not _is_set_up(connection, self._name):
                return 0
            return int(connection.execute("SELECT COUNT(*) FROM corrections").fetchone()[0])

    def snapshot(self, path: str | Path) -> str:
        """Copy the log, as it is at one moment, into a file of its own.

        Parameters
        ----------
        path : str or Path
            The copy; replaced if it exists. It opens as a `CorrectionLog`.

        Returns
        -------
        str
            SHA-256 over the corrections in order: equal for equal content.
        """
        target = Path(path)
        if target.exists() and self.path.exists() and target.samefile(self.path):
            raise RequestError(f"{self._name}: a log cannot be its own snapshot; name another file")
        with self._clear_errors():
            make_directory(target.parent)
            with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=target.parent) as folder:
                copy = Path(folder) / target.name
                with self._connection(create=True) as source:
                    _copy_database(source, copy)
                sync_file(copy)
                digest = rows_digest(CorrectionLog(copy).rows())
                for suffix in ("-wal", "-shm"):  # of a former snapshot; they would spoil this one
                    target.with_name(target.name + suffix).unlink(missing_ok=True)
                os.replace(copy, target)
            sync_directory(target.parent)
        return digest

    def _query(self, where: str, *values: Any) -> list[Correction]:
        if not self.path.exists():
            return []
        with self._connection() as connection:
            if not _is_set_up(connection, self._name):
                return []
            return self._select(connection, where, *values)

    def _select(self, connection: sqlite3.Connection, where: str, *values: Any) -> list[Correction]:
        columns = ", ".join(_COLUMNS)
        rows = connection.execute(
            f"SELECT {columns} FROM corrections {where} ORDER BY seq", values
        ).fetchall()
        try:
            return [_from_row(row) for row in rows]
        except (CorrectionError, ValueError, TypeError) as error:
            raise StorageError(
                f"{self._name}: a recorded correction is damaged ({error}); restore the file "
                "from a backup"
            ) from error

    @contextmanager
    def _connection(self, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Open the file for one operation, so that no process holds a handle across a fork."""
        with self._clear_errors():
            if create:
                make_directory(self.path.parent)
            mode = "rwc" if create else "rw"
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
            )
            try:
                connection.execute("PRAGMA synchronous = FULL")
                if create:
                    _set_up(connection, self._name)
                yield connection
            finally:
                connection.close()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise StorageError(
                f"{self._name}: the correction log cannot be used ({error}); check that the "
                "folder can be written by this user and that the disk is not full"
            ) from error
        except sqlite3.DatabaseError as error:
            raise StorageError(
                f"{self._name}: not a whole correction log ({error}); restore it from a backup, "
                "or move it away to begin a new one"
            ) from error


def rows_digest(corrections: list[Correction]) -> str:
    """Return SHA-256 over corrections in order, one canonical JSON line each."""
    sha = hashlib.sha256()
    for correction in corrections:
        line = json.dumps(asdict(correction), sort_keys=True, separators=(",", ":"))
        sha.update(line.encode("ascii") + b"\n")
    return sha.hexdigest()


def _to_row(correction: Correction) -> tuple[Any, ...]:
    values = asdict(correction)
    values["images"] = json.dumps(correction.images)
    model = correction.model
    values["model_name"] = model.name if model else None
    values["model_revision"] = model.revision if model else None
    values["model_adapter"] = model.adapter if model else None
    return tuple(values[column] for column in _COLUMNS)


def _from_row(row: tuple[Any, ...]) -> Correction:
    values = dict(zip(_COLUMNS, row, strict=True))
    name, revision, adapter = (
        values.pop(f"model_{key}") for key in ("name", "revision", "adapter")
    )
    values["model"] = ModelVersion(name, revision, adapter) if name is not None else None
    values["images"] = tuple(json.loads(values["images"]))
    return Correction(**values)


def _is_set_up(connection: sqlite3.Connection, name: str) -> bool:
    """Whether the tables exist; an empty file, left by a kill at the very start, has none."""
    # One snapshot for the three reads, or a writer who finishes between them would look foreign.
    own_snapshot = not connection.in_transaction
    if own_snapshot:
        connection.execute("BEGIN")
    try:
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        layout = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    finally:
        if own_snapshot:
            connection.execute("COMMIT")
    if application_id != _APPLICATION_ID and tables:
        raise StorageError(
            f"{name}: a database of something else; move it away, or name another file"
        )
    if application_id == _APPLICATION_ID and layout != _LAYOUT:
        raise StorageError(
            f"{name}: its layout is {layout}, this version reads {_LAYOUT}; update RadFound"
        )
    return bool(application_id == _APPLICATION_ID)


def _set_up(connection: sqlite3.Connection, name: str) -> None:
    if _is_set_up(connection, name):
        return
    _switch_to_wal(connection)
    connection.execute("BEGIN IMMEDIATE")
    if not _is_set_up(connection, name):  # another process may have been first
        for statement in _SCHEMA:
            connection.execute(statement)
    connection.execute("COMMIT")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Turn on write-ahead logging; SQLite does not wait by itself while another process does so."""
    deadline_s = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)


def _check_whole(connection: sqlite3.Connection, name: str) -> None:
    _is_set_up(connection, name)
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StorageError(
            f"{name}: the correction log is damaged ({found}); restore it from a backup, "
            "or move it away to begin a new one"
        )


def _copy_database(source: sqlite3.Connection, path: Path) -> None:
    target = sqlite3.connect(path)
    try:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # one file, readable from any folder
    finally:
        target.close()
