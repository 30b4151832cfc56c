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
from radfound.teaching import Teaching
from radfound.teaching.recall import confirmed_rows
from training.corrections.frozen.base import KEPT_FOLDERS, OWN_ANSWERS, FrozenBase
from training.corrections.frozen.kept import Kept
from training.corrections.frozen.lessons import lessons_of
from training.corrections.frozen.visual_tokens import VISUAL_TOKENS, TokenSource, VisualTokens
from training.corrections.gate import Verdict
from training.corrections.judge import FinetuneConfig, Judge
from training.corrections.phases import (
    CHECKING,
    COMPARING,
    LEARNING,
    LOADING,
    READING,
    REHEARSING,
    Phases,
    Report,
)

__all__ = [
    "FinetuneConfig",
    "FinetuneResult",
    "KEPT_FOLDERS",
    "conclude",
    "finetune",
    "finetune_in",
    "snapshot_of",
]

PACE_FILE = "pace.json"
"""The speed of earlier runs, among what is kept."""
_SKIPPED_NAMED = 10
# Work that is expected before the model is loaded: steps of training, and answers of the bundled studies.
_STEPS, _STEPS_EACH = 20, 0.5
_TO_COMPARE, _TO_CHECK = 1600, 720


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
    teaching: Teaching | None = None,
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
    version : callable, optional
        From an image's id to a text that changes when its file does.
    cache : Path, optional
        Where to keep what later runs need not compute again, in folders of their own; see `KEPT_FOLDERS`.
    teaching : Teaching, optional
        What readers' corrections answer without an adapter: the adapter has to be better.
    author : str
        Who started the run; kept with the adapter.
    force : bool
        Publish even if the gate fails; the manifest keeps the verdict and that it was overruled.
    progress : callable, optional
        Called at every phase and every second or few steps.

    Returns
    -------
    FinetuneResult

    Raises
    ------
    TrainingError
        If no correction says what the answer should be, or no corrected study can be read.
    """
    config = config or FinetuneConfig()
    try:
        _, wanted = snapshot_of(log, config.newest, config.confirm)
    except TrainingError:
        _forget(cache)  # every correction was withdrawn
        raise
    phases = Phases(
        _with_count(progress, len(wanted)),
        _expected_work(len(wanted), config, cache),
        None if cache is None else cache / PACE_FILE,
    )
    phases.begin(LOADING, 1)
    frozen = FrozenBase(checkpoint, config.layers, config.replay_studies, folder=cache)
    phases.advance(1)
    visuals = VisualTokens(
        frozen.base, read, version, None if cache is None else cache / VISUAL_TOKENS
    )
    result = finetune_in(
        frozen,
        log,
        store,
        visuals,
        config=config,
        teaching=teaching,
        author=author,
        force=force,
        phases=phases,
    )
    visuals.kept.forget_unused()
    frozen.own.kept.forget_unused()
    phases.end()
    return result


def finetune_in(
    frozen: FrozenBase,
    log: CorrectionLog,
    store: AdapterStore,
    visuals: TokenSource,
    *,
    config: FinetuneConfig,
    teaching: Teaching | None = None,
    author: str = "",
    force: bool = False,
    phases: Phases | None = None,
) -> FinetuneResult:
    """Do what `finetune` does with a base model in memory, which several runs may share."""
    began = time.monotonic()
    phases = phases or Phases(None, {})
    snapshot, wanted = snapshot_of(log, config.newest, config.confirm)
    phases.begin(READING, len(wanted))
    lessons = lessons_of(frozen.base, wanted, visuals, frozen.own, phases.advance)
    parent = store.active()
    phases.begin(COMPARING, frozen.left_to_compute(store, parent))
    frozen.prepare(phases.advance)
    by_id = {each.id: each for each in wanted}
    judge = Judge(frozen, store, parent, lessons, config, by_id, phases, teaching)
    steps, verdict = 0, judge.check_corrections()
    if verdict.passed or force:
        steps = judge.train()
        verdict = judge.verdict(force)
    frozen.keep_activations()
    manifest = {
        "base": frozen.base.name,
        "base_revision": frozen.base.revision,
        "parent": parent,
        "author": author,
        "snapshot": snapshot,
        "corrections": [each for lesson in lessons.corrected for each in lesson.corrections],
        "left_out": lessons.left_out,
        "gate": verdict.to_json(),
        "metrics": {
            "corrections": float(sum(len(lesson.branches) for lesson in lessons.corrected)),
            "steps": float(steps),
            "strength": judge.strength,
            "seconds": round(time.monotonic() - began, 1),
        },
    }

    def publish(told: dict[str, Any]) -> str:
        return _publish(frozen.base, store, told, judge)

    result = conclude(store, manifest, verdict, wanted, publish, config.kept_adapters)
    if result.adapter and judge.after and frozen.regression_set:
        frozen.keep_evaluation(store, result.adapter, judge.after)
    return result


def conclude(
    store: AdapterStore,
    manifest: dict[str, Any],
    verdict: Verdict,
    wanted: Sequence[Correction],
    publish: Callable[[dict[str, Any]], str],
    kept_adapters: int,
) -> FinetuneResult:
    """Publish an adapter that passed, or keep why it did not.

    Parameters
    ----------
    store : AdapterStore
    manifest : dict
        With "metrics" and "left_out".
    verdict : Verdict
    wanted : sequence of Correction
        All that should have been learnt.
    publish : callable
        Takes the manifest and returns the adapter's id.
    kept_adapters : int
        Number of the newest adapters that keep their weights.
    """
    metrics, gate = manifest["metrics"], manifest["gate"]
    skipped = _skipped_of(wanted, manifest["left_out"])
    if not (verdict.passed or verdict.forced):
        store.note_refusal(manifest | {"reason": verdict.reason})
        return FinetuneResult(None, False, verdict.reason, metrics, gate, skipped)
    adapter = publish(manifest)
    store.prune(kept_adapters)
    reason = f"published {adapter}" + (f" although {verdict.reason}" if verdict.forced else "")
    return FinetuneResult(adapter, True, reason, metrics, gate, skipped)


def _expected_work(corrections: int, config: FinetuneConfig, cache: Path | None) -> dict[str, int]:
    """Return what is expected before the model is loaded, so that an estimate is there at once."""
    is_first = cache is None or not (cache / "activations").is_dir()
    steps = min(config.max_steps, round(_STEPS + _STEPS_EACH * corrections))
    return {
        LOADING: 1,
        READING: corrections,
        COMPARING: _TO_COMPARE if is_first else 0,
        REHEARSING: steps,
        LEARNING: max(1, 3 * steps // 4),
        CHECKING: _TO_CHECK,
    }


def _with_count(progress: Report | None, corrections: int) -> Report | None:
    if progress is None:
        return None
    return lambda news: progress(replace(news, corrections=corrections))


def _forget(cache: Path | None) -> None:
    """Remove what earlier runs have kept of corrected studies."""
    if cache is None:
        return
    for name in (VISUAL_TOKENS, OWN_ANSWERS):
        Kept(cache / name, name, 0).forget_all()


def _skipped_of(
    wanted: Sequence[Correction], left_out: Mapping[str, str]
) -> tuple[dict[str, str], ...]:
    """Return the first studies whose corrections were not learnt, and why, from the reasons by correction."""
    reasons = {each.images[0]: left_out[each.id] for each in wanted if each.id in left_out}
    named = list(reasons.items())[:_SKIPPED_NAMED]
    return tuple({"id": image, "reason": reason} for image, reason in named)


def _publish(base: LocalModel, store: AdapterStore, manifest: dict[str, Any], judge: Judge) -> str:
    """Save the trained adapter with its calibration, publish it and return its id."""
    found = judge.calibration()
    with store.scratch() as folder:
        base.model.language_model.save_pretrained(folder, save_embedding_layers=False)
        base.check_adapter(folder)
        if found.calibration is not None:
            found.calibration.write(folder)
        return store.publish(folder, manifest | {"calibration": found.told})


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
