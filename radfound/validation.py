"""Values from outside, checked by pydantic, with its errors in this project's words.

A message begins with the name of the field and never repeats a text, which may be a patient's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
)

from radfound.exceptions import RadFoundError, RequestError

T = TypeVar("T")

CONFIG = ConfigDict(extra="forbid", hide_input_in_errors=True, revalidate_instances="always")
"""Of every model of the wire."""

_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "mapping_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dataclass_type": "an object",
}


def is_storable(text: str) -> bool:
    """Whether text can be written as UTF-8 (JSON may carry lone surrogates, which cannot)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def one_of(choices: Collection[str]) -> BeforeValidator:
    """Return a validator of text that is one of some words."""

    def check(value: object) -> object:
        if value not in tuple(choices):
            raise ValueError(f"found {shown(value)}; expected {' or '.join(choices)}")
        return value

    return BeforeValidator(check)


def _storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("holds half a surrogate pair; expected valid Unicode")
    return text


def _in_range(number: float) -> float:
    if not abs(number) <= 1e9:
        raise ValueError("found a number that is not finite or beyond 1e9")
    return number


Text = Annotated[str, Strict(), AfterValidator(_storable)]
"""Text that can be stored."""
Number = Annotated[float, Strict(), AfterValidator(_in_range)]
"""A finite number of at most 1e9."""
Fraction = Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)]
"""A number from 0 to 1."""
Truth = Annotated[bool, Strict()]


def validate(
    adapter: TypeAdapter[T],
    value: object,
    name: str,
    error: type[RadFoundError] = RequestError,
    *,
    within: str = "",
) -> T:
    """Return a value as its type.

    Parameters
    ----------
    adapter : TypeAdapter
        Of the type.
    value : object
        As it came out of JSON or YAML.
    name : str
        What the whole value is called where the fault is in no field of it.
    error : type of RadFoundError
        What to raise.
    within : str
        Name of the field that the value is in, which the names of its own fields are added to.
    """
    try:
        return adapter.validate_python(value)
    except ValidationError as found:
        raise error(first_fault(found, name, within)) from None


def first_fault(error: ValidationError, name: str, within: str = "") -> str:
    """Return the first fault in words, beginning with the field's name."""
    first = error.errors(include_url=False)[0]
    where = field_name((within, *first["loc"]) if within else first["loc"]) or name
    return f"{where}: {_in_words(first, name)}"


def field_name(location: Sequence[int | str]) -> str:
    """Return where in a value a fault is, such as `history[0].answer`."""
    name, before = "", None
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part != before:  # a union's tag repeats the name of its field
            name += f".{str(part)[:40]}" if name else str(part)[:40]
        before = part
    return name


def kind_of(value: object) -> str:
    """Return what kind of JSON value was found, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, Mapping):
        return "an object"
    names = {str: "text", int: "a number", float: "a number", list: "a list", tuple: "a list"}
    return names.get(type(value), type(value).__name__)


def _in_words(fault: Any, name: str) -> str:
    kind, context, value = fault["type"], fault.get("ctx") or {}, fault["input"]
    if kind in _EXPECTED:
        return f"found {kind_of(value)}; expected {_EXPECTED[kind]}"
    if kind == "value_error":  # of a validator of this project
        return str(context["error"])
    if kind == "missing":
        return "missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"not a field of {name}"
    if kind == "string_too_long":
        return f"found {len(value):,} characters; at most {context['max_length']:,} fit"
    if kind == "too_long":
        return f"found {context['actual_length']} entries; at most {context['max_length']} fit"
    if kind == "too_short":
        return (
            f"found {context['actual_length']} entries; expected at least {context['min_length']}"
        )
    if kind in ("greater_than_equal", "less_than_equal", "finite_number"):
        return f"found {value}; expected {_bounds(context)}"
    return str(fault["msg"])


def _bounds(context: Mapping[str, Any]) -> str:
    if "ge" in context:
        return f"at least {context['ge']:g}"
    return f"at most {context['le']:g}" if "le" in context else "a finite number"


def shown(value: object) -> str:
    """Return a short value as it was found; of a long one its beginning."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
