"""The settings file of the models: a YAML file that lists several."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from radfound.engine.models.choice import BACKENDS, MINI, parse_choice
from radfound.engine.openai.address import parse_address
from radfound.engine.openai.limits import Limits
from radfound.engine.recipes import RECIPES
from radfound.exceptions import ModelSettingsError
from radfound.validation import CONFIG, Text, field_name, first_fault, one_of

_GB = 2**30
_MINI_BYTES = 600 * 2**20
_LOADED_PER_BYTE = 1.2  # memory of a loaded model, beside its files
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,100}")
_Gigabytes = Annotated[float, Field(gt=0, le=100_000)]
_Name = Annotated[Text, Field(min_length=1, max_length=200)]


def _no_key(value: object) -> object:
    if isinstance(value, str):
        raise ValueError(
            "found text, which may be the key itself; keep it out of this file, and name where it is: "
            "{env: NAME} or {file: PATH}"
        )
    return value


def _variable(name: object) -> object:
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
        raise ValueError("expected the name of an environment variable, not a key")
    return name


@dataclass(frozen=True, config=CONFIG)
class Key:
    """Where a server's key is: an environment variable or a file.

    Parameters
    ----------
    env, file : str or None
        Exactly one of them.
    """

    env: Annotated[str, BeforeValidator(_variable)] | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless one place is named."""
        if (self.env is None) == (self.file is None):
            raise ValueError("expected one of {env: NAME} and {file: PATH}")

    def read(self) -> str:
        """Return the key.

        Raises
        ------
        ModelSettingsError
            If the variable is not set, or the file cannot be read or is empty.
        """
        try:
            found = os.environ.get(self.env, "") if self.env else _read(Path(self.file or ""))
        except (OSError, UnicodeDecodeError) as error:
            raise ModelSettingsError(
                f"key: the file {Path(self.file or '').name} cannot be read ({type(error).__name__})"
            ) from None
        place = f"the environment variable {self.env}" if self.env else "the file of the key"
        if not re.fullmatch(r"[!-~]+", found.strip()):
            raise ModelSettingsError(
                f"key: {place} is not set, or holds blanks or other letters; expected one line with the key"
            )
        return found.strip()


def _read(path: Path) -> str:
    return path.expanduser().read_text(encoding="utf-8")


@dataclass(frozen=True, config=CONFIG)
class ModelSettings:
    """One model.

    Parameters
    ----------
    name : str
        Name in requests and answers.
    backend : {"radfound", "transformers", "openai"}
    place : str
        Checkpoint name, folder, or address of a server with "#" and the model's name there.
    recipe : str or None
        Name of the recipe; None chooses by the model.
    adapters : str or None
        With a server: the folder of adapters as the server sees it, if it mounts it elsewhere.
    limits : Limits
        With a server.
    key : Key or None
        With a server.
    revision : str or None
        With a server: revision of the same weights in a folder, so that adapters trained on them fit.
    device : str or None
        In this process: "cpu", "cuda" or "cuda:1"; None for the best.
    bits : {4, 8} or None
        In this process: quantise the weights, by bitsandbytes.
    memory_gb : float or None
        Memory that the model takes here; None for an estimate from its files.
    """

    name: _Name
    backend: Annotated[str, one_of(BACKENDS)]
    place: _Name
    recipe: Annotated[str, one_of(tuple(RECIPES))] | None = None
    adapters: str | None = None
    limits: Limits = field(default_factory=Limits)
    key: Annotated[Key, BeforeValidator(_no_key)] | None = None
    revision: _Name | None = None
    device: str | None = None
    bits: Annotated[int, Field(ge=4, le=8, multiple_of=4)] | None = None
    memory_gb: _Gigabytes | None = None

    @property
    def memory_bytes(self) -> int:
        """Memory that the loaded model takes in this process, estimated from its files; 0 with a server."""
        if self.memory_gb is not None:
            return round(self.memory_gb * _GB)
        if self.backend == "openai":
            return 0
        folder = Path(self.place).expanduser()
        if not folder.is_dir():
            return _MINI_BYTES
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        return round(size * _LOADED_PER_BYTE * (self.bits or 16) / 16)


