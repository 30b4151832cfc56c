"""Cells that a spreadsheet takes for text, and that come back as they were."""

import csv

import pytest

from radfound.spreadsheet import read_rows, write_rows

from ..test_architecture import PARTS, ROOT

FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-1+1", "-", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=", "'=1", "''=1",
            "- No effusion.")  # fmt: skip
TEXTS = ("", "No effusion.", "a=b", "'", "'quoted'", "a - b", "1-2", "<-5", " =1")
NUMBERS = ("-0.5", "+3", "-1", "1e-5", "-1.5E+10", "-.5")


def written(path, *cells):
    write_rows(path, ("cell",), ({"cell": cell} for cell in cells))
    with path.open(encoding="utf-8", newline="") as file:
        return [row["cell"] for row in csv.DictReader(file)]


def test_what_a_spreadsheet_would_run_begins_with_an_apostrophe(tmp_path):
    assert written(tmp_path / "a.csv", *FORMULAS) == [f"'{cell}" for cell in FORMULAS]


def test_texts_and_negative_numbers_stay_as_they_are(tmp_path):
    assert written(tmp_path / "a.csv", *TEXTS, *NUMBERS) == [*TEXTS, *NUMBERS]
    assert written(tmp_path / "a.csv", -0.5, -3) == ["-0.5", "-3"]


def test_every_cell_comes_back_as_it_was(tmp_path):
    cells = (*FORMULAS, *TEXTS, *NUMBERS)
    written(tmp_path / "a.csv", *cells)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert [row["cell"] for row in read_rows(file)] == list(cells)


def test_rows_are_counted_and_unknown_columns_refused(tmp_path):
    assert write_rows(tmp_path / "a.csv", ("a", "b"), [{"a": 1}, {"b": 2}]) == 2
    with pytest.raises(ValueError, match="not in fieldnames"):
        write_rows(tmp_path / "a.csv", ("a",), [{"c": 1}])


def test_nothing_else_of_this_project_writes_csv():
    writers = ("csv.writer", "csv.DictWriter", "to_csv")
    files = [file for part in (*PARTS, "scripts") for file in (ROOT / part).rglob("*.py")]
    found = [
        file.name for file in files if any(word in file.read_text("utf-8") for word in writers)
    ]
    assert found == ["spreadsheet.py"]
