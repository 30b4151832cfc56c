"""One model, as named on a command line: `radfound-mini`, a folder, or `openai:ADDRESS#NAME`.

Imports the standard library and the errors only, because `make serve` checks names before it installs anything.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from radfound.engine.openai.address import EXAMPLE, parse_address
from radfound.exceptions import ModelSettingsError

MINI = "radfound-mini"
CHECKPOINTS = (MINI, "radfound-tiny")
BACKENDS = ("radfound", "transformers", "openai")
_OPENAI = "openai:"


@dataclass(frozen=True)
class Choice:
    """A model and the backend that runs it.

    Parameters
    ----------
    name : str
        Name in answers.
    backend : str
        One of `BACKENDS`.
    place : str
        Checkpoint, folder or address.
    """

    name: str
    backend: str
    place: str


def parse_choice(text: str, send_images_to: Collection[str] = ()) -> Choice:
    """Parse the name of a model on a command line.

    Parameters
    ----------
    text : str
        A checkpoint of RadFound, a folder of weights, or "openai:" and an address.
    send_images_to : collection of str
        Hosts other than this machine that may receive pictures.

    Raises
    ------
    ModelSettingsError
        If it is none of these.
    """
    if text.startswith(_OPENAI):
        return _at_address(text.removeprefix(_OPENAI), send_images_to)
    if re.match(r"https?://", text):
        raise ModelSettingsError(f"model: found an address; write it as openai:{EXAMPLE}")
    if text in CHECKPOINTS:
        return Choice(text, "radfound", text)
    folder = Path(text).expanduser()
    if text and folder.is_dir():
        return Choice(folder.resolve().name, backend_of(folder), str(folder))
    near = difflib.get_close_matches(text, CHECKPOINTS, 1, cutoff=0.7)
    hint = f"did you mean {near[0]}? Known: " if near else "expected "
    raise ModelSettingsError(
        f"model: found {text[:80]!r}; {hint}{' or '.join(CHECKPOINTS)}, a folder of weights, or openai:{EXAMPLE}"
    )


def _at_address(text: str, send_images_to: Collection[str]) -> Choice:
    address = parse_address(text, send_images_to)
    name = (address.model or urlsplit(address.url).netloc).rstrip("/").rpartition("/")[2]
    return Choice(name, "openai", text)


def backend_of(folder: Path) -> str:
    """Return the backend for a folder of weights, by the type in its configuration.

    Raises
    ------
    ModelSettingsError
        If it has no readable configuration.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        is_own = config.get("model_type") == "radfound"
    except (OSError, ValueError, AttributeError) as error:
        raise ModelSettingsError(
            f"model: {folder.name} has no readable config.json; expected a folder as Hugging Face saves it"
        ) from error
    return "radfound" if is_own else "transformers"
