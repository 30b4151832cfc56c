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
from training.corrections.finetune import EVALUATING, FinetuneResult, skipped_of, snapshot_of
from training.corrections.gate import Check, Verdict
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

    def begin(phase: str) -> None:
        report(Progress(0, 0, math.nan, math.nan, phase))

    begin("processing the corrected studies")
    pictures = ProcessedPictures(backend, read, version, cache)
    examples = examples_of(backend, wanted, pictures, config.replay_studies)
    description = backend.describe()
    with store.scratch() as folder:
        adapted, steps = train(
            backend.model,
            examples,
            config,
            lambda news: report(replace(news, message="training on all corrections")),
        )
        if not is_first_process():
            return FinetuneResult(None, False, "the first process checks and publishes")
        adapted.save_pretrained(folder, save_embedding_layers=False)
        adapted.unload()
        begin(EVALUATING)
        verdict = _verdict(backend, folder, examples, config)
        verdict = replace(verdict, forced=force and not verdict.passed)
        metrics = {
            "corrections": float(len(examples.corrections)),
            "replay": float(len(examples.replay)),
            "steps": float(steps),
            "seconds": round(time.monotonic() - began, 1),
        }
        manifest: dict[str, Any] = {
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
        skipped = skipped_of(wanted, examples.left_out)
        if not (verdict.passed or verdict.forced):
            store.note_refusal(manifest | {"reason": verdict.reason})
            return FinetuneResult(None, False, verdict.reason, metrics, manifest["gate"], skipped)
        adapter = store.publish(folder, manifest)
    store.prune(config.kept_adapters)
    reason = f"published {adapter}" + (f" although {verdict.reason}" if verdict.forced else "")
    return FinetuneResult(adapter, True, reason, metrics, manifest["gate"], skipped)


def _verdict(
    backend: TransformersBackend, folder: Path, examples: Examples, bounds: Bounds
) -> Verdict:
    try:
        backend.use_adapter(_CANDIDATE, folder)
    except AdapterError as error:
        return Verdict((Check("changes the answers", False, str(error), {}),))
    try:
        return gate(backend, _CANDIDATE, examples, bounds)
    finally:
        backend.drop_adapter(_CANDIDATE)
