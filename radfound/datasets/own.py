"""Loader of your own studies: a JSONL file beside the images, one study per line.

    {"patient": "p01", "images": ["p01/frontal.png", "p01/lateral.png"], "modality": "X-ray",
     "region": "thorax", "findings": "Small left effusion.", "impression": "Effusion.",
     "questions": [{"question": "Is there an effusion?", "answer": "Yes", "kind": "closed"}]}

`docs/data.md` describes every field.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from radfound.datasets.example import KINDS, Example, Turn
from radfound.datasets.tables import (
    check_split,
    hashed_split,
    image_of,
    read_json_lines,
    text_of,
)
from radfound.datasets.wording import report_text, tidy
from radfound.exceptions import DatasetError

SPLITS = ("train", "validation", "test")
LABELS = ("modality", "plane", "region")
FIELDS = (
    "patient",
    "images",
    "id",
    "split",
    "source",
    *LABELS,
    "caption",
    "findings",
    "impression",
    "questions",
)


def read_jsonl(path: str | Path, split: str = "train") -> Iterator[Example]:
    """Load your own studies, split by patient.

    The field `split` of the rows is used; without this field, `hashed_split` of the patient.

    Parameters
    ----------
    path : path
        The JSONL file; image paths are relative to its folder.
    split : {"train", "validation", "test"}

    Raises
    ------
    DatasetError
        If a field is unknown, missing or of the wrong type, an image is missing, a patient is in two
        splits, or only some rows have a split. The message names the line.
    """
    file = Path(path)
    check_split(split, SPLITS, file.name)
    rows = list(read_json_lines(file))
    if not rows:
        raise DatasetError(f"{file}: empty; expected one study a line as in docs/data.md")
    of_patient: dict[str, str] = {}
    for place, row in rows:
        if ("split" in row) != ("split" in rows[0][1]):
            raise DatasetError(
                f"{place}: some rows have a split and some none; give all or none one"
            )
        patient = text_of(row, "patient", place)
        own = text_of(row, "split", place) if "split" in row else hashed_split(patient)
        if own not in SPLITS:
            raise DatasetError(f"{place}: split is {own!r}; expected one of {', '.join(SPLITS)}")
        if of_patient.setdefault(patient, own) != own:
            raise DatasetError(
                f"{place}: patient {patient!r} is in {own} and, before, in {of_patient[patient]}; a patient "
                "belongs to one split"
            )
    for place, row in rows:
        example = _example(file, row, place, of_patient[text_of(row, "patient", place)])
        if example.split == split:
            yield example


def _example(file: Path, row: dict[str, Any], place: str, split: str) -> Example:
    for name in row:
        if name not in FIELDS:
            near = difflib.get_close_matches(str(name), FIELDS, 1)
            advice = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(FIELDS)}"
            raise DatasetError(f"{place}: unknown field {name!r}; {advice}")
    images = row.get("images")
    if not isinstance(images, list) or not images:
        raise DatasetError(f"{place}: images is {images!r}; expected a list of one path or more")
    caption, findings, impression = (
        tidy(text_of(row, name, place)) if row.get(name) else ""
        for name in ("caption", "findings", "impression")
    )
    name = str(row.get("id") or "")
    turns = [*_questions(row.get("questions") or [], place)]
    if caption:
        turns.append(Turn("caption", (), caption, id=name))
    if findings or impression:
        turns.append(Turn("report", (), report_text(findings, impression), id=name))
    return Example(
        text_of(row, "patient", place),
        tuple(image_of(file.parent / str(image), place) for image in images),
        tuple(turns),
        {name: text_of(row, name, place) for name in LABELS if row.get(name)},
        caption,
        str(row.get("source") or file.stem),
        split,
    )


def _questions(asked: Any, place: str) -> Iterator[Turn]:
    if not isinstance(asked, list) or not all(isinstance(row, dict) for row in asked):
        raise DatasetError(
            f'{place}: questions is {asked!r}; expected a list of {{"question": ..., "answer": ...}}'
        )
    for number, row in enumerate(asked, 1):
        at = f"{place}, question {number}"
        wordings = row.get("question")
        wordings = wordings if isinstance(wordings, list) else [text_of(row, "question", at)]
        kind = str(row.get("kind") or "")
        if kind not in KINDS:
            raise DatasetError(f"{at}: kind is {kind!r}; expected closed, open, or no kind")
        answer = text_of(row, "answer", at)
        yield Turn("vqa", tuple(map(str, wordings)), answer, kind, str(row.get("id") or ""))
