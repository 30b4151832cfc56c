"""Wards for the trials: studies with one question each, their right answers, features and the model's answers.

`contrast`: MedPix's CT figures, "Was intravenous contrast given?". `projection`: chest films of four sets, "Is this
a PA or an AP film?". `house-style`: MedPix's validation and test figures with the model's modality, plane and region.
In these the language model answers, as if no classifier knew the field. In `contrast-field` and `projection-field` the
field's classifier answers, as on a server (`training.teaching.fielded`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from radfound.datasets.example import Example
from radfound.datasets.kit import Kit
from radfound.datasets.medpix import figure
from radfound.datasets.metadata import METADATA_QUESTIONS, metadata_answers
from radfound.exceptions import DatasetError, StudyError
from radfound.question import Question
from radfound.records.durable import make_directory

CONTRAST = "Was intravenous contrast given?"
PROJECTION = "Is this a PA or an AP film?"
_GIVEN = {
    "CT w/contrast (IV)": "Yes",
    "CT - GI & IV Contrast": "Yes",
    "CTA - CT Angiography": "Yes",
    "CT - noncontrast": "No",
    "CT - GI Contrast": "No",
}
_FILMS = (
    ("captions/hannover_cxr_images_only.jsonl", "projection"),
    ("cxr_labels/actualmed.jsonl", "view"),
    ("cxr_labels/figure1.jsonl", "view"),
    ("cxr_labels/nih.jsonl", "view"),
)
_PLANES = ("axial", "coronal", "sagittal")
_BATCH = 16
_LIMIT = 12  # tokens of an answer


@dataclass(frozen=True, eq=False)
class Ward:
    """Studies with the right answers to one question, N in all.

    Parameters
    ----------
    question : str
    digests, patients, right : arrays of str, shape (N,)
    base : arrays of str by question, shape (N,)
        The answers without corrections.
    features : float32 array, shape (N, D)
        As the server keeps them for heads.
    fields : tuple of N mappings
        The fields that the classifiers name in each study.
    chances : tuple of N mappings
        The probability of each class of the fields that classifiers know in each study; empty where none is asked.
    """

    question: str
    digests: np.ndarray
    patients: np.ndarray
    right: np.ndarray
    base: dict[str, np.ndarray]
    features: np.ndarray
    fields: tuple[Mapping[str, str], ...]
    chances: tuple[Mapping[str, Mapping[str, float]], ...]

    def __len__(self) -> int:
        return len(self.digests)


Row = tuple[Example, str]


def contrast(kit: Kit) -> tuple[list[str], list[Row]]:
    """Return the questions, and the CT figures with whether intravenous contrast was given."""
    rows = [
        (_figure(kit, row), _GIVEN[row["modality_detail"]])
        for row in kit.rows("captions/medpix_captions.jsonl")
        if row["modality"] == "CT" and row["modality_detail"] in _GIVEN
    ]
    return [CONTRAST], rows


def projection(kit: Kit) -> tuple[list[str], list[Row]]:
    """Return the questions, and the chest films with their projection."""
    rows = []
    for name, column in _FILMS:
        for row in kit.rows(name):
            view = (row.get(column) or "")[:2].upper()
            if view in ("PA", "AP"):
                image = kit.root / row["image"]
                rows.append((Example(str(row["patient_id"]), (image,), (), source=name), view))
    return [PROJECTION], rows


def house_style(kit: Kit) -> tuple[list[str], list[Row]]:
    """Return the questions, and the figures with the department's name of the series."""
    rows = []
    for row in kit.rows("captions/medpix_captions.jsonl"):
        labels = metadata_answers(row)
        is_held = row["split"] in ("validation", "test")
        if is_held and labels.keys() >= METADATA_QUESTIONS.keys() and labels["plane"] in _PLANES:
            rows.append(
                (_figure(kit, row), "{modality} of the {region}, {plane}".format_map(labels))
            )
    return [wordings[0] for wordings in METADATA_QUESTIONS.values()], rows


