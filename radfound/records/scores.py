"""The model's uncertainty about each study, and the study's embedding."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from radfound.question import Answer, ModelVersion
from radfound.records.database import SCORES, Database
from radfound.records.ranking import Score

_LAYOUT = (
    """CREATE TABLE uncertainties (
        image TEXT PRIMARY KEY, model TEXT NOT NULL, uncertainty REAL NOT NULL, question TEXT
    )""",
    "CREATE TABLE embeddings (image TEXT PRIMARY KEY, model TEXT NOT NULL, vector BLOB NOT NULL)",
)
# A study keeps the highest uncertainty of one model; another model replaces it.
_RECORD_UNCERTAINTY = """INSERT INTO uncertainties VALUES (?, ?, ?, ?) ON CONFLICT (image) DO UPDATE SET
    model = excluded.model, uncertainty = excluded.uncertainty, question = excluded.question
    WHERE excluded.model != uncertainties.model
       OR excluded.uncertainty > uncertainties.uncertainty"""


def scores_path(studies: str | Path) -> Path:
    """Return where the scores of a folder of studies are kept."""
    return Path(studies) / ".radfound" / "scores.sqlite"


class ScoreBook:
    """The scores of all studies, in one SQLite file; safe for several threads and processes.

    Parameters
    ----------
    path : str or Path
        See `scores_path`. Made when the first score is written.

    Raises
    ------
    StorageError
        From every method, if the file is damaged, is something else, or cannot be written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = Database(self.path, SCORES, (_LAYOUT,))

    def recover(self) -> None:
        """Set a damaged file aside, log this, and start a new one."""
        self._file.recover()

    def record_uncertainty(self, answer: Answer) -> None:
        """Record an answer's uncertainty if it is the highest one for the study so far."""
        if answer.uncertainty is None:
            return
        values = (_weights(answer.model), answer.uncertainty, answer.question)
        with self._file.connection(create=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                _RECORD_UNCERTAINTY, [(image, *values) for image in answer.images]
            )
            connection.execute("COMMIT")

    def record_embedding(self, image: str, model: ModelVersion, embedding: np.ndarray) -> None:
        """Record a study's embedding, shape (D,), under the base weights of a model."""
        vector = np.asarray(embedding, dtype="<f4").tobytes()
        with self._file.connection(create=True) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)",
                (image, model.revision, vector),
            )

    def embedded(self, model: ModelVersion) -> set[str]:
        """Return the studies that have an embedding by these base weights."""
        return {
            image for image, revision, _ in self._rows("embeddings") if revision == model.revision
        }

    def answered(self, model: ModelVersion) -> set[str]:
        """Return the studies with an uncertainty from exactly this model version."""
        return {
            image
            for image, weights, *_ in self._rows("uncertainties")
            if weights == _weights(model)
        }

    def scores(self) -> dict[str, Score]:
        """Return the score of each study, with the embeddings of the commonest model only."""
        embeddings = self._rows("embeddings")
        counts: dict[str, int] = {}
        for _, revision, _ in embeddings:
            counts[revision] = counts.get(revision, 0) + 1
        commonest = max(counts, key=lambda revision: counts[revision], default=None)
        vectors = {
            image: np.frombuffer(vector, dtype="<f4")
            for image, revision, vector in embeddings
            if revision == commonest
        }
        answered = {image: (value, asked) for image, _, value, asked in self._rows("uncertainties")}
        return {
            image: Score(*answered.get(image, (None, None)), vectors.get(image))
            for image in vectors.keys() | answered.keys()
        }

    def _rows(self, table: str) -> list[tuple]:
        return self._file.rows(f"SELECT * FROM {table} ORDER BY image")


def _weights(model: ModelVersion) -> str:
    return f"{model.revision}/{model.adapter or ''}"
