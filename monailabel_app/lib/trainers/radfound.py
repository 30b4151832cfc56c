"""MONAI Label training task: fine-tuning on the corrections."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks.utils import tasks
from pydantic import TypeAdapter

from radfound.correction import MAX_AUTHOR_CHARS
from radfound.engine.models.build import build_backend, checkpoint_of
from radfound.exceptions import RadFoundError, RequestError
from radfound.validation import validate
from radfound.wire import GateCheck, Skipped, TrainingStatus

from ..answering.service import RadFoundService
from ..lifecycle.leftovers import PICTURES
from ..lifecycle.quiet import without_progress_bars
from .state import TrainingState

if TYPE_CHECKING:
    from radfound.engine.models.settings import ModelSettings
    from training.corrections.finetune import FinetuneConfig, FinetuneResult
    from training.loop.config import Progress
    from training.vlm.finetune import VlmConfig

logger = logging.getLogger(__name__)


class RadFoundTrainer(TrainTask):
    """Trains an adapter on the corrections and publishes it if it passes the gate.

    The request's "base" names the served model to fine-tune; the default model if it is left out.

    MONAI Label runs this in a process of its own. `state` is shared with the server process, for
    `GET /radfound/training` and `train_stats` of `GET /info/`.

    Parameters
    ----------
    service : RadFoundService
    state : TrainingState
    """

    def __init__(self, service: RadFoundService, state: TrainingState):
        super().__init__("Fine-tunes on the corrections (LoRA adapter)")
        self._service = service
        self._state = state

    def config(self) -> dict[str, Any]:
        """Return the settings that a training request may change: "base", and those of the default model."""
        default = self._service.models.settings.named()
        config = {} if default.backend == "openai" else asdict(_config_of(default.backend)())
        return {"base": default.name, **config}

    def status(self) -> TrainingStatus:
        """Return the state of the running or last training."""
        return self._state.seen_with(list(tasks("train")))

    def stats(self) -> dict[str, Any]:
        """Return the same as MONAI Label's clients expect it; empty before the first training."""
        status = self.status()
        if status.state == "idle":
            return {}
        # MONAI Label's clients draw their progress bars from the epochs
        epochs = {"epoch": status.step, "max_epochs": status.steps, "total_time": status.seconds}
        shown = status.model_dump(mode="json", by_alias=True)
        return {**shown, **epochs, "published": status.state == "published"}

    def check(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that a request changes; RequestError names an invalid one."""
        base = self._base(request)
        config = _config(base.backend, request)
        changed = {key: value for key, value in asdict(config).items() if key in request}
        if not isinstance(request.get("force", False), bool):
            raise RequestError("force: expected true or false")
        author = request.get("author", "")
        if not isinstance(author, str) or len(author) > MAX_AUTHOR_CHARS:
            raise RequestError(f"author: expected a name of at most {MAX_AUTHOR_CHARS} characters")
        others = {key: request[key] for key in ("force", "author") if key in request}
        return {**changed, **others, "base": base.name}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train once.

        Returns
        -------
        dict
            "adapter" (None if the gate refused it), "published", "reason" and "metrics".

        Raises
        ------
        TrainingError
            If there is nothing to train on.
        """
        without_progress_bars()
        began = time.monotonic()
        try:
            base = self._base(request)
            run = self._finetune if base.backend == "radfound" else self._finetune_vlm
            result = run(base, request)
        except RadFoundError as error:
            self._save(TrainingStatus(state="failed", message=str(error)))
            raise
        self._save(_status_of(result, _names_of(base.backend), time.monotonic() - began))
        return asdict(result)

    def _base(self, request: Mapping[str, Any]) -> ModelSettings:
        name = request.get("base")
        if name is not None and not isinstance(name, str):
            raise RequestError("base: expected the name of a model of this server")
        return self._service.models.trainable(name or None)

    def _finetune(self, base: ModelSettings, request: Mapping[str, Any]) -> FinetuneResult:
        from training.corrections.finetune import finetune

        return finetune(
            checkpoint=checkpoint_of(base),
            config=self._settings(base, request),
            cache=self._state.path.parent,
            teaching=self._service.teaching,
            **self._common(base, request),
        )

    def _settings(self, base: ModelSettings, request: Mapping[str, Any]) -> Any:
        """Return the settings of a run: the request's, and how many readers must agree on this server."""
        teaching = self._service.teaching
        confirm = 1 if teaching is None else teaching.confirm
        return _config(base.backend, {"confirm": confirm, **request})

    def _finetune_vlm(self, base: ModelSettings, request: Mapping[str, Any]) -> FinetuneResult:
        from radfound.engine.transformers.backend import TransformersBackend
        from training.corrections.finetune import snapshot_of
        from training.vlm.finetune import finetune

        config = self._settings(base, request)
        snapshot_of(
            self._service.log, config.newest, config.confirm
        )  # raises before the model is loaded
        self._save(TrainingStatus(state="running", phase=f"loading {base.name}"))
        backend = build_backend(base)
        assert isinstance(backend, TransformersBackend)
        try:
            return finetune(
                backend=backend,
                config=config,
                cache=self._state.path.with_name(PICTURES),
                **self._common(base, request),
            )
        finally:
            backend.close()

    def _common(self, base: ModelSettings, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that fine-tuning has in common for all models."""
        service = self._service
        return {
            "log": service.log,
            "store": service.models.adapters(base.name),
            "read": lambda image: service.studies.get([image]),
            "version": service.studies.version,
            "author": str(request.get("author") or ""),
            "force": request.get("force") is True,
            "progress": lambda progress: self._report(progress, _names_of(base.backend)),
        }

    def _report(self, progress: Progress, names: Sequence[str]) -> None:
        status = TrainingStatus(
            state="running",
            phase=progress.message,
            step=progress.step,
            steps=progress.total,
            seconds_left=_finite(progress.seconds_left),
            loss=_finite(progress.loss),
            corrections=progress.corrections,
            checks=_checks((), names),
        )
        self._save(status)

    def _save(self, status: TrainingStatus) -> None:
        self._state.write(status)
        step = f", step {status.step} of {status.steps}" if status.steps else ""
        logger.info("training: %s%s", status.phase or status.state, step)


def _status_of(result: FinetuneResult, names: Sequence[str], seconds: float) -> TrainingStatus:
    return TrainingStatus(
        state="published" if result.published else "refused",
        message=result.reason,
        step=round(result.metrics["steps"]),
        steps=round(result.metrics["steps"]),
        corrections=round(result.metrics["corrections"]),
        checks=_checks(result.gate["checks"], names),
        adapter=result.adapter,
        seconds=round(seconds, 1),
        skipped=tuple(Skipped(**each) for each in result.skipped),
    )


def _checks(done: Iterable[Mapping[str, Any]], names: Sequence[str]) -> tuple[GateCheck, ...]:
    """Return the checks that were made, then those of the gate that were not."""
    keys = GateCheck.model_fields
    found = [GateCheck(**{key: check[key] for key in keys}) for check in done]
    made = {name for name in names for check in found if check.name.startswith(name)}
    left = [GateCheck(name=name, words="not done") for name in names if name not in made]
    return (*found, *left)


def _names_of(backend: str) -> Sequence[str]:
    """Return the names of the gate's checks for a backend."""
    if backend == "radfound":
        from training.corrections import gate

        return gate.NAMES
    from training.vlm.gate import NAMES

    return NAMES


def _config_of(backend: str) -> type[FinetuneConfig | VlmConfig]:
    """Return the settings of fine-tuning for a backend."""
    if backend == "radfound":
        from training.corrections.finetune import FinetuneConfig

        return FinetuneConfig
    from training.vlm.finetune import VlmConfig

    return VlmConfig


def _config(backend: str, request: Mapping[str, Any]) -> Any:
    """Return the settings with a request's changes; unknown keys are ignored."""
    kind = _config_of(backend)
    changes = {each.name: request[each.name] for each in fields(kind) if each.name in request}
    return validate(TypeAdapter(kind), changes, "settings")


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
