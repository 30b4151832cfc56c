"""Validation of external values by pydantic, with RadFound's error messages.

A message begins with the name of the field and never quotes text, which may be a patient's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    TypeAdapter,
    ValidationError,
)
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function

from radfound.exceptions import RadFoundError, RequestError

T = TypeVar("T")

CONFIG = ConfigDict(extra="forbid", hide_input_in_errors=True, revalidate_instances="always")
"""Configuration of every model of the contract."""

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
    """Whether text can be encoded as UTF-8; lone surrogates, which JSON allows, cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class OneOf:
    """A validator, for `Annotated`, that accepts only some texts."""

    choices: tuple[str, ...]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "enum": list(self.choices)}

    def _check(self, value: object) -> object:
        if value not in self.choices:
            raise ValueError(f"found {shown(value)}; expected {' or '.join(self.choices)}")
        return value


def one_of(choices: Iterable[str]) -> OneOf:
    """Return a validator that accepts only these texts."""
    return OneOf(tuple(choices))


def _storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("holds half a surrogate pair; expected valid Unicode")
    return text


def _in_range(number: float) -> float:
    if not abs(number) <= 1e9:
        raise ValueError("found a number that is not finite or beyond 1e9")
    return number


Text = Annotated[str, Strict(), AfterValidator(_storable)]
"""Text that can be encoded as UTF-8."""
Number = Annotated[float, Strict(), AfterValidator(_in_range)]
"""A finite number of at most 1e9."""
Fraction = Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)]
"""A number from 0 to 1."""
Truth = Annotated[bool, Strict()]
Positive = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Strict(), Field(ge=1)]


def validate(
    adapter: TypeAdapter[T],
    value: object,
    name: str,
    error: type[RadFoundError] = RequestError,
    *,
    within: str = "",
) -> T:
    """Validate a value against a type.

    Parameters
    ----------
    adapter : TypeAdapter
        The type.
    value : object
        As parsed from JSON or YAML.
    name : str
        Name of the whole value, for faults outside its fields.
    error : type of RadFoundError
        Raised for an invalid value.
    within : str
        Name of the enclosing field, prefixed to the names of the value's fields.
    """
    try:
        return adapter.validate_python(value)
    except ValidationError as found:
        raise error(first_fault(found, name, within)) from None


def first_fault(error: ValidationError, name: str, within: str = "") -> str:
    """Return a message for the first fault, beginning with the field's name."""
    first = error.errors(include_url=False)[0]
    field = field_name((within, *first["loc"]) if within else first["loc"]) or name
    return f"{field}: {_in_words(first, name)}"


def fault_in_file(error: ValidationError, file: str) -> str:
    """Return a message for the first fault in a file, such as `study.yaml, cases 1: id is missing`."""
    first = error.errors(include_url=False)[0]
    places = [file]
    for part in first["loc"]:
        if isinstance(part, int):
            places[-1] += f" {part + 1}"  # of a list, whose name is the part before
        else:
            places.append(str(part))
    field = places.pop() if first["loc"] and isinstance(first["loc"][-1], str) else ""
    place = ", ".join(places)
    if first["type"] == "missing":
        return f"{place}: {field} is missing"
    return f"{place}: {field + ': ' if field else ''}{_in_words(first, file)}"


def field_name(location: Sequence[int | str]) -> str:
    """Return the path of a field, such as `history[0].answer`."""
    name, before = "", None
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part != before:  # a union's tag repeats the name of its field
            name += f".{str(part)[:40]}" if name else str(part)[:40]
        before = part
    return name


def inline_schema(kind: Any) -> dict[str, Any]:
    """Return the JSON schema of a type without references, to describe a request's body."""
    schema = TypeAdapter(kind).json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return inlined(definitions[part["$ref"].rpartition("/")[2]])
        return {key: inlined(value) for key, value in part.items()}

    found: dict[str, Any] = inlined(schema)
    return found


def kind_of(value: object) -> str:
    """Return the kind of a JSON value in words."""
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
    if kind == "value_error":  # raised by RadFound's own validators
        return str(context["error"])
    if kind == "missing":
        return "missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"not a field of {name}"
    # pydantic calls a text too long in either way, as it is declared.
    if kind == "string_too_long" or (kind == "too_long" and isinstance(value, str)):
        return f"found {len(value):,} characters; at most {context['max_length']:,} fit"
    if kind == "too_long":
        return f"found {context['actual_length']} entries; at most {context['max_length']} fit"
    if kind == "too_short" and not context["actual_length"]:
        return f"found an empty list; expected a list of at least {context['min_length']}"
    if kind == "too_short":
        return (
            f"found {context['actual_length']} entries; expected at least {context['min_length']}"
        )
    if kind in ("greater_than", "greater_than_equal", "less_than_equal", "finite_number"):
        return f"found {value}; expected {_bounds(context)}"
    return str(fault["msg"])


def _bounds(context: Mapping[str, Any]) -> str:
    if "gt" in context:
        return f"more than {context['gt']:g}"
    if "ge" in context:
        return f"at least {context['ge']:g}"
    return f"at most {context['le']:g}" if "le" in context else "a finite number"


def shown(value: object) -> str:
    """Return the repr of a value, shortened to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
