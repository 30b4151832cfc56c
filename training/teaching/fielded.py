"""Wards in which a field's classifier answers before any correction, as on a server.

The shipped classifiers learnt from patients of the wards. So all that a server asks, the test of distance and the fields
that must be known first included, is fitted again in five folds, and never asked about a patient that it was fitted to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np

from radfound.fields.catalogue import FIELDS
from radfound.fields.features import FrameFeatures, load_stem
from radfound.fields.heads import FieldHead
from radfound.fields.model import FieldModel
from radfound.fields.values import Reading
from radfound.model.checkpoints import shipped_folder
from radfound.question import Question
from training.fields.extract import extract
from training.fields.fit import Features, capped, fit_field, fit_nearness, rows_of
from training.fields.samples import Sample, kit_samples

_SETS = {
    "contrast": ("medpix",),
    "projection": ("hannover", "actualmed", "figure1", "nih"),
}
_RIGHT = {"yes": "Yes", "no": "No", "PA": "PA", "AP": "AP"}
_FOLDS = 5
_PENALTY = 0.01  # of the fields that must be known first


def field_ward(field: str, question: str, data: Path, cache: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a ward of one field, as `training.teaching.wards.open_ward` keeps them.

    Parameters
    ----------
    field : {"contrast", "projection"}
    question : str
    data : Path
        The data kit.
    cache : Path
        Keeps the features of its pictures in `features`, as `training.stages.fields` does in its own.
    """
    samples = kit_samples(data)
    stem = FrameFeatures(load_stem(shipped_folder("radfound-mini")))
    features = extract(samples, stem, cache / "features")
    rows = [row for row, sample in enumerate(samples) if _belongs(sample, field)]
    names, numbers = np.unique([samples[row].patient for row in rows], return_inverse=True)
    fold_of = np.random.default_rng(0).permutation(len(names))[numbers] % _FOLDS
    found: dict[int, tuple[Reading, str]] = {}
    for fold in range(_FOLDS):
        left = [row for row, number in zip(rows, fold_of, strict=True) if number == fold]
        model = _fitted_without(
            {samples[row].patient for row in left}, samples, features, field, stem
        )
        for row in left:
            reading = model.judge(rows_of(features, np.array([row])))
            answer = model.answer_from(reading, Question("vqa", question))
            assert answer is not None
            found[row] = reading, answer.text
    readings = [found[row][0] for row in rows]
    return {
        "digests": np.array([hashlib.sha256(str(row).encode()).hexdigest() for row in rows]),
        "patients": np.array([samples[row].patient for row in rows]),
        "right": np.array([_RIGHT[samples[row].labels[field]] for row in rows]),
        "features": np.stack([each.vector for each in readings]),
        "fields": np.array([json.dumps(each.values) for each in readings]),
        "chances": np.array([json.dumps(each.all_chances) for each in readings]),
        "question": np.array(question),
        f"base {question}": np.array([found[row][1] for row in rows]),
    }


def _belongs(sample: Sample, field: str) -> bool:
    labels = sample.labels
    is_ct = field != "contrast" or labels["modality"] == "CT"
    return sample.set in _SETS[field] and labels.get(field) in _RIGHT and is_ct


def _fitted_without(
    patients: Set[str],
    samples: Sequence[Sample],
    features: Features,
    field: str,
    stem: FrameFeatures,
) -> FieldModel:
    """Return what a server asks about a field, fitted as it is shipped but without some patients.

    The field's own head learns from all splits, so that it has as many patients as the shipped one.
    """
    kept = np.array([sample.patient not in patients for sample in samples])
    used = capped(samples, 0)[kept]
    rest = [sample for sample, keep in zip(samples, kept, strict=True) if keep]
    values = rows_of(features, kept)
    heads = {}
    for name in FIELDS[field].applies_to:
        head, parts, _ = fit_field(rest, values, name, used, (_PENALTY,))
        heads[name] = FieldHead(head, parts)
    everyone = [replace(sample, split="train") for sample in rest]
    head, parts, _ = fit_field(everyone, values, field, capped(everyone, 0))
    heads[field] = FieldHead(head, parts)
    return FieldModel(stem, fit_nearness(rest, values, used, 0), heads)
