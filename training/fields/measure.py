"""Score the heads on held-out pictures: intervals by patient, controls, other sets, and pictures of unknown kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radfound.fields.heads import FieldHead, Head
from radfound.optional import library
from training.fields.fit import Features, columns, field_rows, fit_linear
from training.fields.samples import Sample

_DRAWS = 1000


@dataclass(frozen=True)
class Score:
    """A score with its 95 % interval, by bootstrap over patients."""

    value: float
    low: float
    high: float

    def per_cent(self) -> str:
        """Return "83.2 (75.0-90.1)"."""
        return f"{100 * self.value:.1f} ({100 * self.low:.1f}-{100 * self.high:.1f})"

    def plain(self) -> str:
        """Return "0.83 (0.75-0.90)"."""
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"


def by_patient(
    score: Callable[[np.ndarray], float], patients: Sequence[str], seed: int = 0
) -> Score:
    """Return a score of rows, with its interval over patients drawn with replacement.

    Parameters
    ----------
    score : callable
        Maps row indices to a number; NaN where it is undefined, and such draws are left out.
    patients : sequence of str
        One for each row.
    """
    chance = np.random.default_rng(seed)
    names = np.array(patients)
    rows_of = [np.flatnonzero(names == name) for name in sorted(set(patients))]
    drawn = []
    for _ in range(_DRAWS):
        chosen = chance.integers(0, len(rows_of), len(rows_of))
        drawn.append(score(np.concatenate([rows_of[i] for i in chosen])))
    usable = np.array(drawn)[~np.isnan(drawn)]
    low, high = np.quantile(usable, (0.025, 0.975)) if len(usable) else (0.0, 1.0)
    return Score(float(score(np.arange(len(names)))), float(low), float(high))


def held_out(samples: Sequence[Sample]) -> np.ndarray:
    """Return which pictures are of the validation or test split."""
    return np.array([sample.split != "train" for sample in samples])


def measure_field(
    samples: Sequence[Sample],
    features: Features,
    field: str,
    head: FieldHead,
    blank: Features,
    used: np.ndarray,
    seed: int = 0,
) -> dict[str, Any]:
    """Return accuracy, controls, calibration and competence of a field's head on held-out pictures.

    The controls: the commonest answer of the training split (what the question alone predicts), a blank picture, and
    another patient's picture, of the same modality and region where the field is neither.
    """
    tested = field_rows(samples, field) & held_out(samples)
    if field in ("modality", "plane", "region"):
        tested &= np.array([s.set == "medpix" for s in samples])
    if field == "projection":
        tested &= np.array([s.labels.get(field) in ("PA", "AP") for s in samples])
    rows = np.flatnonzero(tested)
    truth = np.array([samples[i].labels[field] for i in rows])
    patients = [samples[i].patient for i in rows]
    chances = head.head.probabilities(columns(features, head.parts)[rows])
    names = np.array(head.head.names)
    answers = names[chances.argmax(1)]
    right = answers == truth
    asked_of = {samples[i].set for i in rows}
    known = np.array(
        [
            sample.labels[field]
            for sample, use, asked in zip(samples, used, field_rows(samples, field), strict=True)
            if use and asked and sample.set in asked_of
        ]
    )
    commonest = max(set(known), key=lambda name: int((known == name).sum()))
    blank_answer = names[head.head.probabilities(columns(blank, head.parts)).mean(0).argmax()]
    other = _other_patient(samples, rows, field, seed)
    leads = {
        "question": right * 1.0 - (truth == commonest),
        "blank": right * 1.0 - (truth == blank_answer),
        "other": right * 1.0 - (answers[other] == truth),
    }
    scored = [_share(lead, patients) for lead in leads.values()]
    worst = min(scored, key=lambda score: score.low)
    splits = np.array([samples[i].split for i in rows])
    accuracy = _share(right * 1.0, patients)
    balanced = by_patient(lambda r: _balanced(right[r], truth[r]), patients)
    confidence = chances.max(1)
    return {
        "n": len(rows),
        "patients": len(set(patients)),
        "accuracy": accuracy,
        "balanced": balanced,
        "validation": float(right[splits == "validation"].mean())
        if (splits == "validation").any()
        else None,
        "test": float(right[splits == "test"].mean()) if (splits == "test").any() else None,
        "question": float((truth == commonest).mean()),
        "blank": float((truth == blank_answer).mean()),
        "other": float((answers[other] == truth).mean()),
        "lead": worst,
        "calibration_error": calibration_error(confidence, right),
        "said": float((confidence >= head.sure).mean()),
        "right_where_said": float(right[confidence >= head.sure].mean())
        if (confidence >= head.sure).any()
        else None,
    }


def _share(values: np.ndarray, patients: Sequence[str]) -> Score:
    return by_patient(lambda rows: float(values[rows].mean()), patients)


def _other_patient(
    samples: Sequence[Sample], rows: np.ndarray, field: str, seed: int
) -> np.ndarray:
    """Return for each row the position in `rows` of another patient's picture of the same kind, if there is one."""
    chance = np.random.default_rng(seed)
    keys = [name for name in ("modality", "region") if field not in ("modality", "region")]
    chosen = []
    for index in rows:
        mine = samples[index]
        others = [
            place
            for place, i in enumerate(rows)
            if samples[i].patient != mine.patient
            and all(samples[i].labels.get(key) == mine.labels.get(key) for key in keys)
        ] or [place for place, i in enumerate(rows) if samples[i].patient != mine.patient]
        chosen.append(int(chance.choice(others)))
    return np.array(chosen)


