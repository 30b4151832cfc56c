import re
from pathlib import Path

from .conftest import ROOT

PAGE = ROOT / "docs" / "reading.md"


def table_rows() -> list[str]:
    """The rows of all tables of the page, without heads and the lines below them."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    is_rule = [re.fullmatch(r"[|\s:-]+", line) is not None and "|" in line for line in lines]
    return [
        line
        for line, rule, next_is_rule in zip(lines, is_rule, [*is_rule[1:], False], strict=True)
        if line.startswith("|") and not rule and not next_is_rule
    ]


def names_of_tests(folder: Path) -> set[str]:
    found: set[str] = set()
    for path in folder.rglob("test_*.py"):
        found |= set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M))
    return found


def named_in(row: str, before: str) -> list[str]:
    """The tests that a row names, `test_begins_so…` for several; "the same" are those of the row before."""
    if "the same" in row.split("|")[-2]:
        return re.findall(NAME, before)
    return re.findall(NAME, row)


NAME = r"`(?:[\w/.]+::)?(test_\w+…?|…)`"


def test_each_line_names_a_test_that_exists():
    rows, known = table_rows(), names_of_tests(ROOT / "tests")
    assert len(rows) > 50
    before = ""
    for row in rows:
        if row.rstrip(" |").endswith(("not met", "**")):
            continue  # no such file is known, or a heading
        named = named_in(row, before)
        assert named, f"no test named: {row}"
        for name in named:
            begins = name.removesuffix("…")
            assert begins in known or any(each.startswith(begins) for each in known), row
        before = row if re.findall(NAME, row) else before


def test_each_line_says_what_becomes_of_a_file():
    for row in table_rows():
        assert row.count("|") >= 4, row
