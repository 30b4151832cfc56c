"""The gate: checks that a new adapter must pass before it is published.

Each check compares the new adapter with the active one and the base model on the same questions, by a paired
test. The verdict, with all numbers, is kept in the adapter's manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest, wilcoxon

from radfound.validation import NotNegative
from training.corrections.frozen.examination import Evaluation
from training.corrections.frozen.scoring import AnswerScores
from training.corrections.plausibility import Implausible

SIGNIFICANT = 0.05
NAMES = (
    "base model",
    "plausible corrections",
    "held-out corrections",
    "memory and heads",
    "corrections",
    "changes the answers",
    "regression",
    "answers end",
    "sees the image",
)
"""The checks of a checkpoint with a regression set; the name of one may go on after these words."""
_OTHER_ANSWERS = ("regression", "other answers", "answers end", "sees the image")
# Of fewer texts, one reader's personal style may exceed the tolerated share.
_FEWEST_TEXTS = 20
_FEWEST_COMPARED = 5  # held-out corrections; fewer decide nothing


@dataclass(frozen=True)
class Bounds:
    """Tolerances of the gate.

    Parameters
    ----------
    least_reproduced : float
        Smallest share of the corrections that is reproduced.
    tolerance_implausible : float
        Largest share of the new corrections that repeat themselves or suit other questions as well.
    tolerance : float
        Largest fall of the share of right answers on the regression set.
    tolerance_nats : float
        Largest fall of the mean log-probability of right answers, in nats a token.
    tolerance_stops : float
        Largest fall of the share of answers that end with the stop token.
    least_image : float
        Smallest share of the image's contribution to right answers that is kept.
    least_kept : float
        Smallest share of replayed answers that stay, where a checkpoint has no regression set.
    """

    least_reproduced: NotNegative = 0.9
    tolerance_implausible: NotNegative = 0.2
    tolerance: NotNegative = 0.02
    tolerance_nats: NotNegative = 0.2
    tolerance_stops: NotNegative = 0.05
    least_image: NotNegative = 0.5
    least_kept: NotNegative = 0.8


@dataclass(frozen=True)
class Check:
    """One check of the gate and its outcome.

    Parameters
    ----------
    name : str
    passed : bool or None
        None if the check was not done.
    words : str
        The outcome, with the numbers.
    numbers : dict of str to float
    value, limit : float or None
        The number that decides and its bound, where there is one.
    """

    name: str
    passed: bool | None
    words: str
    numbers: dict[str, float]
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Verdict:
    """All checks of one adapter.

    Parameters
    ----------
    checks : tuple of Check
    forced : bool
        Whether it was published although it failed.
    """

    checks: tuple[Check, ...]
    forced: bool = False

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed is not False for check in self.checks)

    @property
    def only_changes_others(self) -> bool:
        """Whether it fails, and only by what becomes of other answers than the corrected ones."""
        failed = [check.name for check in self.checks if check.passed is False]
        return bool(failed) and all(name.startswith(_OTHER_ANSWERS) for name in failed)

    @property
    def reason(self) -> str:
        """The failed checks in words; empty where none failed."""
        return "; ".join(f"{c.name}: {c.words}" for c in self.checks if c.passed is False)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as it is kept in an adapter's manifest."""
        checks = [asdict(check) for check in self.checks]
        return {"passed": self.passed, "forced": self.forced, "checks": checks}


def same_base(before: str, after: str) -> Check:
    """Check that the base model on disk is still the one used in training."""
    words = f"still revision {after}"
    if before != after:
        words = f"trained on {before}, the checkpoint is now {after}"
    return Check("base model", before == after, words, {})


def changes_logits(change: float) -> Check:
    """Check that the adapter changes the logits."""
    words = f"logits move by at most {change:.3g}"
    return Check("changes the answers", change > 0, words, {"logit_change": change}, change, 0.0)


def reproduces(scores: AnswerScores, bounds: Bounds) -> Check:
    """Check that the corrections are reproduced word for word."""
    share = float(np.mean(scores.correct))
    limit = bounds.least_reproduced
    passed = share >= limit
    words = f"{share:.0%} of {len(scores.correct)} reproduced, at least {limit:.0%} expected"
    if not passed:
        words += "; look for corrections that contradict each other"
    numbers = {"share": share, "n": float(len(scores.correct))}
    return Check("corrections", passed, words, numbers, share, limit)


def plausible(found: Implausible, bounds: Bounds) -> Check:
    """Check that the new corrections look like answers to their questions (see `training.corrections.plausibility`)."""
    share = len(found.corrections) / max(1, found.examined)
    words = (
        f"{share:.0%} of {found.examined} new ones repeat themselves, or are unlikely and suit other questions as well; "
        f"at most {bounds.tolerance_implausible:.0%} expected"
    )
    passed = share <= bounds.tolerance_implausible
    if not passed and found.examined < _FEWEST_TEXTS:
        passed, words = True, f"{words} of {_FEWEST_TEXTS} or more"
    elif not passed:
        words += f"; look at {', '.join(found.corrections[:3])}"
    numbers = {"share": share, "n": float(found.examined)}
    limit = bounds.tolerance_implausible
    return Check("plausible corrections", passed, words, numbers, share, limit)


