"""The served model that gets an adapter, as the server's settings name it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from radfound.exceptions import RequestError


@dataclass(frozen=True)
class ServedModel:
    """The served model that gets the adapter.

    Parameters
    ----------
    name : str or None
        None for the server's default model.
    folder, recipe, device, bits
        As the settings file names them; None if unknown.
    revision : str or None
        With a server of models: the revision whose adapters it takes.
    is_remote : bool
        Whether it runs on a server of models.
    """

    name: str | None = None
    folder: Path | None = None
    recipe: str | None = None
    device: str | None = None
    bits: int | None = None
    revision: str | None = None
    is_remote: bool = False

    def check_revision(self, found: str, folder: Path) -> None:
        """Raise RequestError if the served model would refuse adapters of the weights in a folder."""
        if self.is_remote and self.revision != found:
            raise RequestError(
                f"--models: the revision of the served model is {self.revision or 'not named'}; if its server runs "
                f"the weights of {folder.name}, write `revision: {found}` there, so that it takes their adapters"
            )


def served_model(file: Path | None, name: str | None) -> ServedModel:
    """Return what the server's settings say of a model.

    Parameters
    ----------
    file : Path or None
        The settings file of a server of several models; without one nothing is known.
    name : str or None
        The server's default model if None.

    Raises
    ------
    RequestError
        If a model is named without a file, or is one that its server trains.
    ModelSettingsError
        If the file or the name is wrong.
    """
    from radfound.engine.models.settings import load_models

    if file is None:
        if name is not None:
            raise RequestError("--publish-for: needs --models FILE, which names the default model")
        return ServedModel()
    models = load_models(file)
    model = models.named(name)
    if model.backend == "radfound":
        raise RequestError(
            f"--publish-for: {model.name} is trained by its server, POST /train/radfound; expected another model"
        )
    is_remote = model.backend == "openai"
    return ServedModel(
        None if model.name == models.default else model.name,
        None if is_remote else Path(model.place).expanduser(),
        model.recipe,
        model.device,
        model.bits,
        model.revision,
        is_remote,
    )
