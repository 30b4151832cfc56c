"""The models that answer: which there are, which are loaded, and the adapters of each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radfound.engine.models.build import build_engine
from radfound.engine.models.registry import Registry
from radfound.engine.models.settings import Models, ModelSettings, load_models, one_model
from radfound.engine.openai.address import parse_address
from radfound.exceptions import NotFoundError, RadFoundError, RequestError
from radfound.question import ModelVersion
from radfound.records.adapters import AdapterStore, store_path

from ..lifecycle.quiet import without_progress_bars

if TYPE_CHECKING:
    from radfound.engine.engine import Engine


class ServedModels:
    """The models of a server, each with an engine and a store of adapters. Thread-safe.

    A model is loaded at its first question, because MONAI Label also builds the app in every training
    process, which does not need it.

    Parameters
    ----------
    models : Models
    state : Path
        Folder of the server's state. The adapters of the default model lie where they always did; those of
        another in a folder of its name.
    device : str, optional
        For models that name none.
    free_text : bool
        As for `Engine`.
    """

    def __init__(
        self, models: Models, state: Path, device: str | None = None, free_text: bool = False
    ):
        self.settings = models
        self._device, self._free_text = device, free_text
        self._stores = {
            name: AdapterStore(store_path(state, None if name == models.default else name))
            for name in (model.name for model in models.models)
        }
        self._registry: Registry[Engine] = Registry(models, self._load)

    @property
    def default(self) -> str:
        """Name of the model that answers if a request names none."""
        return self.settings.default

    def use(self, name: str | None = None) -> AbstractContextManager[Engine]:
        """Lend a model's engine, loaded if needed; it stays loaded meanwhile; errors as for `Registry.use`."""
        return self._registry.use(name)

    def engine(self, name: str | None = None) -> Engine:
        """Return a model's engine, loaded if needed; it may be closed when others need its memory."""
        with self.use(name) as engine:
            return engine

    def engine_of(self, version: ModelVersion) -> Engine:
        """Return the engine with the weights of an answer, loaded if needed; NotFoundError if no model has them."""
        for engine in self.loaded().values():
            if engine.backend.describe().revision == version.revision:
                return engine
        if version.name in self._stores:
            engine = self.engine(version.name)
            if engine.backend.describe().revision == version.revision:
                return engine
        raise NotFoundError(
            f"model: {version.name} {version.revision} is not loaded any more; ask the question again"
        )

    def adapters(self, name: str | None = None) -> AdapterStore:
        """Return the adapters of a model; ModelSettingsError if there is no such model."""
        return self._stores[self.settings.named(name).name]

    def measured(self, name: str | None = None) -> Path:
        """Return the folder with what was measured of a model here; ModelSettingsError if there is no such model."""
        return self.adapters(name).root.parent

    def trainable(self, name: str | None = None) -> ModelSettings:
        """Return the settings of a model that can be fine-tuned in this app, with its device.

        Raises
        ------
        ModelSettingsError
            If there is no such model.
        RequestError
            If it runs on a server of models.
        """
        model = self.settings.named(name)
        if reason := _cannot_learn(model):
            raise RequestError(
                f"base: {model.name} {reason}; train the same weights, where they are in a folder, by `radfound train "
                f"--studies DIR --models FILE --publish-for {model.name} --model FOLDER`"
            )
        return replace(model, device=model.device or self._device)

    def loaded(self) -> Mapping[str, Engine]:
        """Return the engines of the models that are loaded; never blocks."""
        return self._registry.loaded()

    def next_adapter(self, name: str | None = None) -> tuple[str | None, str | None]:
        """Return the adapter of the next answer and, if it is not the active one, why; never blocks."""
        engine = self.loaded().get(self.settings.named(name).name)
        if engine is not None:
            return engine.next_adapter()
        try:
            return self.adapters(name).active(), None
        except RadFoundError as error:
            return None, str(error)

    def to_json(self) -> list[dict[str, Any]]:
        """Return name, backend and state of each model, the default first; never blocks.

        "destination" tells in words where pictures are sent; null if they stay on this machine. "cannot_learn" tells
        why the model cannot be fine-tuned here; null if it can.
        """
        loaded = self.loaded()
        return [
            {
                "name": model.name,
                "backend": model.backend,
                "loaded": model.name in loaded,
                "destination": _destination(model, self.settings),
                "cannot_learn": _cannot_learn(model),
            }
            for model in sorted(self.settings.models, key=lambda model: model.name != self.default)
        ]

    def close(self) -> None:
        """Close all models."""
        self._registry.close()

    def _load(self, model: ModelSettings) -> Engine:
        without_progress_bars()
        store = self._stores[model.name]
        return build_engine(
            model,
            send_images_to=self.settings.send_images_to,
            adapters=store,
            device=self._device,
            calibration=self.measured(model.name),
            free_text=self._free_text,
        )


def _cannot_learn(model: ModelSettings) -> str | None:
    return (
        "runs on a server of models, which has no training" if model.backend == "openai" else None
    )


def _destination(model: ModelSettings, models: Models) -> str | None:
    if model.backend != "openai":
        return None
    return parse_address(model.place, models.send_images_to).destination


def models_of(conf: Mapping[str, str]) -> Models:
    """Return the models that `--conf` names: `models` a file with several, else `model` or `checkpoint`.

    Raises
    ------
    RequestError
        If both are named.
    ModelSettingsError
        If the file or the model is wrong.
    """
    hosts = [host.strip() for host in conf.get("send_images_to", "").split(",") if host.strip()]
    one = conf.get("model") or conf.get("checkpoint")
    if conf.get("models"):
        if one:
            raise RequestError("--conf: found models and model; name the one or the other")
        return load_models(Path(conf["models"]).expanduser(), hosts)
    return one_model(one or "radfound-mini", hosts)
