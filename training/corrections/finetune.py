"""From the log of corrections to a published LoRA adapter; one that fails the gate is not published.

The server runs it for `POST /train/radfound`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from radfound.correction import Correction, is_blank
from radfound.engine.local.model import LocalModel
from radfound.exceptions import TrainingError
from radfound.records.adapters import AdapterStore
from radfound.records.corrections import CorrectionLog, rows_digest
from radfound.study.study import Study
from radfound.teaching.recall import confirmed_rows
from training.corrections.frozen_base import FrozenBase
from training.corrections.judge import FinetuneConfig, Judge, Report
from training.corrections.lessons import lessons_of
from training.corrections.visual_tokens import TokenSource, VisualTokens
from training.loop.config import Progress

__all__ = [
    "EVALUATING",
    "FinetuneConfig",
    "FinetuneResult",
    "finetune",
    "finetune_in",
    "skipped_of",
    "snapshot_of",
]

EVALUATING = "evaluating the new adapter"
"""The last phase: the gate, then publishing."""
_SKIPPED_NAMED = 10


@dataclass(frozen=True)
class FinetuneResult:
    """Outcome of a fine-tuning run.

    Parameters
    ----------
    adapter : str or None
        Id of the published adapter.
    published : bool
    reason : str
        In words; names the failing checks where nothing was published.
    metrics : dict of str to float
    gate : dict
        The verdict, as `Verdict.to_json` gives it.
    skipped : tuple of {"id", "reason"}
        The first studies whose corrections could not be learnt, and why; the manifest has all.
    """

    adapter: str | None
    published: bool
    reason: str
    metrics: dict[str, float] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    skipped: tuple[dict[str, str], ...] = ()


def finetune(
    log: CorrectionLog,
    store: AdapterStore,
    read: Callable[[str], Study],
    *,
    checkpoint: str | Path = "radfound-mini",
    config: FinetuneConfig | None = None,
    version: Callable[[str], str] | None = None,
    cache: Path | None = None,
    author: str = "",
    force: bool = False,
    progress: Report | None = None,
) -> FinetuneResult:
    """Train an adapter on the newest corrections and publish it if it passes the gate.

    Training starts from the active adapter and covers all corrections, also those that it has learnt.

    Parameters
    ----------
    log : CorrectionLog
    store : AdapterStore
    read : callable
        From an image's id to its study; a study that raises RadFoundError is left out, with the reason.
    checkpoint : str or Path
        The base model.
    config : FinetuneConfig, optional
    version, cache : callable and Path, optional
        From an image's id to a text that changes when its file does, and the folder of cached visual tokens.
    author : str
        Who started the run; kept with the adapter.
    force : bool
        Publish even if the gate fails; the manifest keeps the verdict and that it was overruled.
    progress : callable, optional
        Called at every phase and every few steps.

    Returns
    -------
    FinetuneResult

    Raises
    ------
    TrainingError
        If no correction says what the answer should be, or no corrected study can be read.
    """
    config = config or FinetuneConfig()
    snapshot_of(log, config.newest, config.confirm)  # raises before the model is loaded
    frozen = FrozenBase(checkpoint, config.layers, config.replay_studies)
    visuals = VisualTokens(frozen.base, read, version, cache)
    return finetune_in(
        frozen, log, store, visuals, config=config, author=author, force=force, progress=progress
    )


def finetune_in(
    frozen: FrozenBase,
    log: CorrectionLog,
    store: AdapterStore,
    visuals: TokenSource,
    *,
    config: FinetuneConfig,
    author: str = "",
    force: bool = False,
    progress: Report | None = None,
) -> FinetuneResult:
    """Do what `finetune` does with a base model in memory, which several runs may share."""
    began = time.monotonic()
    snapshot, wanted = snapshot_of(log, config.newest, config.confirm)

    def report(news: Progress) -> None:
        if progress is not None:
            progress(replace(news, corrections=len(wanted)))

    _report_phase(report, "encoding the corrected studies")
    lessons = lessons_of(frozen.base, wanted, visuals)
    parent = store.active()
    _report_phase(report, "evaluating the active adapter")
    judge = Judge(frozen, store, parent, lessons, config)
    steps, verdict = 0, judge.check_corrections()
    if verdict.passed or force:
        steps = judge.train(report)
        _report_phase(report, EVALUATING)
        verdict = judge.verdict(force)
    gate_json = verdict.to_json()
    skipped = skipped_of(wanted, lessons.left_out)
    metrics = {
        "corrections": float(sum(len(lesson.branches) for lesson in lessons.corrected)),
        "steps": float(steps),
        "seconds": round(time.monotonic() - began, 1),
    }
    manifest = {
        "base": frozen.base.name,
        "base_revision": frozen.base.revision,
        "parent": parent,
        "author": author,
        "snapshot": snapshot,
        "corrections": [each for lesson in lessons.corrected for each in lesson.corrections],
        "left_out": lessons.left_out,
        "gate": gate_json,
        "metrics": metrics,
    }
    if not (verdict.passed or verdict.forced):
        store.note_refusal(manifest | {"reason": verdict.reason})
        return FinetuneResult(None, False, verdict.reason, metrics, gate_json, skipped)
    adapter = _publish(frozen.base, store, manifest)
    if judge.after and frozen.regression_set:
        frozen.keep_evaluation(store, adapter, judge.after)
    store.prune(config.kept_adapters)
    reason = f"published {adapter}" + (f" although {verdict.reason}" if verdict.forced else "")
    return FinetuneResult(adapter, True, reason, metrics, gate_json, skipped)


def skipped_of(
    wanted: Sequence[Correction], left_out: Mapping[str, str]
) -> tuple[dict[str, str], ...]:
    """Return the first studies whose corrections were not learnt, and why, from the reasons by correction."""
    reasons = {each.images[0]: left_out[each.id] for each in wanted if each.id in left_out}
    named = list(reasons.items())[:_SKIPPED_NAMED]
    return tuple({"id": image, "reason": reason} for image, reason in named)


def _publish(base: LocalModel, store: AdapterStore, manifest: dict[str, Any]) -> str:
    """Save the trained adapter, publish it and return its id."""
    with store.scratch() as folder:
        base.model.language_model.save_pretrained(folder, save_embedding_layers=False)
        base.check_adapter(folder)
        return store.publish(folder, manifest)


def _report_phase(report: Report, phase: str) -> None:
    report(Progress(0, 0, float("nan"), float("nan"), phase))


def snapshot_of(log: CorrectionLog, newest: int, confirm: int = 1) -> tuple[str, list[Correction]]:
    """Return the digest of the whole log, and the newest corrections that have a text to learn.

    Parameters
    ----------
    log : CorrectionLog
    newest : int
        Largest number of corrections.
    confirm : int
        Leave out texts on which fewer readers agree.

    Raises
    ------
    TrainingError
        If there are none.
    """
    rows = log.latest() if confirm == 1 else confirmed_rows(log.rows(), confirm)
    wanted = [each for each in rows if not is_blank(each.text)]
    if not wanted:
        raise TrainingError(
            "corrections: none says what the answer should be"
            + (f", with {confirm} readers who agree" if confirm > 1 else "")
            + "; edit or accept an answer first"
        )
    # With those withdrawn: the digest names a beginning of the log, to which rows are only added.
    return rows_digest(log.rows(withdrawn=True)), wanted[-newest:]
