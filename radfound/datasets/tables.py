"""Parsers for published tables, with errors that name file, row and remedy."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from radfound.exceptions import DatasetError

ADVICE = "docs/data.md shows the layout"


def existing(*paths: Path) -> Path:
    """Return the first of these paths that exists.

    Raises
    ------
    DatasetError
        If none does; the message names all of them.
    """
    for path in paths:
        if path.exists():
            return path
    others = "".join(f", nor {path.name}" for path in paths[1:])
    raise DatasetError(f"{paths[0]}: not found{others}; {ADVICE}, check the data set's folder")


@contextmanager
def opened_text(path: Path) -> Iterator[TextIO]:
    """Open a text file, gzipped or not; DatasetError at the first line that is not UTF-8."""
    opened = gzip.open if existing(path).suffix == ".gz" else open
    try:
        # csv needs the ends of lines as they are, and the other parsers strip them.
        with opened(path, "rt", encoding="utf-8-sig", newline="") as lines:
            yield lines
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error


def read_json(path: Path) -> Any:
    """Load a JSON file."""
    try:
        return json.loads(existing(path).read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: not JSON ({error}); expected the published file; download it again"
        ) from error


def read_json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSON list, each with its position for messages."""
    rows = read_json(path)
    if not isinstance(rows, list):
        raise DatasetError(f"{path}: a {type(rows).__name__}, expected a list of rows; {ADVICE}")
    for number, row in enumerate(rows, 1):
        yield _object(row, f"{path}, row {number}")


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSONL file, each with its position for messages."""
    with opened_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DatasetError(
                    f"{place}: not JSON ({error}); expected one object a line"
                ) from error
            yield _object(row, place)


def _object(row: Any, place: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(row, dict):
        raise DatasetError(f"{place}: a {type(row).__name__}, expected an object; {ADVICE}")
    return place, row


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a CSV file, gzipped or not, which must have these columns."""
    with opened_text(path) as lines:
        table = csv.DictReader(lines)
        missing = [name for name in columns if name not in (table.fieldnames or ())]
        if missing:
            found = ", ".join(table.fieldnames or ()) or "nothing"
            raise DatasetError(
                f"{path}: no column {', '.join(missing)}; found {found}; {ADVICE}, check the file"
            )
        for row in table:
            yield f"{path}, line {table.line_num}", {k: v or "" for k, v in row.items() if k}


def read_fields(path: Path, separator: str, count: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines of a text file, each split into `count` fields."""
    with opened_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            fields = [field.strip() for field in line.rstrip("\r\n").split(separator, count - 1)]
            if len(fields) != count:
                raise DatasetError(
                    f"{path}, line {number}: {len(fields)} fields, expected {count} divided by "
                    f"{separator!r}; {ADVICE}"
                )
            yield f"{path}, line {number}", fields


def text_of(row: dict[str, Any], name: str, place: str) -> str:
    """Return a required field of a row, as stripped text."""
    value = row.get(name)
    if value is None or isinstance(value, dict | list):
        raise DatasetError(
            f"{place}: no text in {name!r}; found the fields {', '.join(map(str, row)) or 'none'}; {ADVICE}"
        )
    return str(value).strip()


def image_of(path: Path, place: str) -> Path:
    """Return the path of a row's image; DatasetError if the file is missing."""
    if not path.exists():
        raise DatasetError(
            f"{place}: names {path}, which is not there; put the publisher's images there, or leave the row out"
        )
    return path


def check_split(split: str, known: Sequence[str], name: str) -> None:
    """Raise DatasetError for a split that the data set does not have."""
    if split not in known:
        raise DatasetError(f"{name}: no split {split!r}; expected one of {', '.join(known)}")


def hashed_split(key: str) -> str:
    """Return a patient's split for sets without a published split: a tenth each for validation and test.

    Parameters
    ----------
    key : str
        The patient's id.
    """
    tenth = int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10
    return {0: "test", 1: "validation"}.get(tenth, "train")
