"""MONAI Label training task: fine-tuning on the corrections."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks.utils import tasks
from pydantic import TypeAdapter

from radfound.correction import MAX_AUTHOR_CHARS
from radfound.exceptions import RadFoundError, RequestError
from radfound.validation import validate
from radfound.wire import GateCheck, Skipped, TrainingStatus

from ..answering.service import RadFoundService
from ..lifecycle.leftovers import VISUAL_TOKENS
from ..lifecycle.quiet import without_progress_bars
from .state import TrainingState

if TYPE_CHECKING:
    from training.corrections.finetune import FinetuneConfig, FinetuneResult
    from training.loop.config import Progress

logger = logging.getLogger(__name__)


class RadFoundTrainer(TrainTask):
    """Trains an adapter on the corrections and publishes it if it passes the gate.

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
        """Return the settings that a training request may change."""
        from training.corrections.finetune import FinetuneConfig

        return asdict(FinetuneConfig())

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
        changed = {key: value for key, value in asdict(_config(request)).items() if key in request}
        if not isinstance(request.get("force", False), bool):
            raise RequestError("force: expected true or false")
        author = request.get("author", "")
        if not isinstance(author, str) or len(author) > MAX_AUTHOR_CHARS:
            raise RequestError(f"author: expected a name of at most {MAX_AUTHOR_CHARS} characters")
        return changed | {key: request[key] for key in ("force", "author") if key in request}

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
        from training.corrections.finetune import finetune

        without_progress_bars()
        began, service = time.monotonic(), self._service
        try:
            result = finetune(
                service.log,
                service.adapters,
                lambda image: service.study([image]),
                checkpoint=service.checkpoint,
                config=_config(request),
                version=service.version,
                cache=self._state.path.with_name(VISUAL_TOKENS),
                author=str(request.get("author") or ""),
                force=request.get("force") is True,
                progress=self._report,
            )
        except RadFoundError as error:
            self._save(TrainingStatus(state="failed", message=str(error)))
            raise
        self._save(_status_of(result, time.monotonic() - began))
        return asdict(result)

    def _report(self, progress: Progress) -> None:
        status = TrainingStatus(
            state="running",
            phase=progress.message,
            step=progress.step,
            steps=progress.total,
            seconds_left=_finite(progress.seconds_left),
            loss=_finite(progress.loss),
            corrections=progress.corrections,
            checks=_checks(()),
        )
        self._save(status)

    def _save(self, status: TrainingStatus) -> None:
        self._state.write(status)
        step = f", step {status.step} of {status.steps}" if status.steps else ""
        logger.info("training: %s%s", status.phase or status.state, step)


def _status_of(result: FinetuneResult, seconds: float) -> TrainingStatus:
    return TrainingStatus(
        state="published" if result.published else "refused",
        message=result.reason,
        step=round(result.metrics["steps"]),
        steps=round(result.metrics["steps"]),
        corrections=round(result.metrics["corrections"]),
        checks=_checks(result.gate["checks"]),
        adapter=result.adapter,
        seconds=round(seconds, 1),
        skipped=tuple(Skipped(**each) for each in result.skipped),
    )


def _checks(done: Iterable[Mapping[str, Any]]) -> tuple[GateCheck, ...]:
    """Return the checks that were made, then those that were not."""
    from training.corrections.gate import NAMES

    keys = GateCheck.model_fields
    found = [GateCheck(**{key: check[key] for key in keys}) for check in done]
    made = {name for name in NAMES for check in found if check.name.startswith(name)}
    left = [GateCheck(name=name, words="not done") for name in NAMES if name not in made]
    return (*found, *left)


def _config(request: Mapping[str, Any]) -> FinetuneConfig:
    """Return the settings with a request's changes; unknown keys are ignored."""
    from training.corrections.finetune import FinetuneConfig

    names = [field.name for field in fields(FinetuneConfig)]
    changes = {name: request[name] for name in names if name in request}
    return validate(TypeAdapter(FinetuneConfig), changes, "settings")


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
