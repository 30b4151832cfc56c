"""MONAI Label training task: fine-tuning on the corrections."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks.utils import processes

from radfound.correction import MAX_AUTHOR_CHARS
from radfound.exceptions import RadFoundError, RequestError
from radfound.records.durable import make_directory, read_json, replace_text

from ..answering.service import RadFoundService
from ..lifecycle.leftovers import VISUAL_TOKENS
from ..lifecycle.quiet import without_progress_bars

if TYPE_CHECKING:
    from training.corrections.finetune import FinetuneConfig
    from training.loop.config import Progress

logger = logging.getLogger(__name__)

_LAST_LINES_S = 0.5


class RadFoundTrainer(TrainTask):
    """Trains an adapter on the corrections and publishes it if it passes the gate.

    MONAI Label runs this in a process of its own and returns its last lines of output at
    `GET /train/`: one line of JSON for each report of progress. `train_stats` of `GET /info/` holds
    the same.

    Parameters
    ----------
    service : RadFoundService
    status_path : Path
        File with the state of the newest run, for the server process.
    """

    def __init__(self, service: RadFoundService, status_path: Path):
        super().__init__("Fine-tunes on the corrections (LoRA adapter)")
        self._service = service
        self._status_path = status_path

    def config(self) -> dict[str, Any]:
        """Return the settings that a training request may change."""
        from training.corrections.finetune import FinetuneConfig

        return asdict(FinetuneConfig())

    def stats(self) -> dict[str, Any]:
        """Return the state of the newest run; empty before the first."""
        status: dict[str, Any] = read_json(self._status_path, dict, "state of the newest training")
        if status.get("status") == "running" and not processes("train"):
            status["status"] = "stopped"
        return status

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
                checkpoint=service.models.trainable(),
                config=_config(request),
                version=service.version,
                cache=self._status_path.with_name(VISUAL_TOKENS),
                author=str(request.get("author") or ""),
                force=request.get("force") is True,
                progress=self._report,
            )
        except RadFoundError as error:
            self._save_status({"status": "failed", "message": str(error)})
            raise
        summary = asdict(result)
        seconds = round(time.monotonic() - began, 1)
        status = "published" if result.published else "refused"
        end = {"status": status, "message": result.reason, "total_time": seconds, **summary}
        self._save_status(end)
        return summary

    def _report(self, progress: Progress) -> None:
        numbers = {
            "step": progress.step,
            "total": progress.total,
            # MONAI Label's clients draw their progress bars from these
            "epoch": progress.step,
            "max_epochs": progress.total,
            "loss": _finite(progress.loss),
            "seconds_left": _finite(progress.seconds_left),
        }
        status = {"status": "running", "message": progress.message, **numbers}
        self._save_status(status, pause_s=0)

    def _save_status(self, status: dict[str, Any], pause_s: float = _LAST_LINES_S) -> None:
        line = json.dumps(status)
        make_directory(self._status_path.parent)
        replace_text(self._status_path, line + "\n")
        logger.info("training %s", line)
        # MONAI Label drops output that it has not read when the process ends.
        time.sleep(pause_s)


def _config(request: Mapping[str, Any]) -> FinetuneConfig:
    """Return the settings with a request's changes; unknown keys are ignored."""
    from training.corrections.finetune import FinetuneConfig

    default = FinetuneConfig()
    changes: dict[str, Any] = {}
    for field in fields(FinetuneConfig):
        if field.name in request:
            changes[field.name] = _number(
                field.name, request[field.name], getattr(default, field.name)
            )
    return FinetuneConfig(**changes)


def _number(name: str, value: object, default: int | float) -> int | float:
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise RequestError(f"{name}: expected true or false")
        return value
    whole = isinstance(default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise RequestError(f"{name}: expected a {'whole ' if whole else ''}number, as {default}")
    assert isinstance(value, (int, float))
    may_be_zero = default == 0 or name.startswith(("least_", "tolerance"))
    if not math.isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
        raise RequestError(f"{name}: found {value}; expected a positive number, as {default}")
    return value


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
