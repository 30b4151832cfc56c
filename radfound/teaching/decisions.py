"""What people decided about proposed templates, in a versioned store beside the corrections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from radfound.correction import MAX_AUTHOR_CHARS, utc_now
from radfound.exceptions import NotFoundError, RequestError
from radfound.records.database import TEMPLATES, Database
from radfound.teaching.questions import question_key
from radfound.teaching.wording import Template

State = Literal["accepted", "refused"]

_LAYOUT = (
    """CREATE TABLE decisions (
        version INTEGER PRIMARY KEY AUTOINCREMENT,
        template TEXT NOT NULL,
        state TEXT NOT NULL,
        author TEXT NOT NULL,
        created TEXT NOT NULL,
        task TEXT NOT NULL,
        question TEXT,
        text TEXT NOT NULL,
        terms TEXT NOT NULL,
        corrections TEXT NOT NULL
    )""",
)


def decisions_path(studies: str | Path) -> Path:
    """Return where the decisions about templates of a folder of studies are kept."""
    return Path(studies) / ".radfound" / "templates.sqlite"


@dataclass(frozen=True)
class Decision:
    """One person's decision about a template.

    Parameters
    ----------
    version : int
        1, 2, ... in the order of the decisions; names the template in answers.
    template : Template
        As it was shown.
    state : {"accepted", "refused"}
    author : str
    created : str
        ISO 8601 in UTC.
    """

    version: int
    template: Template
    state: State
    author: str
    created: str


class Decisions:
    """An append-only SQLite file of decisions; the newest about a template holds.

    Parameters
    ----------
    path : Path
        See `decisions_path`.
    """

    def __init__(self, path: Path):
        self._file = Database(path, TEMPLATES, (_LAYOUT,))
        self._path = path
        self._known: tuple[list[tuple[int, int]], list[Decision]] | None = None
        self._file.check()

    def decide(self, template: Template, state: State, author: str) -> Decision:
        """Record a decision; accepting a template replaces the one accepted before for its question."""
        if not author.strip() or len(author) > MAX_AUTHOR_CHARS:
            raise RequestError(
                f"author: expected 1 to {MAX_AUTHOR_CHARS} characters, who decided about the template"
            )
        created = utc_now()
        values = (
            template.id,
            state,
            author,
            created,
            template.task,
            template.question,
            template.text,
            json.dumps(template.terms or {}),
            json.dumps(template.corrections),
        )
        with self._file.connection(create=True) as connection:
            found = connection.execute(
                "INSERT INTO decisions (template, state, author, created, task, question, text, terms, corrections)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            self._known = None
            return Decision(int(found.lastrowid or 0), template, state, author, created)

    def all(self) -> list[Decision]:
        """Return every decision, oldest first; from memory while the file is unchanged."""
        state = self._state()
        if self._known is None or self._known[0] != state:
            self._known = (state, self._read())
        return list(self._known[1])

    def _state(self) -> list[tuple[int, int]]:
        found = []
        for file in (self._path, self._path.with_name(f"{self._path.name}-wal")):
            with suppress(FileNotFoundError):
                status = file.stat()
                found.append((status.st_mtime_ns, status.st_size))
        return found

    def _read(self) -> list[Decision]:
        if not self._path.exists():
            return []
        with self._file.connection() as connection:
            if not self._file.layout(connection):
                return []
            rows = connection.execute(
                "SELECT version, template, state, author, created, task, question, text, terms, corrections"
                " FROM decisions ORDER BY version"
            ).fetchall()
        return [
            Decision(
                version,
                Template(
                    template, task, question, text, tuple(json.loads(ids)), terms=json.loads(terms)
                ),
                state,
                author,
                created,
            )
            for version, template, state, author, created, task, question, text, terms, ids in rows
        ]

    def newest(self) -> dict[str, Decision]:
        """Return the newest decision about each template by its id."""
        return {each.template.id: each for each in self.all()}

    def accepted(self) -> Mapping[object, Decision]:
        """Return the template in use by `question_key`: the newest accepted one that was not refused later."""
        holding = [each for each in self.newest().values() if each.state == "accepted"]
        holding.sort(key=lambda each: each.version)
        return {question_key(each.template.task, each.template.question): each for each in holding}

    def get(self, template: str) -> Decision:
        """Return the newest decision about a template; NotFoundError if there is none."""
        found = self.newest().get(template)
        if found is None:
            raise NotFoundError(f"template: nobody has decided about {template[:40]!r}")
        return found
