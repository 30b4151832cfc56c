"""The append-only log of readers' corrections."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from radfound.correction import Correction, utc_now
from radfound.exceptions import CorrectionError, NotFoundError, StorageError
from radfound.question import ModelVersion
from radfound.records.database import CORRECTIONS, Database
from radfound.records.hash_chain import Linked, Verification, link, verify
from radfound.study.region import Box, Plane, region_from_json, region_key

__all__ = [
    "Correction",
    "CorrectionLog",
    "Withdrawal",
    "log_path",
    "newest_of",
    "rows_digest",
    "rows_digests",
]

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
    "region",
    "withdraws",
)
_STORED = (*_COLUMNS, "link")
_INSERT = f"INSERT INTO corrections ({', '.join(_STORED)}) VALUES ({', '.join('?' * len(_STORED))})"
_FIRST_LAYOUT = (
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
)
_SECOND_LAYOUT = (
    "ALTER TABLE corrections ADD COLUMN region TEXT",
    "ALTER TABLE corrections ADD COLUMN link TEXT",
)
_THIRD_LAYOUT = ("ALTER TABLE corrections ADD COLUMN withdraws TEXT",)
# Queries leave a file of an earlier layout unchanged; appending migrates it.
_TABLE = {
    1: "(SELECT *, NULL AS region, NULL AS link, NULL AS withdraws FROM corrections)",
    2: "(SELECT *, NULL AS withdraws FROM corrections)",
    3: "corrections",
}
# Conditions on the rows of each layout: corrections, and those of them that were not withdrawn.
_ALL = dict.fromkeys(_TABLE, "withdraws IS NULL")
_HOLDING = {
    1: "TRUE",
    2: "TRUE",
    3: "withdraws IS NULL AND id NOT IN (SELECT withdraws FROM corrections WHERE withdraws IS NOT NULL)",
}
_WITHDRAWN = (
    "withdrawn"  # the verdict in the row of a withdrawal, which is no verdict of a Correction
)


def log_path(studies: str | Path) -> Path:
    """Return where the corrections of a folder of studies are kept."""
    return Path(studies) / ".radfound" / "corrections.sqlite"


@dataclass(frozen=True)
class Withdrawal:
    """A correction that somebody took back.

    Parameters
    ----------
    id : str
        Of the withdrawal's own row.
    correction : str
        Id of the correction that no longer holds.
    author : str
    created : str
        ISO 8601 in UTC.
    """

    id: str
    correction: str
    author: str
    created: str


class CorrectionLog:
    """An append-only log of corrections in one SQLite file.

    A correction is never deleted. A withdrawal is a row of its own, and the queries leave out what was withdrawn.

    Several threads and processes may use one file at once. An append that has returned survives
    a kill and a power cut. A log that does not exist yet counts as empty and is not created by queries.

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
        layouts = (_FIRST_LAYOUT, _SECOND_LAYOUT, _THIRD_LAYOUT)
        self._file = Database(self.path, CORRECTIONS, layouts)
        self._name = self._file.name
        self._file.check()

    def append(self, correction: Correction) -> bool:
        """Record a correction.

        Returns
        -------
        bool
            True if the correction is new; False if the log has the same one already.

        Raises
        ------
        CorrectionError
            If another correction has the same id. The earlier one stays.
        """
        return self.extend([correction])[0]

    def extend(self, corrections: Iterable[Correction]) -> list[bool]:
        """Record several corrections, all or none; see `append`.

        Returns
        -------
        list of bool
            Whether each is new.
        """
        with self._file.connection(create=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                is_new = [self._add(connection, correction) for correction in corrections]
            except CorrectionError:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        return is_new

    def _add(self, connection: sqlite3.Connection, correction: Correction) -> bool:
        known = self._select(connection, _ALL, "id = ?", correction.id)
        if not known and not _is_withdrawal(connection, correction.id):
            row = _to_row(correction)
            connection.execute(_INSERT, (*row.values(), link(_head(connection), row)))
            return True
        if known and known[0].equals_judgement_of(correction):
            return False
        raise CorrectionError(
            f"id: a different correction is already recorded as {correction.id}; "
            "give an edit an id of its own"
        )

    def __iter__(self) -> Iterator[Correction]:
        """Iterate over the corrections, oldest first."""
        return iter(self.rows())

    def withdraw(self, correction_id: str, author: str) -> bool:
        """Record that a correction no longer holds; its row and the hash chain stay.

        Returns
        -------
        bool
            True if the withdrawal is new; False if the correction was withdrawn before.

        Raises
        ------
        NotFoundError
            If there is no correction with that id.
        CorrectionError
            If the author is blank or too long.
        """
        taken_back = replace(self.get(correction_id), author=author)  # checks the author
        with self._file.connection(create=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            known = connection.execute(
                "SELECT 1 FROM corrections WHERE withdraws = ?", (correction_id,)
            )
            if known.fetchone():
                connection.execute("ROLLBACK")
                return False
            row = _to_row(taken_back) | {
                "id": f"w-{uuid.uuid4()}",
                "verdict": _WITHDRAWN,
                "created": utc_now(),
                "withdraws": correction_id,
                # Named by the correction's own row; not repeated.
                "question": None,
                "model_text": "",
                "text": "",
            }
            connection.execute(_INSERT, (*row.values(), link(_head(connection), row)))
            connection.execute("COMMIT")
        return True

    def withdrawals(self) -> list[Withdrawal]:
        """Return the withdrawals in the order of recording."""
        return [each for _, each in self.since(0)[1] if isinstance(each, Withdrawal)]

    def since(self, number: int) -> tuple[int, list[tuple[int, Correction | Withdrawal]]]:
        """Return what was recorded after a row, for an index that follows the log.

        Parameters
        ----------
        number : int
            Number of the last row that is known already; 0 for none.

        Returns
        -------
        newest : int
            Number of the newest row.
        found : list of (int, Correction or Withdrawal)
            Numbers and rows, in the order of recording; withdrawn corrections are among them.
        """
        if not self.path.exists():
            return 0, []
        with self._file.connection() as connection:
            layout = self._file.layout(connection)
            if not layout:
                return 0, []
            connection.execute("BEGIN")  # one snapshot for both queries
            rows = connection.execute(
                f"SELECT seq, {', '.join(_COLUMNS)} FROM {_TABLE[layout]} WHERE seq > ? ORDER BY seq",
                (number,),
            ).fetchall()
            [newest] = connection.execute(f"SELECT MAX(seq) FROM {_TABLE[layout]}").fetchone()
        return newest or 0, [(row[0], self._parsed(row[1:])) for row in rows]

    def rows(self, *, withdrawn: bool = False) -> list[Correction]:
        """Return the corrections in the order of recording, with those that were withdrawn if asked."""
        return self._query(_ALL if withdrawn else _HOLDING)

    def latest(self) -> list[Correction]:
        """Return the newest correction for each images, task, question and region, oldest first."""
        return newest_of(self.rows())

    def for_image(self, image: str) -> list[Correction]:
        """Return the corrections that name an image, oldest first."""
        named = "EXISTS (SELECT 1 FROM json_each(corrections.images) WHERE value = ?)"
        return self._query(_HOLDING, named, image)

    def images(self) -> set[str]:
        """Return the ids of all images that a correction names."""
        return {image for row in self.rows() for image in row.images}

    def get(self, correction_id: str) -> Correction:
        """Return one correction, withdrawn or not; NotFoundError if there is none with that id."""
        found = self._query(_ALL, "id = ?", correction_id)
        if not found:
            raise NotFoundError(f"no correction {correction_id!r} in {self._name}")
        return found[0]

    def count(self) -> int:
        """Return how many corrections hold."""
        if not self.path.exists():
            return 0
        with self._file.connection() as connection:
            layout = self._file.layout(connection)
            if not layout:
                return 0
            found = connection.execute(
                f"SELECT COUNT(*) FROM {_TABLE[layout]} AS corrections WHERE {_HOLDING[layout]}"
            )
            return int(found.fetchone()[0])

    def verify(self, noted: str | None = None) -> Verification:
        """Find rows that were changed, removed or reordered outside the log.

        Parameters
        ----------
        noted : str, optional
            The head that an earlier call returned; with this, a rewritten log is found too.
        """
        if not self.path.exists():
            return verify((), 0, noted)
        with self._file.connection() as connection:
            connection.execute("BEGIN")
            layout = self._file.layout(connection)
            if not layout:
                return verify((), 0, noted)
            newest = connection.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = 'corrections'"
            ).fetchone()
            found = connection.execute(
                f"SELECT seq, link, {', '.join(_COLUMNS)} FROM {_TABLE[layout]} ORDER BY seq"
            )
            rows = (
                Linked(row[0], dict(zip(_COLUMNS, row[2:], strict=True)), row[1]) for row in found
            )
            return verify(rows, newest[0] if newest else 0, noted)

    def _query(
        self, which: Mapping[int, str], also: str = "TRUE", *values: Any
    ) -> list[Correction]:
        if not self.path.exists():
            return []
        with self._file.connection() as connection:
            if not self._file.layout(connection):
                return []
            return self._select(connection, which, also, *values)

    def _select(
        self,
        connection: sqlite3.Connection,
        which: Mapping[int, str],
        also: str,
        *values: Any,
    ) -> list[Correction]:
        layout = self._file.layout(connection)
        rows = connection.execute(
            f"SELECT {', '.join(_COLUMNS)} FROM {_TABLE[layout]} AS corrections "
            f"WHERE {which[layout]} AND {also} ORDER BY seq",
            values,
        ).fetchall()
        return [self._parsed(row) for row in rows]

    def _parsed(self, row: tuple[Any, ...]) -> Any:  # a Withdrawal only from `since`
        try:
            return _from_row(row)
        except (CorrectionError, ValueError, TypeError) as error:
            raise StorageError(
                f"{self._name}: a recorded correction is damaged ({error}); restore the file "
                "from a backup"
            ) from error


def newest_of(corrections: Iterable[Correction]) -> list[Correction]:
    """Return the newest correction for each images, task, question and region, oldest first."""
    newest: dict[tuple, Correction] = {}
    for each in corrections:
        about = (each.images, each.task, each.question, region_key(each.region))
        newest.pop(about, None)
        newest[about] = each
    return list(newest.values())


def rows_digest(corrections: Sequence[Correction]) -> str:
    """Return SHA-256 over corrections in order, one canonical JSON line each."""
    return rows_digests(corrections)[-1]


def rows_digests(corrections: Sequence[Correction]) -> list[str]:
    """Return the digests of the first 0, 1, 2, ... corrections; the last digest covers all."""
    sha = hashlib.sha256()
    digests = [sha.hexdigest()]
    for correction in corrections:
        content = asdict(correction)
        if correction.region is None:  # as in digests from before regions existed
            del content["region"]
        line = json.dumps(content, sort_keys=True, separators=(",", ":"))
        sha.update(line.encode("ascii") + b"\n")
        digests.append(sha.hexdigest())
    return digests


def _is_withdrawal(connection: sqlite3.Connection, row_id: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM corrections WHERE id = ? AND withdraws IS NOT NULL", (row_id,)
    )
    return found.fetchone() is not None


def _head(connection: sqlite3.Connection) -> str:
    """Return the link that precedes the next row."""
    newest = connection.execute("SELECT link FROM corrections ORDER BY seq DESC LIMIT 1").fetchone()
    if newest is None or newest[0] is not None:
        return newest[0] if newest else ""
    head = ""
    for row in connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM corrections ORDER BY seq"):
        head = link(head, dict(zip(_COLUMNS, row, strict=True)))
    return head


def _to_row(correction: Correction) -> dict[str, Any]:
    values = asdict(correction)
    values["images"] = json.dumps(correction.images)
    values["region"] = region_key(correction.region)
    model = correction.model
    values["model_name"] = model.name if model else None
    values["model_revision"] = model.revision if model else None
    values["model_adapter"] = model.adapter if model else None
    values["withdraws"] = None
    return {column: values[column] for column in _COLUMNS}


def _from_row(row: tuple[Any, ...]) -> Correction | Withdrawal:
    values = dict(zip(_COLUMNS, row, strict=True))
    taken_back = values.pop("withdraws")
    if taken_back is not None:
        return Withdrawal(values["id"], taken_back, values["author"], values["created"])
    name, revision, adapter = (
        values.pop(f"model_{key}") for key in ("name", "revision", "adapter")
    )
    values["model"] = ModelVersion(name, revision, adapter) if name is not None else None
    values["images"] = tuple(json.loads(values["images"]))
    values["region"] = _region(values["region"])
    return Correction(**values)


def _region(text: str | None) -> Box | Plane | None:
    return None if text is None else region_from_json(json.loads(text))
