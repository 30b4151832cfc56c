"""From the log of corrections to a published adapter of a vision-language model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peft
import transformers

from radfound.engine.transformers.adapters import TARGETS
from radfound.engine.transformers.backend import TransformersBackend
from radfound.exceptions import AdapterError
from radfound.records.adapters import AdapterStore
from radfound.records.corrections import CorrectionLog
from radfound.study.study import Study
from radfound.validation import Count
from training.corrections.finetune import FinetuneResult, conclude, snapshot_of
from training.corrections.gate import Check, Verdict
from training.corrections.phases import CHECKING, LEARNING, READING, Report
from training.loop.config import Progress
from training.loop.processes import is_first_process
from training.vlm.examples import Examples, examples_of
from training.vlm.gate import Bounds, gate
from training.vlm.objective import LoraSettings, train
from training.vlm.pictures import ProcessedPictures

_CANDIDATE = "candidate"


@dataclass(frozen=True)
class VlmConfig(LoraSettings, Bounds):
    """Settings of a fine-tuning run: hyperparameters, and the tolerances of the gate.

    Parameters
    ----------
    replay_studies : int
        Newest corrected studies whose other answers are replayed.
    newest : int
        Largest number of corrections, the newest ones.
    confirm : int
        Leave out texts on which fewer readers agree.
    kept_adapters : int
        Number of the newest adapters that keep their weights.
    """

    replay_studies: Count = 48
    newest: Count = 1000
    confirm: Count = 1
    kept_adapters: Count = 20


def finetune(
    log: CorrectionLog,
    store: AdapterStore,
    read: Callable[[str], Study],
    backend: TransformersBackend,
    *,
    config: VlmConfig | None = None,
    version: Callable[[str], str] | None = None,
    cache: Path | None = None,
    author: str = "",
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> FinetuneResult:
    """Train an adapter on the newest corrections and publish it if it passes the gate.

    Training starts from the base model and covers all corrections, also those that earlier adapters learnt.

    Parameters
    ----------
    log : CorrectionLog
    store : AdapterStore
    read : callable
        From an image's id to its study; a study that raises RadFoundError is left out, with the reason.
    backend : TransformersBackend
        The base model; answers nothing else meanwhile.
    config : VlmConfig, optional
    version, cache : callable and Path, optional
        From an image's id to a text that changes when its file does, and the folder of processed pictures.
    author : str
        Who started the run; kept with the adapter.
    force : bool
        Publish even if the gate fails; the manifest keeps the verdict and that it was overruled.
    progress : callable, optional
        Called at every phase and every few steps.

    Raises
    ------
    TrainingError
        If no correction says what the answer should be, or no corrected study can be read.
    """
    config, began = config or VlmConfig(), time.monotonic()
    snapshot, wanted = snapshot_of(log, config.newest, config.confirm)

    def report(news: Progress) -> None:
        if progress is not None:
            progress(replace(news, corrections=len(wanted)))

    _begin(report, READING)
    pictures = ProcessedPictures(backend, read, version, cache)
    examples = examples_of(backend, wanted, pictures, config.replay_studies)
    with store.scratch() as folder:
        steps = _train_into(folder, backend, examples, config, report)
        if not is_first_process():
            return FinetuneResult(None, False, "the first process checks and publishes")
        _begin(report, CHECKING)
        verdict = _verdict(backend, folder, examples, config, force)
        metrics = _metrics(examples, steps, began)
        manifest = _manifest(backend, examples, config, snapshot, author, verdict, metrics)
        return conclude(
            store,
            manifest,
            verdict,
            wanted,
            lambda told: store.publish(folder, told),
            config.kept_adapters,
        )


def _begin(report: Report, phase: str) -> None:
    report(Progress(0, 0, math.nan, math.nan, phase))


def _train_into(
    folder: Path,
    backend: TransformersBackend,
    examples: Examples,
    config: VlmConfig,
    report: Report,
) -> int:
    """Train an adapter and save it in a folder; return the number of steps. The model has no adapter afterwards."""
    adapted, steps = train(
        backend.model, examples, config, lambda news: report(replace(news, message=LEARNING))
    )
    if is_first_process():
        adapted.save_pretrained(folder, save_embedding_layers=False)
        adapted.unload()
    return steps


def _metrics(examples: Examples, steps: int, began: float) -> dict[str, float]:
    return {
        "corrections": float(len(examples.corrections)),
        "replay": float(len(examples.replay)),
        "steps": float(steps),
        "seconds": round(time.monotonic() - began, 1),
    }


def _manifest(
    backend: TransformersBackend,
    examples: Examples,
    config: VlmConfig,
    snapshot: str,
    author: str,
    verdict: Verdict,
    metrics: dict[str, float],
) -> dict[str, Any]:
    """Return what is kept with the adapter, or with the record of its refusal."""
    description = backend.describe()
    return {
        "base": description.name,
        "base_revision": description.revision,
        "recipe": description.recipe,
        "rank": config.rank,
        "alpha": config.alpha,
        "target_modules": TARGETS,
        "peft": peft.__version__,
        "transformers": transformers.__version__,
        "parent": None,
        "author": author,
        "snapshot": snapshot,
        "corrections": [each.correction for each in examples.corrections],
        "left_out": examples.left_out,
        "gate": verdict.to_json(),
        "metrics": metrics,
    }


def _verdict(
    backend: TransformersBackend, folder: Path, examples: Examples, bounds: Bounds, force: bool
) -> Verdict:
    try:
        backend.use_adapter(_CANDIDATE, folder)
    except AdapterError as error:
        return _forced(Verdict((Check("changes the answers", False, str(error), {}),)), force)
    try:
        return _forced(gate(backend, _CANDIDATE, examples, bounds), force)
    finally:
        backend.drop_adapter(_CANDIDATE)


def _forced(verdict: Verdict, force: bool) -> Verdict:
    return replace(verdict, forced=force and not verdict.passed)
