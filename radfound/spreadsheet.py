"""CSV files that are safe from formula injection in spreadsheets."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def write_rows(path: Path, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a CSV file with a header; return the number of rows.

    A text that a spreadsheet would run as a formula is prefixed with an apostrophe; `read_rows` removes
    it. Numbers are unchanged.
    """
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _escaped(value) for name, value in row.items()})
            count += 1
    return count


def read_rows(file: TextIO) -> list[dict[str, str]]:
    """Load the rows of a CSV file with a header, and undo the escaping of `write_rows`."""
    return [
        {name: _unescaped(value) for name, value in row.items()} for row in csv.DictReader(file)
    ]


def _escaped(value: Any) -> Any:
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def _unescaped(value: Any) -> Any:
    is_escaped = isinstance(value, str) and value.startswith("'") and _FORMULA.match(value)
    return value[1:] if is_escaped else value
