"""Types of the fields in a reader study's JSON and YAML, checked by pydantic.

Messages begin with the file and the place: "study.yaml, cases 1: title is missing".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    Strict,
    TypeAdapter,
    ValidationError,
)
from pydantic_core.core_schema import (
    CoreSchema,
    no_info_after_validator_function,
    no_info_before_validator_function,
)

from radfound.exceptions import ReaderStudyError
from radfound.validation import CONFIG, Text, fault_in_file, kind_of

T = TypeVar("T")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _id(value: object) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        found = repr(value) if isinstance(value, str | int) else kind_of(value)
        raise ValueError(
            f"found {found}; expected 1 to 64 letters, digits or . _ - (in quotes, if only digits)"
        )
    return value


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("found an empty text; write one")
    return text


Id = Annotated[str, BeforeValidator(_id)]
"""Up to 64 letters, digits or ``.``, ``_``, ``-``."""
Stripped = Annotated[Text, AfterValidator(str.strip)]
"""A text without surrounding spaces; may be empty."""
Written = Annotated[Text, AfterValidator(_not_empty)]
"""A text with at least one letter or sign."""
Words = Annotated[Written, AfterValidator(str.strip)]
"""A text without surrounding spaces; not empty."""
Whole = Annotated[int, Strict(), Field(ge=0)]
Some = Field(min_length=1)
"""For a list: not empty."""


class FromFile:
    """Base of the dataclasses that a file holds: strict when loaded, unchecked when built in code."""

    __pydantic_config__ = CONFIG
    NOT_IN_FILE: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = no_info_before_validator_function(cls._prepared, handler(source))
        return no_info_after_validator_function(cls._checked, inner)

    @classmethod
    def _prepared(cls, value: object) -> object:
        """Check the names of fields, before their values."""
        if not isinstance(value, Mapping):
            return value
        known = [each.name for each in fields(cls) if each.name not in cls.NOT_IN_FILE]  # type: ignore[arg-type]
        for name in value:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                advice = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(known)}"
                raise ValueError(f"unknown field {name!r}; {advice}")
        return value

    def _checked(self: T) -> T:
        """Check the fields together, or return a changed copy; ValueError says what does not fit."""
        return self


def load_from(kind: type[T], file: str, value: object, context: Any = None) -> T:
    """Return an object from a file's content; ReaderStudyError names the first wrong field."""
    try:
        return TypeAdapter(kind).validate_python(value, context=context)
    except ValidationError as error:
        raise ReaderStudyError(fault_in_file(error, file)) from None


def check_unique(place: str, values: Sequence[str]) -> None:
    """Raise ValueError if a value occurs twice."""
    known: set[str] = set()
    for value in values:
        if value in known:
            raise ValueError(f"{place}: {value!r} is there twice; make each unique")
        known.add(value)
