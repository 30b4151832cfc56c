"""The gate: what a new adapter has to show before it answers anybody.

Each check compares the new adapter with what answered so far, on the same questions; what is worse by chance
is told apart by a paired test. The verdict, with all numbers, is kept beside the adapter.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest, wilcoxon

from training.corrections.adapt import Marks
from training.corrections.plausibility import Misfits
from training.corrections.workshop import Standing

SIGNIFICANT = 0.05
_FEWEST_TEXTS = (
    20  # of fewer, a reader's own way of writing may make up the share that does not fit
)


@dataclass(frozen=True)
class Bounds:
    """What the gate tolerates.

    Parameters
    ----------
    least_reproduced : float
        Share of the corrections that have to be reproduced.
    tolerance_misfits : float
        Share of the new corrections that may repeat themselves or suit other questions as well.
    tolerance : float
        The share of right answers to the regression questions may fall by so much.
    tolerance_nats : float
        The mean log-probability of right answers may fall by so much, in nats a token.
    tolerance_stops : float
        The share of answers that end by themselves may fall by so much.
    least_image : float
        Share of what the image adds to right answers that has to be left.
    least_kept : float
        Share of rehearsed answers that have to stay, where a checkpoint has no regression questions.
    """

    least_reproduced: float = 0.9
    tolerance_misfits: float = 0.2
    tolerance: float = 0.02
    tolerance_nats: float = 0.2
    tolerance_stops: float = 0.05
    least_image: float = 0.5
    least_kept: float = 0.8


@dataclass(frozen=True)
class Check:
    """One thing that an adapter had to show.

    Parameters
    ----------
    name : str
    passed : bool
    told : str
        In words, with the numbers.
    numbers : dict of str to float
    """

    name: str
    passed: bool
    told: str
    numbers: dict[str, float]


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
        """Whether nothing speaks against the adapter."""
        return all(check.passed for check in self.checks)

    @property
    def reason(self) -> str:
        """The failed checks in words; empty where there is none."""
        return "; ".join(f"{c.name}: {c.told}" for c in self.checks if not c.passed)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as it is kept in an adapter's manifest."""
        checks = [asdict(check) for check in self.checks]
        return {"passed": self.passed, "forced": self.forced, "checks": checks}


def same_base(before: str, after: str) -> Check:
    """Check that the base model on the disk is still the one that was trained on."""
    told = f"trained on {before}, the checkpoint is now {after}" if before != after else before
    return Check("base model", before == after, told, {})


def changes_logits(change: float) -> Check:
    """Check that the adapter does anything at all."""
    told = f"logits move by at most {change:.3g}"
    return Check("changes the answers", change > 0, told, {"logit_change": change})


def reproduces(marks: Marks, bounds: Bounds) -> Check:
    """Check that the corrections are reproduced word for word."""
    share = float(np.mean(marks.right))
    told = (
        f"{share:.0%} of {len(marks.right)} reproduced, at least {bounds.least_reproduced:.0%} expected; "
        "if not, look for corrections that contradict each other"
    )
    return Check(
        "corrections",
        share >= bounds.least_reproduced,
        told,
        {"share": share, "n": len(marks.right)},
    )


def fits(found: Misfits, bounds: Bounds) -> Check:
    """Check that the new corrections look like answers to their questions (see `training.corrections.plausibility`)."""
    share = len(found.corrections) / max(1, found.examined)
    told = (
        f"{share:.0%} of {found.examined} new ones repeat themselves, or are unlikely and suit other questions as well; "
        f"at most {bounds.tolerance_misfits:.0%} expected"
    )
    passed = share <= bounds.tolerance_misfits
    if not passed and found.examined < _FEWEST_TEXTS:
        passed, told = True, f"{told} of {_FEWEST_TEXTS} or more"
    elif not passed:
        told += f"; look at {', '.join(found.corrections[:3])}"
    numbers = {"share": share, "n": float(found.examined)}
    return Check("plausible corrections", passed, told, numbers)


