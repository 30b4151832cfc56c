"""Backends from their settings; each is imported when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from radfound.engine.models.settings import ModelSettings
from radfound.engine.protocol import Backend
from radfound.optional import library


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
    folder = Path(model.place).expanduser()
    return backend.LocalBackend.load(
        str(folder) if folder.is_dir() else model.place, device=model.device
    )


_BUILDERS: dict[str, Callable[[ModelSettings, Sequence[str]], Backend]] = {
    "openai": _openai,
    "transformers": _transformers,
    "radfound": _radfound,
}
