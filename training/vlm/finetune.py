"""From the log of corrections to a published adapter of a vision-language model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import transformers

from radfound.correction import is_blank
from radfound.engine.transformers.adapters import TARGETS
from radfound.engine.transformers.backend import TransformersBackend
from radfound.exceptions import AdapterError, TrainingError
from radfound.records.adapters import AdapterStore
from radfound.records.corrections import CorrectionLog, newest_of, rows_digest
from radfound.study.study import Study
from training.corrections.gate import Bounds, Check, Verdict
from training.loop.config import Progress
from training.loop.processes import is_first_process
from training.vlm.examples import examples_of
from training.vlm.gate import gate
from training.vlm.objective import LoraSettings, train
from training.vlm.pictures import ProcessedPictures

_CANDIDATE = "candidate"


@dataclass(frozen=True)
class VlmConfig:
    """Settings of a fine-tuning run.

    Parameters
    ----------
    lora : LoraSettings
    bounds : Bounds
        Of the gate.
    replay_studies : int
        Newest corrected studies whose other answers are replayed.
    newest : int
        Largest number of corrections, the newest ones.
    kept_adapters : int
        Number of the newest adapters that keep their weights.
    """

    lora: LoraSettings = LoraSettings()
    bounds: Bounds = Bounds()
    replay_studies: int = 48
    newest: int = 1000
    kept_adapters: int = 20


@dataclass(frozen=True)
class VlmResult:
    """Outcome of a run.

    Parameters
    ----------
    adapter : str or None
        Id of the published adapter.
    reason : str
        In words; names the failing checks where nothing was published.
    verdict : Verdict
    metrics : dict of str to float
    left_out : dict of str to str
        By id of a correction, why it was not used.
    """

    adapter: str | None
    reason: str
    verdict: Verdict
    metrics: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


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
    progress: Callable[[Progress], None] | None = None,
) -> VlmResult:
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
    progress : callable, optional

    Raises
    ------
    TrainingError
        If no correction says what the answer should be, or no corrected study can be read.
    """
    config, began = config or VlmConfig(), time.monotonic()
    rows = log.rows()
    wanted = [each for each in newest_of(rows) if not is_blank(each.text)][-config.newest :]
    if not wanted:
        raise TrainingError(
            "corrections: none says what the answer should be; edit or accept an answer first"
        )
    pictures = ProcessedPictures(backend, read, version, cache)
    examples = examples_of(backend, wanted, pictures, config.replay_studies)
    description = backend.describe()
    with store.scratch() as folder:
        adapted = train(backend.model, examples, config.lora, progress)
        if not is_first_process():
            return VlmResult(None, "the first process checks and publishes", Verdict(()))
        adapted.save_pretrained(folder, save_embedding_layers=False)
        adapted.unload()
        verdict = _verdict(backend, folder, examples, config.bounds)
        metrics = {
            "corrections": float(len(examples.corrections)),
            "replay": float(len(examples.replay)),
            "seconds": round(time.monotonic() - began, 1),
        }
        manifest: dict[str, Any] = {
            "base": description.name,
            "base_revision": description.revision,
            "recipe": description.recipe,
            "rank": config.lora.rank,
            "alpha": config.lora.alpha,
            "target_modules": TARGETS,
            "peft": peft.__version__,
            "transformers": transformers.__version__,
            "parent": None,
            "author": author,
            "snapshot": rows_digest(rows),
            "corrections": [each.correction for each in examples.corrections],
            "left_out": examples.left_out,
            "gate": verdict.to_json(),
            "metrics": metrics,
        }
        if not verdict.passed:
            store.note_refusal(manifest | {"reason": verdict.reason})
            return VlmResult(None, verdict.reason, verdict, metrics, examples.left_out)
        adapter = store.publish(folder, manifest)
    store.prune(config.kept_adapters)
    return VlmResult(adapter, f"published {adapter}", verdict, metrics, examples.left_out)


def _verdict(backend: TransformersBackend, folder: Path, examples: Any, bounds: Bounds) -> Verdict:
    try:
        backend.use_adapter(_CANDIDATE, folder)
    except AdapterError as error:
        return Verdict((Check("changes the answers", False, str(error), {}),))
    try:
        return gate(backend, _CANDIDATE, examples, bounds)
    finally:
        backend.drop_adapter(_CANDIDATE)
