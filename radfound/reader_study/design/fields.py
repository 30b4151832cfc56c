"""Validate fields of a reader study's JSON and YAML; errors name place, found and expected value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from radfound.exceptions import ReaderStudyError
from radfound.validation import kind_of

_T = TypeVar("_T")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def object_of(place: str, value: object) -> Mapping[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, Mapping):
        raise ReaderStudyError(f"{place}: found {kind_of(value)}; expected an object")
    return value


def check_fields(
    place: str, row: Mapping[str, Any], needed: Sequence[str], optional: Sequence[str]
) -> None:
    """Raise ReaderStudyError if a field is missing or unknown."""
    known = (*needed, *optional)
    for name in row:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            advice = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(known)}"
            raise ReaderStudyError(f"{place}: unknown field {name!r}; {advice}")
    for name in needed:
        if name not in row:
            raise ReaderStudyError(f"{place}: {name} is missing; expected {', '.join(needed)}")


def text_field(place: str, row: Mapping[str, Any], name: str, may_be_empty: bool = False) -> str:
    """Return a text, stripped of surrounding spaces."""
    value = row.get(name)
    if not isinstance(value, str):
        raise ReaderStudyError(f"{place}: {name}: found {kind_of(value)}; expected text")
    if not value.strip() and not may_be_empty:
        raise ReaderStudyError(f"{place}: {name}: found an empty text; write one")
    return value.strip()


def optional_text_field(place: str, row: Mapping[str, Any], name: str) -> str | None:
    """Return a text, or None if missing."""
    return None if row.get(name) is None else text_field(place, row, name)


def id_field(place: str, row: Mapping[str, Any], name: str) -> str:
    """Return an id: up to 64 letters, digits or ``.``, ``_``, ``-``."""
    return checked_id(f"{place}: {name}", row.get(name))


def checked_id(place: str, value: object) -> str:
    """Return an id; ReaderStudyError begins with `place`."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        found = repr(value) if isinstance(value, str | int) else kind_of(value)
        raise ReaderStudyError(
            f"{place}: found {found}; expected 1 to 64 letters, digits or . _ - (in quotes, if only digits)"
        )
    return value


def bool_field(place: str, row: Mapping[str, Any], name: str, default: bool | None = None) -> bool:
    """Return true or false."""
    value = row.get(name, default)
    if not isinstance(value, bool):
        raise ReaderStudyError(f"{place}: {name}: found {kind_of(value)}; expected true or false")
    return value


def optional_number_field(
    place: str, row: Mapping[str, Any], name: str, least: int = 0
) -> int | None:
    """Return an integer of at least `least`, or None if missing."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        found = value if isinstance(value, int | float) else kind_of(value)
        raise ReaderStudyError(
            f"{place}: {name}: found {found}; expected a whole number of at least {least}"
        )
    return value


def list_field(
    place: str, row: Mapping[str, Any], name: str, parse: Callable[[str, object], _T]
) -> tuple[_T, ...]:
    """Return a non-empty list of parsed elements; `parse` gets the place of each for its messages."""
    value = row.get(name)
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else kind_of(value)
        raise ReaderStudyError(f"{place}: {name}: found {found}; expected a list of at least one")
    return tuple(parse(f"{place}, {name} {k}", each) for k, each in enumerate(value, 1))


def check_unique(place: str, values: Sequence[str]) -> None:
    """Raise ReaderStudyError if a value occurs twice."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ReaderStudyError(f"{place}: {value!r} is there twice; make each unique")
        seen.add(value)
