"""Answers of an unfinished run, kept on disk, so that a run that was ended goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from radfound.engine.generated import Generated
from radfound.engine.protocol import Description
from radfound.exceptions import RequestError, StorageError
from radfound.study.region import region_key

FILE = "unfinished.jsonl"


class KeptAnswers:
    """Answers of one model by question, in a file that grows with each of them.

    Parameters
    ----------
    folder : Path
        Output folder of the run.
    model : Description
    adapter : str or None

    Raises
    ------
    RequestError
        If the folder holds an unfinished run of another model.
    StorageError
        If the file cannot be written.
    """

    def __init__(self, folder: Path, model: Description, adapter: str | None = None):
        self._path = folder / FILE
        self._answers: dict[str, Generated] = {}
        header = {
            "model": model.name,
            "revision": model.revision,
            "recipe": model.recipe,
            "adapter": adapter,
        }
        lines = self._lines()
        if lines and lines[0] != header:
            raise RequestError(
                f"--out: {folder} holds an unfinished run of {lines[0].get('model')}; name another folder, or "
                f"delete {FILE} in it"
            )
        for line in lines[1:]:
            self._answers[line["key"]] = _from_json(line)
        try:
            if not lines:
                self._path.write_text(json.dumps(header) + "\n", encoding="utf-8")
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise StorageError(
                f"--out: {self._path} cannot be written ({error.strerror}); give another folder"
            ) from error

    def __len__(self) -> int:
        return len(self._answers)

    @staticmethod
    def key(study: Hashable, question: Any, limit: int) -> str:
        """Return the key of a question; `study` names what is shown."""
        asked = {**asdict(question), "region": region_key(question.region)}
        text = json.dumps([_hex(study), asked, limit], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, key: str) -> Generated | None:
        """Return an answer, or None if it was not kept."""
        return self._answers.get(key)

    def add(self, key: str, answer: Generated) -> None:
        """Keep an answer; it survives a kill."""
        self._answers[key] = answer
        self._file.write(json.dumps({"key": key, **asdict(answer)}) + "\n")
        self._file.flush()

    def finish(self) -> None:
        """Delete the file: the run's results are written."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _lines(self) -> list[dict[str, Any]]:
        """Return the lines of the file; a last one that was cut off is removed from it."""
        if not self._path.is_file():
            return []
        found, whole = [], 0
        content = self._path.read_bytes()
        for line in content.splitlines(keepends=True):
            try:
                found.append(json.loads(line))
            except ValueError:
                break
            if not line.endswith(b"\n"):
                found.pop()
                break
            whole += len(line)
        if whole < len(content):
            with self._path.open("rb+") as file:
                file.truncate(whole)
        return found


def _hex(study: Hashable) -> str:
    return study.hex() if isinstance(study, bytes) else str(study)


def _from_json(line: dict[str, Any]) -> Generated:
    def numbers(name: str) -> tuple[float, ...] | None:
        return None if line[name] is None else tuple(line[name])

    return Generated(
        line["text"], numbers("log_probabilities"), numbers("entropies"), line["complete"]
    )
