"""Backends from their settings; each is imported when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from radfound.engine.models.settings import ModelSettings
from radfound.engine.protocol import Backend
from radfound.optional import library

if TYPE_CHECKING:
    from radfound.engine.engine import Engine
    from radfound.records.adapters import AdapterStore


def build_backend(model: ModelSettings, send_images_to: Sequence[str] = ()) -> Backend:
    """Load a model, or connect to its server.

    Parameters
    ----------
    model : ModelSettings
    send_images_to : sequence of str
        Hosts other than this machine that may receive pictures.

    Raises
    ------
    RadFoundError
        If the model cannot be loaded or its server does not answer.
    """
    return _BUILDERS[model.backend](model, send_images_to)


def build_engine(
    model: ModelSettings,
    *,
    send_images_to: Sequence[str] = (),
    adapters: AdapterStore | None = None,
    device: str | None = None,
    calibration: Path | None = None,
    free_text: bool = False,
) -> Engine:
    """Return an engine for a model.

    Parameters
    ----------
    model : ModelSettings
    send_images_to : sequence of str
        Hosts other than this machine that may receive pictures.
    adapters : AdapterStore, optional
    device : str, optional
        For a model that names none.
    calibration : Path, optional
        Folder with `calibration.json` and `competence.json`; RadFound's own models have theirs beside the weights.
    free_text : bool
        As for `Engine`.
    """
    from radfound.engine.competence import DEFAULT_MOVE, Competence
    from radfound.engine.confidence import Calibration
    from radfound.engine.engine import Engine
    from radfound.engine.silence.live import LiveCheck

    model = replace(model, device=model.device or device)
    if model.backend == "radfound":
        return Engine.load(
            checkpoint_of(model),
            adapters=adapters,
            device=model.device,
            name=model.name,
            free_text=free_text,
        )
    backend = build_backend(model, send_images_to)
    known, competence = None, None
    if calibration:
        revision = backend.describe().revision
        known = Calibration.read(calibration, revision)
        competence = Competence.read(calibration, revision)
    live = None
    if backend.describe().abilities.score:
        least = competence.least_move if competence else DEFAULT_MOVE
        live = LiveCheck(backend, least_move=least)
    return Engine(
        backend,
        adapters=adapters,
        calibration=known,
        name=model.name,
        competence=competence,
        live=live,
    )


def checkpoint_of(model: ModelSettings) -> str:
    """Return the checkpoint of one of RadFound's own models: a name or a folder."""
    folder = Path(model.place).expanduser()
    return str(folder) if folder.is_dir() else model.place


def _openai(model: ModelSettings, send_images_to: Sequence[str]) -> Backend:
    from radfound.engine.openai.address import parse_address
    from radfound.engine.recipes import recipe_for

    backend = library("radfound.engine.openai.backend", "openai")
    return backend.OpenAIBackend(
        parse_address(model.place, send_images_to),
        recipe_for(model.recipe) if model.recipe else None,
        name=model.name,
        key=model.key.read() if model.key else None,
        limits=model.limits,
        revision=model.revision or "",
        adapter_folder=model.adapters,
    )


def _transformers(model: ModelSettings, send_images_to: Sequence[str]) -> Backend:
    backend = import_module("radfound.engine.transformers.backend")
    return backend.TransformersBackend.load(
        Path(model.place).expanduser(),
        name=model.name,
        recipe=model.recipe,
        device=model.device,
        bits=model.bits,
    )


def _radfound(model: ModelSettings, send_images_to: Sequence[str]) -> Backend:
    backend = import_module("radfound.engine.local.backend")
    return backend.LocalBackend.load(checkpoint_of(model), device=model.device)


_BUILDERS: dict[str, Callable[[ModelSettings, Sequence[str]], Backend]] = {
    "openai": _openai,
    "transformers": _transformers,
    "radfound": _radfound,
}