def _balanced(right: np.ndarray, truth: np.ndarray) -> float:
    return (
        float(np.mean([right[truth == name].mean() for name in set(truth)]))
        if len(truth)
        else float("nan")
    )


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error in bins of equal size (Naeini et al. 2015)."""
    order = np.array_split(np.argsort(confidence), min(bins, len(confidence)))
    return float(
        sum(len(part) * abs(confidence[part].mean() - right[part].mean()) for part in order)
        / len(right)
    )


def auroc(scores: np.ndarray, present: np.ndarray) -> float:
    """Return the area under the ROC curve; NaN if all are present or all absent."""
    if present.all() or not present.any():
        return float("nan")
    return float(library("sklearn.metrics", "train").roc_auc_score(present, scores))


def finding_probability(head: Head, values: np.ndarray) -> np.ndarray:
    """Return the probability of "yes" for features (N, D)."""
    return head.probabilities(values)[:, head.names.index("yes")]


def finding_auroc(
    samples: Sequence[Sample], scores: np.ndarray, rows: np.ndarray, finding: str
) -> Score:
    """Return the AUROC of scores on some pictures, by patient."""
    present = np.array([finding in (samples[i].findings or ()) for i in rows])
    return by_patient(lambda r: auroc(scores[r], present[r]), [samples[i].patient for i in rows])


def circumstances(samples: Sequence[Sample]) -> np.ndarray:
    """Return projection, side, density, age and sex as numbers, the control without a picture, shape (N, 9)."""
    ages = np.array([np.nan if s.age is None else s.age for s in samples])
    ages = np.where(np.isnan(ages), np.nanmean(ages), ages)
    flags = [
        ("projection", ("PA", "AP", "lateral")),
        ("side", ("left",)),
        ("density", ("fatty", "dense-glandular")),
    ]
    values = [[float(s.labels.get(name) == c) for name, cs in flags for c in cs] for s in samples]
    sexes = [[float(s.sex == "F"), float(s.sex == "M")] for s in samples]
    return np.column_stack([ages / 20, values, sexes]).astype(np.float32)


def control_auroc(
    samples: Sequence[Sample], finding: str, train: np.ndarray, test: np.ndarray
) -> float:
    """Return the AUROC of a finding predicted from `circumstances` alone."""
    values = circumstances(samples)
    present = np.array([finding in (s.findings or ()) for s in samples])
    if values[train].std(0).max() < 1e-6:
        return 0.5
    head = fit_linear(values[train], np.where(present, "yes", "no")[train], 1.0)
    return auroc(finding_probability(head, values[test]), present[test])


def summary(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stored beside the weights, as JSON types."""
    accuracy, lead = measured["accuracy"], measured["lead"]
    return {
        "n": measured["n"],
        "patients": measured["patients"],
        "accuracy": [round(v, 4) for v in (accuracy.value, accuracy.low, accuracy.high)],
        "question_only": round(measured["question"], 4),
        "calibration_error": round(measured["calibration_error"], 4),
        "competence": {"lead": round(lead.value, 4), "low": round(lead.low, 4)},
    }