def open_ward(name: str, cache: Path, data: Path | None = None) -> Ward:
    """Return a ward, made from the data kit at the first call and kept in the folder `cache`.

    Raises
    ------
    DatasetError
        If it is not in the cache and no data kit is given.
    """
    file = cache / f"{name}.npz"
    if not file.is_file():
        if data is None:
            raise DatasetError(f"{file}: not found; give the folder of the data kit with --data")
        make_directory(cache)
        np.savez(file, **WARDS[name](data, cache))
    found = np.load(file)
    base = {key[5:]: found[key] for key in found.files if key.startswith("base ")}
    digests, patients, right = (found[key] for key in ("digests", "patients", "right"))
    fields, chances = (
        tuple(json.loads(str(each)) for each in found[key])
        if key in found.files
        else ({},) * len(digests)
        for key in ("fields", "chances")
    )
    question, features = str(found["question"]), found["features"]
    return Ward(question, digests, patients, right, base, features, fields, chances)


def _by_model(
    rows_of: Callable[[Kit], tuple[list[str], list[Row]]], data: Path, cache: Path
) -> dict[str, np.ndarray]:
    """Load each study once: what the classifiers know of it, and the language model's answers."""
    import torch

    from radfound.engine.local.model import LocalModel
    from radfound.fields.model import FieldModel
    from radfound.model.checkpoints import shipped_folder

    questions, rows = rows_of(Kit(data))
    model = LocalModel.load("radfound-mini", "cpu")
    model.tune()
    classifiers = FieldModel.load(shipped_folder("radfound-mini"))
    keys = ("digests", "patients", "right", "features", "fields")
    found: dict[str, list] = {key: [] for key in (*keys, *questions)}
    for start in tqdm(range(0, len(rows), _BATCH), desc=questions[0], unit="batch"):
        encoded = []
        for example, right in rows[start : start + _BATCH]:
            try:
                study = example.read()
            except StudyError:
                continue
            inputs = model.processor.image_processor.preprocess(study, regions=[None])
            with torch.no_grad():
                encoded.append(model.model.get_image_features(**inputs.to(model.model.device)))
            reading = classifiers.reading(study)
            found["features"].append(reading.vector)
            found["fields"].append(json.dumps(reading.values))
            found["digests"].append(study.digest)
            found["patients"].append(example.key)
            found["right"].append(right)
        for question in questions:
            answers = model.generate(encoded, [Question("vqa", question)] * len(encoded), _LIMIT)
            found[question] += [answer.text.strip() for answer in answers]
    made = {key: np.array(found[key]) for key in keys}
    made |= {f"base {question}": np.array(found[question]) for question in questions}
    return made | {"question": np.array(questions[0])}


def _by_field(field: str, data: Path, cache: Path) -> dict[str, np.ndarray]:
    from training.teaching.fielded import field_ward

    question = {"contrast": CONTRAST, "projection": PROJECTION}[field]
    return field_ward(field, question, data, cache)


WARDS: dict[str, Callable[[Path, Path], dict[str, np.ndarray]]] = {
    "contrast": partial(_by_model, contrast),
    "projection": partial(_by_model, projection),
    "house-style": partial(_by_model, house_style),
    "contrast-field": partial(_by_field, "contrast"),
    "projection-field": partial(_by_field, "projection"),
}


def divided(
    patients: Sequence[str], seed: int, share: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Return the row numbers of a random share of the patients, shuffled, and those of all others."""
    chance = np.random.default_rng(seed)
    names = chance.permutation(sorted(set(patients)))
    chosen = set(names[: round(share * len(names))].tolist())
    inside = np.array([each in chosen for each in patients])
    return chance.permutation(np.flatnonzero(inside)), np.flatnonzero(~inside)


def _figure(kit: Kit, row: dict) -> Example:
    image = kit.root / row["image"]
    return figure(row["case_id"], image, row["caption"], metadata_answers(row), row["split"])