def held_out(before: AnswerScores, after: AnswerScores, bounds: Bounds) -> Check:
    """Check that corrections of held-out studies are not less likely than before.

    Wilcoxon's signed-rank test on the log-probabilities of the readers' texts.
    """
    old, new = np.array(before.log_probability), np.array(after.log_probability)
    fall, p = float(np.mean(old - new)), _p_worse(old, new)
    worse = fall > bounds.tolerance_nats and p < SIGNIFICANT
    words = (
        f"{_change(-fall)} nats a token on {len(old)} held-out corrections (p = {p:.2g} that it is not worse), "
        f"{np.mean(before.correct):.0%} right before, {np.mean(after.correct):.0%} after"
    )
    numbers = {
        "n": float(len(old)),
        "nats": -fall,
        "p": p,
        "right_before": float(np.mean(before.correct)),
        "right_after": float(np.mean(after.correct)),
    }
    limit = -bounds.tolerance_nats
    return Check("held-out corrections", not worse, words, numbers, -fall, limit)


def beats_memory(without: Sequence[bool], adapter: Sequence[bool], remembered: int) -> Check:
    """Check that the adapter is right more often than what corrections teach without one.

    Parameters
    ----------
    without : sequence of bool
        For each held-out correction, whether the answer without the adapter is right: that of recall, wording or
        heads where they have one, otherwise that of the active model.
    adapter : sequence of bool
        Whether the adapter's answer is right.
    remembered : int
        How many of them recall, wording or heads answer.
    """
    was, now, count = sum(without), sum(adapter), len(adapter)
    words = f"{now} of {count} held-out corrections right, {was} with recall, wording and heads, which answer {remembered}"
    passed = now > was or count < _FEWEST_COMPARED
    if not passed:
        words += "; the memory of the corrections is as good, and it answers already, so no adapter is needed"
    elif now <= was:
        words += f"; fewer than {_FEWEST_COMPARED} decide nothing"
    numbers = {
        "n": float(count), "right_without": float(was), "right_after": float(now), "remembered": float(remembered),
    }  # fmt: skip
    return Check("memory and heads", passed, words, numbers, float(now), float(was))


def regression(before: Evaluation, after: Evaluation, bounds: Bounds) -> Check:
    """Check that questions with known answers are answered as well as before.

    McNemar's exact test on right and wrong, Wilcoxon's on the log-probabilities of the right answers.
    """
    was, now = np.array(before.with_image.correct), np.array(after.with_image.correct)
    lost, gained = int((was & ~now).sum()), int((~was & now).sum())
    fall = float(was.mean() - now.mean())
    p = binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue if lost + gained else 1.0
    old, new = (np.array(each.with_image.log_probability) for each in (before, after))
    nats, p_nats = float(np.mean(old - new)), _p_worse(old, new)
    fewer = fall > bounds.tolerance and p < SIGNIFICANT
    less_likely = nats > bounds.tolerance_nats and p_nats < SIGNIFICANT
    words = (
        f"{now.mean():.1%} of {len(now)} right, {was.mean():.1%} by {before.name} (lost {lost}, gained {gained}, "
        f"p = {p:.2g}); right answers {_change(-nats)} nats a token (p = {p_nats:.2g})"
    )
    numbers = {
        "n": float(len(now)), "right_before": float(was.mean()), "right_after": float(now.mean()),
        "lost": float(lost), "gained": float(gained), "p": float(p), "nats": -nats, "p_nats": p_nats,
    }  # fmt: skip
    right, limit = float(now.mean()), float(was.mean()) - bounds.tolerance
    passed = not (fewer or less_likely)
    return Check(f"regression beside {before.name}", passed, words, numbers, right, limit)


def others_stay(scores: AnswerScores, bounds: Bounds) -> Check:
    """Check that replayed answers stay, where there is no regression set."""
    share = float(np.mean(scores.correct)) if scores.correct else 1.0
    words = (
        f"{share:.0%} of {len(scores.correct)} stayed, at least {bounds.least_kept:.0%} expected"
    )
    limit = bounds.least_kept
    return Check("other answers", share >= limit, words, {"share": share}, share, limit)


def stops(before: Evaluation, after: Evaluation, bounds: Bounds) -> Check:
    """Check that answers still end by themselves."""
    was, now = float(np.mean(before.stops)), float(np.mean(after.stops))
    words = f"{now:.0%} of {len(after.stops)} end by themselves, {was:.0%} by {before.name}"
    numbers = {"n": float(len(after.stops)), "before": was, "after": now}
    limit = was - bounds.tolerance_stops
    return Check("answers end", now >= limit, words, numbers, now, limit)


def sees_the_image(before: Evaluation, after: Evaluation, bounds: Bounds) -> Check:
    """Check that right answers still depend on the image."""
    was, now = (
        float(np.mean(each.with_image.correct) - np.mean(each.with_blank.correct))
        for each in (before, after)
    )
    words = f"a blank image costs {now:.1%} of the right answers, {was:.1%} with {before.name}"
    limit = bounds.least_image * max(was, 0.0)
    numbers = {"before": was, "after": now}
    return Check("sees the image", now >= limit, words, numbers, now, limit)


def _p_worse(old: np.ndarray, new: np.ndarray) -> float:
    """Return the probability of such a fall by chance, one-sided."""
    if len(old) < 5 or np.allclose(old, new):
        return 1.0
    return float(wilcoxon(old - new, alternative="greater").pvalue)


def _change(nats: float) -> str:
    return f"{'likelier' if nats >= 0 else 'less likely'} by {abs(nats):.2f}"
