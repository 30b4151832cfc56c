"""Calibration of an adapter: its confidence is refitted after each training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from radfound.benchmark.scoring.calibration import FEWEST, fit_curve
from radfound.engine.confidence import Calibration, Curve, calibration_group


@dataclass(frozen=True)
class Answered:
    """An answer of the adapter to a question with a known answer, which it was not trained on.

    Parameters
    ----------
    task : str
    question : str or None
    probability : float
        Length-normalised, of the adapter's own answer.
    right : bool
    study : str
        Studies are never divided between folds.
    """

    task: str
    question: str | None
    probability: float
    right: bool
    study: str


@dataclass(frozen=True)
class AdapterCalibration:
    """The calibration of an adapter, and what it rests on.

    Parameters
    ----------
    calibration : Calibration or None
        None if there are too few answers of every kind; the adapter's answers then have no confidence.
    told : str
        In words, for the manifest.
    """

    calibration: Calibration | None
    told: str


def fit_adapter_calibration(
    revision: str,
    held_out: Sequence[Answered],
    regression: Sequence[Answered],
) -> AdapterCalibration:
    """Fit curves to held-out corrections and the regression set, each kind of question by itself.

    Parameters
    ----------
    revision : str
        Of the base weights.
    held_out : sequence of Answered
        Corrections that the adapter has not learnt.
    regression : sequence of Answered
        Questions of the regression set.

    Returns
    -------
    AdapterCalibration
        A kind of question with fewer than `FEWEST` answers, or with right or wrong ones only, has no curve.
    """
    groups: dict[str, list[Answered]] = defaultdict(list)
    for answered in (*held_out, *regression):
        group = calibration_group(answered.task, answered.question)
        if group is not None:
            groups[group].append(answered)
    curves: dict[str, Curve] = {}
    parts = []
    for group, some in sorted(groups.items()):
        curve = None
        if len({each.right for each in some}) == 2:
            curve = fit_curve(
                [each.probability for each in some],
                [float(each.right) for each in some],
                [each.study for each in some],
            )
        if curve is not None:
            curves[group] = curve
        fitted = "fitted" if curve else f"not fitted, expected {FEWEST} with right and wrong ones"
        parts.append(f"{group} questions: {len(some)} answers, {fitted}")
    told = "; ".join(parts) or "no answer to a question that was not trained on"
    return AdapterCalibration(Calibration(revision, curves) if curves else None, told)