@dataclass(frozen=True, config=CONFIG)
class Models:
    """All models of a server.

    Parameters
    ----------
    models : tuple of ModelSettings
        `radfound-mini` is added if missing.
    default : str
        Name of the model that answers if a request names none.
    memory_gb : float or None
        Memory for loaded models together; None for half of this machine's.
    send_images_to : tuple of str
        Hosts other than this machine that may receive pictures.
    """

    models: Annotated[tuple[ModelSettings, ...], Field(max_length=100)]
    default: str = MINI
    memory_gb: _Gigabytes | None = None
    send_images_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Add `radfound-mini`, and raise ValueError for what does not fit together."""
        names = [model.name for model in self.models]
        if MINI not in names:
            mini = ModelSettings(name=MINI, backend="radfound", place=MINI)
            object.__setattr__(self, "models", (*self.models, mini))
            names.append(MINI)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two models have the name {twice}; expected different names")
        if self.default not in names:
            raise ValueError(f"default: found {self.default!r}; {_nearest(self.default, names)}")
        for model in self.models:
            if model.backend == "openai":
                parse_address(model.place, self.send_images_to)

    def named(self, name: str | None = None) -> ModelSettings:
        """Return a model by name; the default for None.

        Raises
        ------
        ModelSettingsError
            If there is none of that name.
        """
        for model in self.models:
            if model.name == (name or self.default):
                return model
        names = [model.name for model in self.models]
        raise ModelSettingsError(f"model: found {str(name)[:80]!r}; {_nearest(str(name), names)}")


_MODELS = TypeAdapter(Models)


def one_model(text: str, send_images_to: Sequence[str] = ()) -> Models:
    """Return the settings for one model, as named on a command line.

    Parameters
    ----------
    text : str
        As in `parse_choice`.
    send_images_to : sequence of str
    """
    choice = parse_choice(text, send_images_to)
    model = ModelSettings(name=choice.name, backend=choice.backend, place=choice.place)
    return Models((model,), default=choice.name, send_images_to=tuple(send_images_to))


def load_models(path: Path, send_images_to: Sequence[str] = ()) -> Models:
    """Load the settings file.

    Parameters
    ----------
    path : Path
    send_images_to : sequence of str
        Hosts that may receive pictures, besides those of the file.

    Raises
    ------
    ModelSettingsError
        If the file cannot be read or a field is wrong; the message names the field and no value of a key.
    """
    try:
        value = yaml.safe_load(_read(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelSettingsError(
            f"models: {path.name} cannot be read ({type(error).__name__}); expected a YAML file"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark else ""
        raise ModelSettingsError(f"models: {path.name} is no valid YAML{where}") from None
    if isinstance(value, dict) and send_images_to:
        own = value.get("send_images_to") or []
        value = {
            **value,
            "send_images_to": [*(own if isinstance(own, list) else [own]), *send_images_to],
        }
    return parse_models(value, path.name)


def parse_models(value: object, source: str = "models") -> Models:
    """Validate settings as parsed from YAML.

    Parameters
    ----------
    value : object
    source : str
        For messages.
    """
    try:
        return _MODELS.validate_python(value)
    except ValidationError as error:
        raise ModelSettingsError(f"{source}: {_fault(error)}") from None


def _fault(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] not in ("extra_forbidden", "unexpected_keyword_argument"):
        return first_fault(error, "the settings")
    *where, unknown = first["loc"]
    known = _fields(where)
    place = field_name([*where, str(unknown)])
    return f"{place}: unknown; {_nearest(str(unknown), known)}"


def _fields(where: Sequence[int | str]) -> list[str]:
    kinds: dict[str | int, type[Any]] = {"models": ModelSettings, "limits": Limits, "key": Key}
    kind = next((kinds[part] for part in reversed(where) if part in kinds), Models)
    return [each.name for each in dataclasses.fields(kind)]


def _nearest(found: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(found, known, 1)
    hint = f"did you mean {near[0]}? Known: " if near else "expected one of "
    return hint + ", ".join(known)