def held_out(before: Marks, after: Marks, bounds: Bounds) -> Check:
    """Check that corrections of studies that were kept back are not less likely than before.

    Wilcoxon's signed-rank test on the log-probabilities of the readers' texts.
    """
    old, new = np.array(before.log_probability), np.array(after.log_probability)
    fall, p = float(np.mean(old - new)), _p_worse(old, new)
    worse = fall > bounds.tolerance_nats and p < SIGNIFICANT
    told = (
        f"{_moved(-fall)} nats a token on {len(old)} kept back (p = {p:.2g} that it is not worse), "
        f"{np.mean(before.right):.0%} right before, {np.mean(after.right):.0%} after"
    )
    numbers = {
        "n": float(len(old)),
        "nats": -fall,
        "p": p,
        "right_before": float(np.mean(before.right)),
        "right_after": float(np.mean(after.right)),
    }
    return Check("kept-back corrections", not worse, told, numbers)


def regression(before: Standing, after: Standing, bounds: Bounds) -> Check:
    """Check that questions with known answers are answered as well as before.

    McNemar's exact test on right and wrong, Wilcoxon's on the log-probabilities of the right answers.
    """
    was, now = np.array(before.own.right), np.array(after.own.right)
    lost, gained = int((was & ~now).sum()), int((~was & now).sum())
    fall = float(was.mean() - now.mean())
    p = binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue if lost + gained else 1.0
    old, new = (np.array(each.own.log_probability) for each in (before, after))
    nats, p_nats = float(np.mean(old - new)), _p_worse(old, new)
    fewer = fall > bounds.tolerance and p < SIGNIFICANT
    less_likely = nats > bounds.tolerance_nats and p_nats < SIGNIFICANT
    told = (
        f"{now.mean():.1%} of {len(now)} right, {was.mean():.1%} by {before.name} (lost {lost}, gained {gained}, "
        f"p = {p:.2g}); right answers {_moved(-nats)} nats a token (p = {p_nats:.2g})"
    )
    numbers = {
        "n": float(len(now)), "right_before": float(was.mean()), "right_after": float(now.mean()),
        "lost": float(lost), "gained": float(gained), "p": float(p), "nats": -nats, "p_nats": p_nats,
    }  # fmt: skip
    return Check(f"regression beside {before.name}", not (fewer or less_likely), told, numbers)


def others_stay(marks: Marks, bounds: Bounds) -> Check:
    """Check that answers which nobody corrected stay, where there are no regression questions."""
    share = float(np.mean(marks.right)) if marks.right else 1.0
    told = f"{share:.0%} of {len(marks.right)} stayed, at least {bounds.least_kept:.0%} expected"
    return Check("other answers", share >= bounds.least_kept, told, {"share": share})


def stops(before: Standing, after: Standing, bounds: Bounds) -> Check:
    """Check that answers still end by themselves."""
    was, now = float(np.mean(before.ends)), float(np.mean(after.ends))
    told = f"{now:.0%} of {len(after.ends)} end by themselves, {was:.0%} by {before.name}"
    numbers = {"n": float(len(after.ends)), "before": was, "after": now}
    return Check("answers end", now >= was - bounds.tolerance_stops, told, numbers)


def sees_the_image(before: Standing, after: Standing, bounds: Bounds) -> Check:
    """Check that right answers still depend on the image."""
    was, now = (
        float(np.mean(each.own.right) - np.mean(each.blank.right)) for each in (before, after)
    )
    told = f"a blank image costs {now:.1%} of the right answers, {was:.1%} with {before.name}"
    passed = now >= bounds.least_image * max(was, 0.0)
    return Check("sees the image", passed, told, {"before": was, "after": now})


def _p_worse(old: np.ndarray, new: np.ndarray) -> float:
    """Return the probability of such a fall by chance, one-sided."""
    if len(old) < 5 or np.allclose(old, new):
        return 1.0
    return float(wilcoxon(old - new, alternative="greater").pvalue)


def _moved(nats: float) -> str:
    return f"{'likelier' if nats >= 0 else 'less likely'} by {abs(nats):.2f}"
