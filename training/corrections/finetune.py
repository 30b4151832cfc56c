"""Readers' corrections become a LoRA adapter; one that does not pass the gate is not published.

The server runs it for `POST /train/radfound`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from radfound.correction import Correction, is_blank
from radfound.engine.local.backend import LocalModel
from radfound.exceptions import TrainingError
from radfound.model import checkpoints
from radfound.records.adapters import AdapterStore
from radfound.records.corrections import CorrectionLog, newest_of, rows_digest
from radfound.study.study import Study
from training.corrections import gate
from training.corrections.adapt import Recipe, learn, logit_change
from training.corrections.lessons import Lesson, Lessons, lessons_of
from training.corrections.plausibility import misfits
from training.corrections.visual_tokens import TokenSource, VisualTokens
from training.corrections.workshop import BASE_MODEL, Standing, Workshop
from training.loop.optimise import Progress

Report = Callable[[Progress], None]

_SKIPPED_NAMED = 10


@dataclass(frozen=True)
class FinetuneConfig(Recipe, gate.Bounds):
    """Settings of a fine-tuning run: how to learn, and what the gate asks.

    Parameters
    ----------
    rank : int
        Of the adapter.
    rehearsed_studies : int
        At most so many bundled studies are rehearsed.
    kept_back : float
        Share of the corrected studies that a first adapter is examined on before they are learnt too.
    newest : int
        At most so many corrections are learnt, the newest ones.
    kept_adapters : int
        So many of the newest adapters keep their weights (`AdapterStore.prune`).
    """

    rank: int = 8
    rehearsed_studies: int = 48
    kept_back: float = 0.2
    newest: int = 1000
    kept_adapters: int = 20
    anew: bool = False


@dataclass(frozen=True)
class FinetuneResult:
    """How a run ended.

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

    It begins with the adapter that answers now, and learns all corrections, the known ones too.

    Parameters
    ----------
    log : CorrectionLog
    store : AdapterStore
    read : callable
        From an image's id to its study; what raises RadFoundError is left out, and named.
    checkpoint : str or Path
        The base model.
    config : FinetuneConfig, optional
    version, cache : callable and Path, optional
        From an image's id to what changes when its file does, and where visual tokens are kept.
    author : str
        Who started the run; kept with the adapter.
    force : bool
        Publish whatever the gate says; the verdict is kept, and that it was overruled.
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
    _, wanted = _snapshot(log, config.newest)  # an error of the caller's before the model is loaded
    workshop = Workshop(checkpoint, config.layers, config.rehearsed_studies)
    visuals = VisualTokens(workshop.base, read, version, cache)
    return finetune_in(
        workshop, log, store, visuals, config=config, author=author, force=force, progress=progress
    )


