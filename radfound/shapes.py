"""What JSON values are, said without repeating them: they may be a patient's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from radfound.exceptions import RequestError


def object_of(
    name: str, value: object, error: type[RequestError] = RequestError
) -> Mapping[str, Any]:
    """Return a JSON object; raise `error`, which begins with `name`, if it is something else."""
    if not isinstance(value, Mapping):
        raise error(f"{name}: found {kind_of(value)}; expected an object")
    return value


def number_of(name: str, value: object) -> float:
    """Return a number of at most 1e9; RequestError begins with `name`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RequestError(f"{name}: found {kind_of(value)}; expected a number")
    if not abs(value) <= 1e9:
        raise RequestError(f"{name}: found a number that is not finite or beyond 1e9")
    return float(value)


def kind_of(value: object) -> str:
    """Say what kind of JSON value was found."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
