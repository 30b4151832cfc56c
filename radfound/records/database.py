"""A SQLite file with a versioned layout, shared by threads and processes, safe against kills."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radfound.exceptions import DamagedError, StorageError
from radfound.records.durable import PRIVATE_FILE, make_directory, set_aside

logger = logging.getLogger(__name__)

_BUSY_TIMEOUT_S = 30.0
_MAKING = threading.Lock()


@dataclass(frozen=True)
class Kind:
    """A kind of SQLite file.

    Parameters
    ----------
    what : str
        Name of the content for messages.
    application_id : int
        Distinguishes the file from all other SQLite files.
    table : str
        A table that every file of the kind has.
    older_id : int or None
        An id that older files of the kind have; other kinds may have it too.
    """

    what: str
    application_id: int
    table: str
    older_id: int | None = None


CORRECTIONS = Kind("correction log", 0x52464C31, "corrections")  # "RFL1"
ANSWERS = Kind("journal of answers", 0x52464A31, "answers")  # "RFJ1"
SCORES = Kind("book of scores", 0x52465331, "uncertainties")  # "RFS1"
RATINGS = Kind("record of ratings", 0x52465231, "ratings", older_id=0x52465331)  # "RFR1"
TEMPLATES = Kind("store of templates", 0x52465431, "decisions")  # "RFT1"
OUTBOX = Kind("outbox for the archive", 0x52465031, "documents")  # "RFP1"
KINDS = (CORRECTIONS, ANSWERS, SCORES, RATINGS, TEMPLATES, OUTBOX)
"""Every kind of SQLite file; no two have the same application id."""


class Database:
    """A SQLite file in WAL mode; committed rows survive a kill and a power cut.

    Parameters
    ----------
    path : Path
        Created, with its folder, at the first connection with `create`.
    kind : Kind
    layouts : sequence of sequences of str
        Statements that migrate each layout to the next one, beginning with the empty file. An
        older file is migrated at the first connection with `create`.

    Raises
    ------
    StorageError
        From every method, if the file is damaged, is something else, or cannot be written.
    """

    def __init__(self, path: Path, kind: Kind, layouts: Sequence[Sequence[str]]):
        self.path = path
        self.name = f"{path.parent.name}/{path.name}"
        self._kind = kind
        self._what = kind.what
        self._layouts = layouts

    @contextmanager
    def connection(self, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Open the file for one operation, so that no process holds a handle across a fork."""
        with self.clear_errors():
            if create:
                make_directory(self.path.parent)
                self._make_private()
            connection = self._open("rwc" if create else "rw")
            try:
                if create:
                    self.set_up(connection)
                yield connection
            finally:
                connection.close()

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query; none if the file does not exist yet or is empty."""
        if not self.path.exists():
            return []
        with self.connection() as connection:
            if not self.layout(connection):
                return []
            return connection.execute(query, values).fetchall()

    def _open(self, mode: str) -> sqlite3.Connection:
        """Open the file; in exclusive mode if a full disk has no room for the shared WAL index."""
        try:
            return _connect(f"{self.path.absolute().as_uri()}?mode={mode}", "NORMAL")
        except sqlite3.OperationalError as error:
            if "disk I/O" not in str(error):
                raise
        return _connect(f"{self.path.absolute().as_uri()}?mode={mode}", "EXCLUSIVE")

    def _make_private(self) -> None:
        """Create the file if missing, and make it and its WAL files private.

        An existing file is not opened here: closing it would drop the locks that SQLite holds.
        """
        with _MAKING:
            if not self.path.exists():
                with suppress(FileExistsError):
                    os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
        for suffix in ("", "-wal", "-shm"):
            file = self.path.with_name(self.path.name + suffix)
            with suppress(FileNotFoundError, PermissionError):
                if file.stat().st_mode & 0o077:
                    file.chmod(PRIVATE_FILE)

    @contextmanager
    def clear_errors(self) -> Iterator[None]:
        """Raise errors of SQLite and the file system as StorageError."""
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise StorageError(
                f"{self.name}: the {self._what} cannot be used ({error}); check that the "
                "folder can be written by this user and that the disk is not full"
            ) from error
        except sqlite3.DatabaseError as error:
            raise DamagedError(
                f"{self.name}: the {self._what} is damaged ({error}); restore it from a backup, "
                "or move it away to start a new one"
            ) from error

    def layout(self, connection: sqlite3.Connection) -> int:
        """Return the file's layout; 0 for an empty file, left by a kill at the very start."""
        # One snapshot for the three queries: a commit between them would look like a foreign file.
        own_snapshot = not connection.in_transaction
        if own_snapshot:
            connection.execute("BEGIN")
        try:
            application_id = connection.execute("PRAGMA application_id").fetchone()[0]
            layout = int(connection.execute("PRAGMA user_version").fetchone()[0])
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        finally:
            if own_snapshot:
                connection.execute("COMMIT")
        is_older = application_id == self._kind.older_id and self._kind.table in names
        is_own = application_id == self._kind.application_id and (
            not names or self._kind.table in names
        )
        if not (is_own or is_older):
            if names:
                raise StorageError(
                    f"{self.name}: a database of something else; move it away, or name another file"
                )
            return 0
        if not 1 <= layout <= len(self._layouts):
            raise StorageError(
                f"{self.name}: its layout is {layout}, this version supports up to "
                f"{len(self._layouts)}; update RadFound"
            )
        return layout

    def set_up(self, connection: sqlite3.Connection) -> None:
        """Migrate the file to the newest layout."""
        if self.layout(connection) == len(self._layouts):
            return
        _switch_to_wal(connection)
        connection.execute("BEGIN IMMEDIATE")
        for statements in self._layouts[
            self.layout(connection) :
        ]:  # another process may have migrated the file
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {self._kind.application_id}")
        connection.execute(f"PRAGMA user_version = {len(self._layouts)}")
        connection.execute("COMMIT")

    def check(self) -> None:
        """Check the whole file for damage, if it exists."""
        if not self.path.exists():
            return
        with self.connection() as connection:
            self.layout(connection)
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise DamagedError(
                f"{self.name}: the {self._what} is damaged ({found}); restore it from a backup, "
                "or move it away to start a new one"
            )

    def recover(self) -> None:
        """Set the file aside if it is damaged; for records that may start empty."""
        try:
            self.check()
        except DamagedError as error:
            for suffix in ("-wal", "-shm", ""):
                file = self.path.with_name(self.path.name + suffix)
                if file.exists():
                    set_aside(file, self._what, str(error.__cause__ or "its pages"))
        except StorageError as error:
            logger.warning("%s", error)


def _connect(uri: str, locking: str) -> sqlite3.Connection:
    """Connect and make a first query, which creates the shared WAL index unless locking is exclusive."""
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute(f"PRAGMA locking_mode = {locking}")
        connection.execute("PRAGMA synchronous = FULL")  # reads the file
    except BaseException:
        connection.close()
        raise
    return connection


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; SQLite itself does not wait for another process that does so."""
    deadline_s = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)
