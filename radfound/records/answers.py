"""The journal of answers: question, study and model version of each, without the text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radfound.correction import utc_now
from radfound.exceptions import NotFoundError
from radfound.question import Answer, ModelVersion
from radfound.records.database import ANSWERS, Database
from radfound.study.region import Box, Plane, region_from_json, region_key

_COLUMNS = (
    "id", "created", "images", "task", "question", "region", "uncertainty",
    "model_name", "model_revision", "model_adapter",
)  # fmt: skip
_LAYOUT = (
    """CREATE TABLE answers (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        created TEXT NOT NULL,
        images TEXT NOT NULL,
        task TEXT NOT NULL,
        question TEXT,
        region TEXT,
        uncertainty REAL,
        model_name TEXT NOT NULL,
        model_revision TEXT NOT NULL,
        model_adapter TEXT
    )""",
)


def journal_path(studies: str | Path) -> Path:
    """Return where the journal of a folder of studies is kept."""
    return Path(studies) / ".radfound" / "answers.sqlite"


@dataclass(frozen=True)
class RecordedAnswer:
    """One recorded answer.

    Parameters
    ----------
    id : str
    created : str
        Time, ISO 8601 in UTC.
    images : tuple of str
        The caller's ids of the images.
    task : {"vqa", "caption", "report"}
    question : str or None
    region : Box, Plane or None
        The part of the study that the question was about; None for the whole.
    uncertainty : float or None
        See `Answer`.
    model : ModelVersion
    """

    id: str
    created: str
    images: tuple[str, ...]
    task: str
    question: str | None
    region: Box | Plane | None
    uncertainty: float | None
    model: ModelVersion


class AnswerJournal:
    """The answers that a server gave, in one SQLite file.

    Finds the weights that gave an answer, and the answers that the model was least certain of.
    Several threads and processes may use one file.

    Parameters
    ----------
    path : str or Path
        See `journal_path`. Made when the first answer is recorded.

    Raises
    ------
    StorageError
        From every method, if the file is damaged, is something else, or cannot be written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = Database(self.path, ANSWERS, (_LAYOUT,))

    def recover(self) -> None:
        """Set a damaged file aside, log this, and start a new one."""
        self._file.recover()

    def record(self, answer: Answer, region: Box | Plane | None) -> None:
        """Record an answer about a region, or about the whole study (None)."""
        model = answer.model
        values = (
            answer.id, utc_now(), json.dumps(answer.images), answer.task, answer.question,
            region_key(region), answer.uncertainty, model.name, model.revision, model.adapter,
        )  # fmt: skip
        with self._file.connection(create=True) as connection:
            connection.execute(
                f"INSERT INTO answers ({', '.join(_COLUMNS)})"
                f" VALUES ({', '.join('?' * len(_COLUMNS))})",
                values,
            )

    def get(self, answer_id: str) -> RecordedAnswer:
        """Return one answer; NotFoundError if it was not recorded."""
        found = self._query("WHERE id = ?", answer_id)
        if not found:
            raise NotFoundError(f"no answer {answer_id!r} in {self._file.name}")
        return found[0]

    def images(self) -> set[str]:
        """Return the ids of all images that were asked about."""
        query = "SELECT DISTINCT value FROM answers, json_each(answers.images)"
        return {image for (image,) in self._file.rows(query)}

    def rows(self) -> list[RecordedAnswer]:
        """Return every answer in the order of recording."""
        return self._query("")

    def _query(self, where: str, *values: Any) -> list[RecordedAnswer]:
        query = f"SELECT {', '.join(_COLUMNS)} FROM answers {where} ORDER BY seq"
        return [_from_row(*row) for row in self._file.rows(query, values)]


def _from_row(
    answer_id: str, created: str, images: str, task: str, question: str | None,
    region: str | None, uncertainty: float | None, *model: str,
) -> RecordedAnswer:  # fmt: skip
    return RecordedAnswer(
        answer_id,
        created,
        tuple(json.loads(images)),
        task,
        question,
        region_from_json(json.loads(region)) if region is not None else None,
        uncertainty,
        ModelVersion(*model),
    )
