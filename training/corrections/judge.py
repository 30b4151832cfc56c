"""Trains an adapter and evaluates it beside the active adapter and the base model.

The checks are those of `training.corrections.gate`; here is when each is made, and on which questions.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from radfound.benchmark.scoring.metrics import exact_match
from radfound.correction import Correction
from radfound.model import checkpoints
from radfound.records.adapters import AdapterStore
from radfound.teaching import Teaching
from radfound.validation import Count, Positive, Truth
from training.corrections import gate
from training.corrections.calibration import (
    AdapterCalibration,
    Answered,
    fit_adapter_calibration,
)
from training.corrections.frozen.base import BASE_MODEL, FrozenBase
from training.corrections.frozen.examination import Evaluation, Said
from training.corrections.frozen.lessons import Lesson, Lessons
from training.corrections.frozen.scoring import logit_change
from training.corrections.memory import remembered
from training.corrections.phases import CHECKING, LEARNING, REHEARSING, Phases
from training.corrections.plausibility import find_implausible
from training.corrections.trainer import Recipe, train_adapter
from training.loop.config import Progress

_WEAKER = (0.8, 0.6)  # strengths, relative to the trained adapter


@dataclass(frozen=True)
class FinetuneConfig(Recipe, gate.Bounds):
    """Settings of a fine-tuning run: hyperparameters, and the tolerances of the gate.

    Parameters
    ----------
    rank : int
        Of the adapter.
    replay_studies : int
        Largest number of bundled studies used for replay.
    held_out_share : float
        Share of the newly corrected studies that is held out at first, to evaluate the adapter on.
    newest : int
        Largest number of corrections, the newest ones.
    confirm : int
        Leave out texts on which fewer readers agree.
    kept_adapters : int
        Number of the newest adapters that keep their weights (`AdapterStore.prune`).
    from_scratch : bool
        Start with a new adapter instead of the active one.
    """

    rank: Count = 8
    replay_studies: Count = 48
    held_out_share: Positive = 0.2
    newest: Count = 1000
    confirm: Count = 1
    kept_adapters: Count = 20
    from_scratch: Truth = False


class Judge:
    """One fine-tuning run on a frozen base: `check_corrections`, `train`, then `verdict`.

    Parameters
    ----------
    frozen : FrozenBase
    store : AdapterStore
    parent : str or None
        The active adapter.
    lessons : Lessons
    config : FinetuneConfig
    corrections : dict of str to Correction
        By id, those of the lessons.
    phases : Phases
    teaching : Teaching, optional
        What readers' corrections answer without an adapter.
    """

    def __init__(
        self,
        frozen: FrozenBase,
        store: AdapterStore,
        parent: str | None,
        lessons: Lessons,
        config: FinetuneConfig,
        corrections: Mapping[str, Correction],
        phases: Phases,
        teaching: Teaching | None = None,
    ):
        self._frozen, self._config, self._phases = frozen, config, phases
        self._store, self._parent = store, parent
        self._corrected = lessons.corrected
        self._replay = lessons.replay + frozen.replay
        # A checkpoint without a regression set is evaluated on what it should not change.
        self._questions = frozen.regression_set or self._replay or self._corrected
        self._learnt = set(store.manifest(parent).get("corrections", ())) if parent else set()
        self._held_out = _held_out(lessons.corrected, self._learnt, config)
        self._asked = [corrections[each] for some in self._held_out for each in some.corrections]
        self._remembered = remembered(teaching, self._asked)
        self._start_from = store.path(parent) if parent and not config.from_scratch else None
        self._before = [self._evaluation_of(None)]
        if parent:
            self._before.append(self._evaluation_of(parent))
        with frozen.loaded(store, parent):
            self._held_out_before = frozen.score(self._held_out)
            self._said_before = self._answers() if any(self._remembered) else []
        self._said_after: list[Said] = []
        self._checks: list[gate.Check] = []
        self.after: Evaluation | None = None
        self.strength = 1.0  # of the adapter that is judged, relative to the one that was trained

    def check_corrections(self) -> gate.Verdict:
        """Return the checks that need no training: whether the new corrections are plausible."""
        if self._frozen.regression_set:
            base = self._before[0].with_image
            missed = [
                log_probability
                for log_probability, correct in zip(base.log_probability, base.correct, strict=True)
                if not correct
            ]
            new = _not_learnt(self._corrected, self._learnt)
            found = find_implausible(self._frozen, new, missed)
            self._checks.append(gate.plausible(found, self._config))
        return gate.Verdict(tuple(self._checks))

    def train(self) -> int:
        """Train the adapter; return the number of steps.

        Studies that are held out at first are learnt too, once the adapter has been scored on them.
        """
        self._frozen.new_adapter(self._config.rank, self._start_from, self._config.seed)
        steps = 0
        if self._held_out:
            rest = [each for each in self._corrected if each not in self._held_out]
            steps += self._train_on(rest, REHEARSING)
            self._examine()
        return steps + self._train_on(self._corrected, LEARNING)

    def _examine(self) -> None:
        """Score the adapter on the held-out studies, which it has not learnt yet."""
        after = self._frozen.score(self._held_out)
        self._checks.append(gate.held_out(self._held_out_before, after, self._config))
        self._frozen.base.tune()  # the weights have changed since the last answer
        self._said_after = self._answers()
        if any(self._remembered):
            right = [each.text for each in self._asked]
            without = [
                text or said.text
                for text, said in zip(self._remembered, self._said_before, strict=True)
            ]
            self._checks.append(
                gate.beats_memory(
                    [bool(exact_match(*pair)) for pair in zip(without, right, strict=True)],
                    [
                        bool(exact_match(said.text, text))
                        for said, text in zip(self._said_after, right, strict=True)
                    ],
                    sum(text is not None for text in self._remembered),
                )
            )

    def verdict(self, force: bool) -> gate.Verdict:
        """Evaluate the trained adapter and, if all that it fails are other answers, weaker ones.

        A weaker adapter changes other answers less and may still reproduce the corrections (WiSE-FT, arXiv
        2109.01903). Where none passes, the whole one is judged.
        """
        whole = self._evaluated()
        if whole.only_changes_others and (weaker := self._weakened()):
            return weaker
        return replace(whole, forced=force and not whole.passed)

    def _weakened(self) -> gate.Verdict | None:
        """Weaken the adapter until it passes; None, and the whole adapter, where it does not."""
        whole = self.after
        for strength in _WEAKER:
            self._scale_adapter(strength)
            if not gate.reproduces(self._frozen.score(self._corrected), self._config).passed:
                break
            weaker = self._evaluated()
            if weaker.passed:
                return weaker
        self._scale_adapter(1.0)
        self.after = whole
        return None

    def _scale_adapter(self, strength: float) -> None:
        self._frozen.scale_adapter(strength / self.strength)
        self.strength = strength

    def _evaluated(self) -> gate.Verdict:
        """Evaluate the adapter that is loaded."""
        frozen, bounds = self._frozen, self._config
        self._phases.begin(CHECKING, _examined(self._questions))
        corrections = frozen.activations.of(self._corrected)
        after = self.after = frozen.evaluate(
            "the new adapter", self._questions, self._phases.advance
        )
        checks = [
            gate.same_base(frozen.base.revision, checkpoints.revision(frozen.checkpoint)),
            gate.changes_logits(logit_change(frozen.base, frozen.upper, corrections)),
            gate.reproduces(frozen.score(self._corrected), bounds),
            *self._checks,
        ]
        for before in self._before:
            if frozen.regression_set:
                checks.append(gate.regression(before, after, bounds))
            checks.append(gate.stops(before, after, bounds))
            checks.append(gate.sees_the_image(before, after, bounds))
        if not frozen.regression_set:
            checks.append(gate.others_stay(after.with_image, bounds))
        return gate.Verdict(tuple(checks))

    def calibration(self) -> AdapterCalibration:
        """Fit the confidence of the trained adapter to the answers of `train` and `verdict`."""
        held_out = [
            Answered(
                each.task,
                each.question,
                said.probability,
                bool(exact_match(said.text, each.text)),
                each.images[0],
            )
            for each, said in zip(self._asked, self._said_after, strict=bool(self._said_after))
        ]
        said = self.after.said if self.after else ()
        pairs = self._frozen.regression_pairs if said else []
        regression = [
            Answered(
                "vqa",
                question,
                each.probability,
                bool(exact_match(each.text, right)),
                f"regression {study}",
            )
            for (study, question, right), each in zip(pairs, said, strict=True)
        ]
        return fit_adapter_calibration(self._frozen.base.revision, held_out, regression)

    def _answers(self) -> list[Said]:
        """Return the answers to the held-out corrections, of the adapter that is loaded."""
        branches = [(lesson, each) for lesson in self._held_out for each in lesson.branches]
        rejected = [each for lesson in self._held_out for each in lesson.rejected]
        return self._frozen.answers(
            [(lesson.visual, each.question) for lesson, each in branches],
            [
                [each.answer, *([other.answer] if other else [])]
                for (_, each), other in zip(branches, rejected, strict=True)
            ],
        )

    def _evaluation_of(self, adapter: str | None) -> Evaluation:
        frozen, advance = self._frozen, self._phases.advance
        if frozen.regression_set:
            return frozen.evaluation_of(self._store, adapter, advance)
        with frozen.loaded(self._store, adapter):
            return frozen.evaluate(adapter or BASE_MODEL, self._questions, advance)

    def _train_on(self, corrected: list[Lesson], phase: str) -> int:
        steps = 0

        def count_and_report(progress: Progress) -> None:
            nonlocal steps
            steps = progress.step
            self._phases.step(progress)

        frozen = self._frozen
        self._phases.begin(phase)
        train_adapter(
            frozen.base,
            frozen.upper,
            frozen.activations.of(corrected),
            frozen.activations.of(self._replay),
            self._config,
            count_and_report,
            frozen.activations.of_rejected(corrected) if self._config.preference else (),
        )
        return steps


def _examined(lessons: Sequence[Lesson]) -> int:
    """Return how many answers an evaluation looks at: with the image, with a blank one, and its own."""
    return 3 * sum(len(each.branches) for each in lessons)


def _not_learnt(corrected: Sequence[Lesson], learnt: Collection[str]) -> list[Lesson]:
    """Return the part of the lessons that the active adapter has not learnt."""
    found = []
    for lesson in corrected:
        new = [
            (branch, correction)
            for branch, correction in zip(lesson.branches, lesson.corrections, strict=True)
            if correction not in learnt
        ]
        if new:
            branches, corrections = zip(*new, strict=True)
            found.append(Lesson(lesson.visual, list(branches), lesson.study, corrections))
    return found


def _held_out(
    corrected: Sequence[Lesson], learnt: Collection[str], config: FinetuneConfig
) -> list[Lesson]:
    """Choose the lessons to hold out, from studies of which the active adapter has learnt nothing."""
    studies: dict[str, bool] = {}
    for lesson in corrected:
        is_new = not any(each in learnt for each in lesson.corrections)
        studies[lesson.study] = studies.get(lesson.study, True) and is_new
    new = sorted(study for study, is_new in studies.items() if is_new)
    count = min(round(config.held_out_share * len(new)), len(studies) - 1)
    chosen = set(random.Random(config.seed).sample(new, max(0, count)))
    return [lesson for lesson in corrected if lesson.study in chosen]
