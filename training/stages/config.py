"""Settings of a stage from a YAML file and `key=value` arguments; an unknown key is an error.

Every stage has the same command line:
`python -m training.stages.STAGE --config FILE [--data DIR] [--out DIR] [key=value …]`.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import logging
import os
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from radfound.exceptions import RadFoundError, TrainingError
from radfound.validation import field_name

Settings = TypeVar("Settings")

_EXPECTED = {
    "int_type": "int",
    "int_from_float": "int",
    "float_type": "float",
    "bool_type": "bool",
    "string_type": "str",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "keys and values",
}


def load_config(
    cls: type[Settings], path: Path | None = None, overrides: Sequence[str] = ()
) -> Settings:
    """Load settings.

    Parameters
    ----------
    cls : dataclass
        Fields may be numbers, strings, paths, booleans, sequences, mappings, optional ones of these, or
        nested dataclasses.
    path : Path, optional
        YAML file; by default only overrides and defaults apply.
    overrides : sequence of str
        Such as "loop.steps=100": a key, with dots for nested settings, and a value in YAML.

    Raises
    ------
    TrainingError
        If a key is unknown (the message suggests a similar one), missing or repeated, or a value has the
        wrong type.
    """
    place = str(path) if path else "settings"
    tree = _read(path) if path else {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise TrainingError(
                f"{override!r} is no setting; expected key=value, such as loop.steps=100"
            )
        _put(tree, key.split("."), _parsed(text, override), override)
    _check_names(cls, tree, place, "")
    try:
        # As JSON, since that has lists and paths, but no truths for numbers and no texts for either.
        return TypeAdapter(cls).validate_json(json.dumps(_at_home(tree), default=str), strict=True)
    except ValidationError as error:
        raise TrainingError(f"{place}: {_fault(error)}") from None


def stage_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that every stage has."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, in YAML")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data")
    parser.add_argument("--out", type=Path, metavar="DIR", help="output folder")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="such as loop.steps=100")


def run_stage(
    name: str,
    cls: type[Settings],
    stage: Callable[[Settings], Any],
    description: str | None = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """Parse the command line and run a stage; an error ends the process with one line and status 2.

    Parameters
    ----------
    name : str
    cls : dataclass
        Settings of the stage; `--data` and `--out` set its fields of these names.
    stage : callable
    description : str, optional
    arguments : sequence of str, optional
        Used instead of the process's own.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m training.stages.{name}", description=description
    )
    stage_arguments(parser)
    given = parser.parse_intermixed_args(arguments)
    # With several processes only the first logs progress; the others log errors.
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    overrides = list(given.settings)
    for folder in ("data", "out"):
        if getattr(given, folder):
            overrides.append(f"{folder}={_quoted(str(getattr(given, folder)))}")
    try:
        stage(load_config(cls, given.config, overrides))
    except RadFoundError as error:
        print(f"training.stages.{name}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _quoted(text: str) -> str:
    """Return text as a quoted YAML scalar."""
    return "'" + text.replace("'", "''") + "'"


class _UniqueKeys(yaml.SafeLoader):
    """Refuses repeated keys, of which YAML's own loader silently takes the last; parses 1e-3 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                line = node.value[number][0].start_mark.line + 1
                raise TrainingError(f"{key!r} is set a second time in line {line}; keep one")
        return super().construct_mapping(node, deep)


_UniqueKeys.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+"), list("-+0123456789")
)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be read ({error.strerror}); name a YAML file"
        ) from error
    except yaml.YAMLError as error:
        raise TrainingError(f"{path}: is no YAML: {error}") from error
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise TrainingError(f"{path}: holds {_kind(tree)}; expected keys and values")
    return tree


def _parsed(text: str, override: str) -> Any:
    try:
        return yaml.load(text, Loader=_UniqueKeys)  # noqa: S506
    except yaml.YAMLError as error:
        raise TrainingError(f"{override!r}: the value is no YAML; quote it") from error


def _put(tree: dict[str, Any], keys: Sequence[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise TrainingError(f"{override!r}: {key} is a single value, not a group of settings")
    tree[keys[-1]] = value


def _check_names(cls: Any, tree: Any, place: str, prefix: str) -> None:
    """Raise TrainingError for a key that is no setting."""
    if not isinstance(tree, Mapping):
        return
    fields = {field.name for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    for key, value in tree.items():
        where = f"{prefix}.{key}" if prefix else str(key)
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            question = f"did you mean {near[0]}? " if near else ""
            raise TrainingError(
                f"{place}: {where} is no setting; {question}Known here: {', '.join(sorted(fields))}"
            )
        if dataclasses.is_dataclass(hints[key]):
            _check_names(hints[key], value, place, where)


def _at_home(value: Any) -> Any:
    """Replace ~ at the beginning of texts by the user's folder."""
    if isinstance(value, dict):
        return {key: _at_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    return str(Path(value).expanduser()) if str(value).startswith("~/") else value


def _fault(error: ValidationError) -> str:
    """Return the first fault, beginning with the setting's name."""
    faults = error.errors(include_url=False)
    missing = [field_name(fault["loc"]) for fault in faults if fault["type"] == "missing"]
    if missing:
        return f"{', '.join(missing)} not set; add {missing[0]}=…"
    first = faults[0]
    context = first.get("ctx") or {}
    expected = _EXPECTED.get(first["type"]) or context.get("class_name") or context.get("expected")
    found = f"{field_name(first['loc']) or 'all'} is {_kind(first['input'])}"
    return f"{found}; expected {expected or first['msg']}"


def _kind(value: Any) -> str:
    return "empty" if value is None else f"{value!r} ({type(value).__name__})"