def finetune_in(
    workshop: Workshop,
    log: CorrectionLog,
    store: AdapterStore,
    visuals: TokenSource,
    *,
    config: FinetuneConfig,
    author: str = "",
    force: bool = False,
    progress: Report | None = None,
) -> FinetuneResult:
    """Do what `finetune` does, with a base model that is loaded already; several runs may share it."""
    report, began = progress or (lambda _: None), time.monotonic()
    snapshot, wanted = _snapshot(log, config.newest)
    _say(report, f"reading the studies of {len(wanted)} corrections")
    lessons = lessons_of(workshop.base, wanted, visuals)
    parent = store.active()
    _say(report, "examining what answers now")
    judge = _Judge(workshop, store, parent, lessons, config)
    steps, verdict = 0, gate.Verdict(tuple(judge.checks))
    if verdict.passed or force:
        steps = judge.teach(report)
        _say(report, "examining the new adapter")
        verdict = judge.verdict(force)
    gate_json = verdict.to_json()
    skipped = _skipped(wanted, lessons)
    metrics = {
        "corrections": float(sum(len(lesson.branches) for lesson in lessons.corrected)),
        "steps": float(steps),
        "seconds": round(time.monotonic() - began, 1),
    }
    manifest = {
        "base": workshop.base.name,
        "base_revision": workshop.base.revision,
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
    adapter = _publish(workshop.base, store, manifest)
    if judge.after and workshop.exam:
        workshop.remember(store, adapter, judge.after)
    store.prune(config.kept_adapters)
    reason = f"published {adapter}" + (f" although {verdict.reason}" if verdict.forced else "")
    return FinetuneResult(adapter, True, reason, metrics, gate_json, skipped)


def _skipped(wanted: Sequence[Correction], lessons: Lessons) -> tuple[dict[str, str], ...]:
    reasons = {
        each.images[0]: lessons.left_out[each.id] for each in wanted if each.id in lessons.left_out
    }
    named = list(reasons.items())[:_SKIPPED_NAMED]
    return tuple({"id": image, "reason": reason} for image, reason in named)


class _Judge:
    """Teaches an adapter and examines it beside what answered before.

    What it has found out so far is in `checks`; what fails before the adapter is taught saves the teaching.

    Parameters
    ----------
    workshop : Workshop
    store : AdapterStore
    parent : str or None
        The adapter that answers now.
    lessons : Lessons
    config : FinetuneConfig
    """

    def __init__(
        self,
        workshop: Workshop,
        store: AdapterStore,
        parent: str | None,
        lessons: Lessons,
        config: FinetuneConfig,
    ):
        self._workshop, self._config = workshop, config
        self._corrected = lessons.corrected
        self._rehearsed = lessons.rehearsed + workshop.rehearsed
        self._exam = workshop.exam or self._rehearsed or self._corrected
        learnt = set(store.manifest(parent).get("corrections", ())) if parent else set()
        self._kept_back = _kept_back(lessons.corrected, learnt, config)
        self._begin_with = store.path(parent) if parent and not config.anew else None
        self._before = [self._standing(store, None)]
        if parent:
            self._before.append(self._standing(store, parent))
        with workshop.answering_with(store, parent):
            self._before_kept_back = workshop.mark(self._kept_back)
        self.checks: list[gate.Check] = []
        if workshop.exam:
            base = self._before[0].own
            missed = [
                p for p, right in zip(base.log_probability, base.right, strict=True) if not right
            ]
            found = misfits(workshop, _unlearnt(lessons.corrected, learnt), missed)
            self.checks.append(gate.fits(found, config))
        self.after: Standing | None = None

    def _standing(self, store: AdapterStore, adapter: str | None) -> Standing:
        if self._workshop.exam:
            return self._workshop.standing(store, adapter)
        with self._workshop.answering_with(store, adapter):
            return self._workshop.examine(adapter or BASE_MODEL, self._exam)

    def teach(self, report: Report) -> int:
        """Train the adapter; return the steps that it took.

        What is kept back at first is learnt too, once the adapter has been examined on it.
        """
        self._workshop.new_adapter(self._config.rank, self._begin_with, self._config.seed)
        steps = 0
        if self._kept_back:
            rest = [each for each in self._corrected if each not in self._kept_back]
            steps += self._learn(rest, report, "learning; some studies are kept back")
            after = self._workshop.mark(self._kept_back)
            self.checks.append(gate.held_out(self._before_kept_back, after, self._config))
        return steps + self._learn(self._corrected, report, "learning")

    def _learn(self, corrected: list[Lesson], report: Report, doing: str) -> int:
        steps = 0

        def told(state: Progress) -> None:
            nonlocal steps
            steps = state.step
            report(replace(state, message=doing))

        workshop = self._workshop
        refused = workshop.read_refused(corrected) if self._config.preference else ()
        learn(
            workshop.base, workshop.upper, workshop.read(corrected), workshop.read(self._rehearsed),
            self._config, told, refused,
        )  # fmt: skip
        return steps

    def verdict(self, force: bool) -> gate.Verdict:
        """Examine the adapter."""
        workshop, bounds = self._workshop, self._config
        readings = workshop.read(self._corrected)
        after = self.after = workshop.examine("the new adapter", self._exam)
        checks = [
            gate.same_base(workshop.base.revision, checkpoints.revision(workshop.checkpoint)),
            gate.changes_logits(logit_change(workshop.base, workshop.upper, readings)),
            gate.reproduces(workshop.mark(self._corrected), bounds),
            *self.checks,
        ]
        for before in self._before:
            if workshop.exam:
                checks.append(gate.regression(before, after, bounds))
            checks.append(gate.stops(before, after, bounds))
            checks.append(gate.sees_the_image(before, after, bounds))
        if not workshop.exam:
            checks.append(gate.others_stay(after.own, bounds))
        passed = all(check.passed for check in checks)
        return gate.Verdict(tuple(checks), forced=force and not passed)


def _unlearnt(corrected: Sequence[Lesson], learnt: Collection[str]) -> list[Lesson]:
    """Return what the adapter that answers now has not learnt of the lessons."""
    found = []
    for lesson in corrected:
        some = [
            (piece, name)
            for piece, name in zip(lesson.branches, lesson.corrections, strict=True)
            if name not in learnt
        ]
        if some:
            pieces, names = zip(*some, strict=True)
            found.append(Lesson(lesson.visual, list(pieces), lesson.study, names))
    return found


def _kept_back(
    corrected: Sequence[Lesson], learnt: Collection[str], config: FinetuneConfig
) -> list[Lesson]:
    """Choose studies of which the adapter that answers now has learnt nothing either."""
    studies: dict[str, bool] = {}
    for lesson in corrected:
        is_new = not any(each in learnt for each in lesson.corrections)
        studies[lesson.study] = studies.get(lesson.study, True) and is_new
    new = sorted(study for study, is_new in studies.items() if is_new)
    count = min(round(config.kept_back * len(new)), len(studies) - 1)
    chosen = set(random.Random(config.seed).sample(new, max(0, count)))
    return [lesson for lesson in corrected if lesson.study in chosen]


def _publish(base: LocalModel, store: AdapterStore, manifest: dict[str, Any]) -> str:
    """Hand the trained adapter to the store and return its id."""
    with store.scratch() as folder:
        base.model.language_model.save_pretrained(folder, save_embedding_layers=False)
        base.check_adapter(folder)
        return store.publish(folder, manifest)


def _say(report: Report, doing: str) -> None:
    report(Progress(0, 0, float("nan"), float("nan"), doing))


def _snapshot(log: CorrectionLog, newest: int) -> tuple[str, list[Correction]]:
    """Return the digest of the log as it is now, and the newest corrections that say what is right."""
    rows = log.rows()
    wanted = [each for each in newest_of(rows) if not is_blank(each.text)]
    if not wanted:
        raise TrainingError(
            "corrections: none says what the answer should be; edit or accept an answer first"
        )
    return rows_digest(rows), wanted[-newest:]
