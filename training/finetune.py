"""Readers' corrections become a LoRA adapter; one that fails its checks is not published."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from peft import get_peft_model

from radfound.adapters import AdapterStore
from radfound.corrections import CorrectionLog
from radfound.exceptions import TrainingError
from radfound.study import Study
from radfound.study_model import LocalModel
from training.adapt import Recipe, learn, logit_change, share_reproduced
from training.instruct import lora_config
from training.lessons import bundled_lessons, lessons_of
from training.loop import Progress


@dataclass(frozen=True)
class FinetuneConfig(Recipe):
    """Settings of a fine-tuning run: how to learn, and what the gate asks.

    Parameters
    ----------
    rank : int
        Of the adapter.
    rehearsed_studies : int
        At most so many bundled studies are rehearsed.
    least_reproduced, least_kept : float
        The gate: share of corrections reproduced, share of rehearsed answers that stayed.
    kept_adapters : int
        So many of the newest adapters keep their weights (`AdapterStore.prune`).
    """

    rank: int = 8
    rehearsed_studies: int = 48
    least_reproduced: float = 0.8
    least_kept: float = 0.8
    kept_adapters: int = 20


@dataclass(frozen=True)
class FinetuneResult:
    """How a run ended.

    Parameters
    ----------
    adapter : str or None
        Id of the published adapter.
    published : bool
    reason : str
        In words; names the failing check where nothing was published.
    metrics : dict of str to float
    """

    adapter: str | None
    published: bool
    reason: str
    metrics: dict[str, float] = field(default_factory=dict)


def finetune(
    log: CorrectionLog,
    store: AdapterStore,
    read: Callable[[str], Study],
    *,
    checkpoint: str | Path = "radfound-mini",
    config: FinetuneConfig | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> FinetuneResult:
    """Train an adapter on the newest corrections and publish it if it passes the gate.

    Parameters
    ----------
    log : CorrectionLog
    store : AdapterStore
    read : callable
        From an image's id to its study; what raises RadFoundError is left out with a warning.
    checkpoint : str or Path
        The base model. Each run begins from it, with all corrections, not from the adapter before.
    config : FinetuneConfig, optional
    progress : callable, optional
        Called at every stage and every few steps.

    Returns
    -------
    FinetuneResult

    Raises
    ------
    TrainingError
        If no correction says what the answer should be, or no corrected study can be read.
    """
    config = config or FinetuneConfig()
    report = progress or (lambda _: None)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        snapshot = log.snapshot(Path(folder) / "corrections.sqlite")
        wanted = [
            c for c in CorrectionLog(Path(folder) / "corrections.sqlite").latest() if c.text.strip()
        ]
    if not wanted:
        raise TrainingError(
            "corrections: none says what the answer should be; edit or accept an answer first"
        )
    report(
        Progress(
            0,
            config.max_steps,
            float("nan"),
            float("nan"),
            f"reading the studies of {len(wanted)} corrections",
        )
    )
    base = LocalModel.load(checkpoint)
    corrected, kept = lessons_of(base, wanted, read)
    rehearsed = kept + bundled_lessons(base, config.rehearsed_studies, config.seed)
    base.model.requires_grad_(False)
    base.model.language_model = get_peft_model(
        base.model.language_model, lora_config(base.model, config.rank)
    )
    learn(base, corrected, rehearsed, config, report)
    metrics = {
        "corrections": float(sum(len(lesson.branches) for lesson in corrected)),
        "reproduced": share_reproduced(base, corrected),
        "kept": share_reproduced(base, rehearsed) if rehearsed else 1.0,
        "logit_change": logit_change(base, corrected),
        "seconds": time.monotonic() - began,
    }
    reason = _refusal(metrics, config)
    if reason:
        return FinetuneResult(None, False, reason, metrics)
    learnt = [each for lesson in corrected for each in lesson.corrections]
    adapter = _publish(base, store, snapshot, learnt, metrics)
    store.prune(config.kept_adapters)
    return FinetuneResult(adapter, True, f"published {adapter}", metrics)


def _publish(
    base: LocalModel,
    store: AdapterStore,
    snapshot: str,
    learnt: list[str],
    metrics: dict[str, float],
) -> str:
    """Hand the trained adapter to the store and return its id."""
    manifest = {
        "base": base.name,
        "base_revision": base.revision,
        "parent": store.active(),
        "snapshot": snapshot,
        "corrections": learnt,
        "metrics": metrics,
    }
    with tempfile.TemporaryDirectory() as folder:
        base.model.language_model.save_pretrained(folder, save_embedding_layers=False)
        return store.publish(folder, manifest)


def _refusal(metrics: dict[str, float], config: FinetuneConfig) -> str:
    """Return why the adapter is not published, or nothing."""
    if not metrics["logit_change"] > 0:
        return "the adapter changes nothing"
    if metrics["reproduced"] < config.least_reproduced:
        return (
            f"only {metrics['reproduced']:.0%} of the corrections are reproduced, expected at least "
            f"{config.least_reproduced:.0%}; look for corrections that contradict each other"
        )
    if metrics["kept"] < config.least_kept:
        return f"only {metrics['kept']:.0%} of the other answers stayed, expected at least {config.least_kept:.0%}"
    return ""
