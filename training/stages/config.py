"""Settings of a stage from a YAML file and `key=value` arguments; an unknown key is an error.

Every stage has the same command line:
`python -m training.stages.STAGE --config FILE [--data DIR] [--out DIR] [key=value …]`.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import logging
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from radfound.exceptions import RadFoundError, TrainingError

Settings = TypeVar("Settings")


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
    return _build(cls, tree, place, "")


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
    """Refuses repeated keys, of which YAML's own loader silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                line = node.value[number][0].start_mark.line + 1
                raise TrainingError(f"{key!r} is set a second time in line {line}; keep one")
        return super().construct_mapping(node, deep)


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


def _build(cls: type[Settings], tree: Any, place: str, prefix: str) -> Settings:
    """Build a dataclass from a tree of settings."""
    if not isinstance(tree, Mapping):
        raise TrainingError(
            f"{place}: {prefix or 'all'} is {_kind(tree)}; expected settings of {cls.__name__}"
        )
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in tree:
        if key not in fields:
            raise TrainingError(f"{place}: {_unknown(key, fields, prefix)}")
    hints = typing.get_type_hints(cls)
    values = {
        name: _convert(hints[name], value, place, f"{prefix}.{name}" if prefix else name)
        for name, value in tree.items()
    }
    missing = [
        f"{prefix}.{name}" if prefix else name
        for name, field in fields.items()
        if name not in tree
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise TrainingError(f"{place}: {', '.join(missing)} not set; add {missing[0]}=…")
    return cls(**values)


def _unknown(key: Any, fields: Mapping[str, Any], prefix: str) -> str:
    where = f"{prefix}.{key}" if prefix else str(key)
    near = difflib.get_close_matches(str(key), fields, n=1)
    question = f"did you mean {near[0]}? " if near else ""
    return f"{where} is no setting; {question}Known here: {', '.join(sorted(fields))}"


def _convert(kind: Any, value: Any, place: str, where: str) -> Any:
    """Convert a value to the type of a field."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(inner, value, place, where)
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast(type, kind), value, place, where)
    if origin is Literal:
        if value in inner:
            return value
    elif origin in (list, tuple) and isinstance(value, list):
        item = inner[0] if inner else Any
        return origin(_convert(item, each, place, f"{where}[{n}]") for n, each in enumerate(value))
    elif origin is dict and isinstance(value, dict):
        return {
            key: _convert(inner[1], each, place, f"{where}.{key}") for key, each in value.items()
        }
    else:
        found = _scalar(kind, value)
        if found is not None:
            return found
    raise TrainingError(f"{place}: {where} is {_kind(value)}; expected {_name(kind)}")


def _convert_union(inner: Sequence[Any], value: Any, place: str, where: str) -> Any:
    if value is None and type(None) in inner:
        return None
    kinds = [kind for kind in inner if kind is not type(None)]
    for kind in kinds[:-1]:
        try:
            return _convert(kind, value, place, where)
        except TrainingError:
            continue
    return _convert(kinds[-1], value, place, where)


def _scalar(kind: Any, value: Any) -> Any:
    """Return a value as bool, int, float, str or Path; None if it is something else."""
    if kind is bool or isinstance(value, bool):
        return value if kind is bool and isinstance(value, bool) else None
    if kind is float and isinstance(value, str):
        try:
            return float(value)  # YAML parses 1e-3, without a point, as a string
        except ValueError:
            return None
    if kind is float and isinstance(value, int):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    return value if isinstance(kind, type) and isinstance(value, kind) else None


def _kind(value: Any) -> str:
    return "empty" if value is None else f"{value!r} ({type(value).__name__})"


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
