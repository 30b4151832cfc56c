"""Loaders of question answering sets: VQA-RAD, SLAKE and VQA-Med 2019, in their published layouts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from radfound.datasets.example import Asked, Example, Turn, gather
from radfound.datasets.tables import (
    check_split,
    existing,
    image_of,
    read_fields,
    read_json_rows,
    text_of,
)

SPLITS = ("train", "validation", "test")
VQA_RAD_REGIONS = {"head": "head", "chest": "thorax", "abdomen": "abdomen", "abd": "abdomen"}
SLAKE_MODALITIES = {"mri": "MRI", "ct": "CT", "x-ray": "X-ray"}
SLAKE_REGIONS = {"brain": "head", "lung": "thorax", "chest": "thorax", "abdomen": "abdomen"}


def validation_question(name: str) -> bool:
    """Return whether a question of VQA-RAD's train split belongs to the tenth used for validation.

    VQA-RAD has no validation split. The rule is `int(sha256(name), 16) % 10 == 0`.
    """
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 == 0


def read_vqa_rad(root: str | Path, split: str = "train") -> Iterator[Example]:
    """VQA-RAD (Lau et al. 2018, osf.io/89kps), one example per image.

    The official split is by question: rows whose phrase type begins with "test" are the test split, and most
    of their images are in the train split too. Validation is a tenth of the train split, selected by
    `qid_linked_id`, so that a question and its paraphrase stay together. Training and validation exclude
    questions that a later split repeats verbatim about the same image.

    Parameters
    ----------
    root : path
        Folder with `VQA_RAD Dataset Public.json` and `VQA_RAD Image Folder/`.
    split : {"train", "validation", "test"}
    """
    check_split(split, SPLITS, "VQA-RAD")
    table = Path(root) / "VQA_RAD Dataset Public.json"
    images = existing(Path(root) / "VQA_RAD Image Folder")
    rows = list(read_json_rows(table))
    later = SPLITS[SPLITS.index(split) + 1 :]
    asked_later = {
        (row.get("image_name"), _normal(wording))
        for place, row in rows
        if _vqa_rad_split(row, place) in later
        for wording in _wordings(row, place)
    }
    asked = []
    for place, row in rows:
        if _vqa_rad_split(row, place) != split:
            continue
        name = text_of(row, "image_name", place)
        wordings = _wordings(row, place)[: None if split == "train" else 1]
        wordings = tuple(w for w in wordings if (name, _normal(w)) not in asked_later)
        if wordings:
            turn = Turn(
                "vqa",
                wordings,
                text_of(row, "answer", place),
                _kind(row.get("answer_type")),
                f"vqarad-{text_of(row, 'qid', place)}",
            )
            region = VQA_RAD_REGIONS.get(str(row.get("image_organ")).lower())
            labels = {"region": region} if region else {}
            asked.append(Asked(image_of(images / name, place), Path(name).stem, turn, labels))
    yield from gather(asked, "VQA-RAD", split, footer=True)


def _vqa_rad_split(row: dict[str, Any], place: str) -> str:
    if text_of(row, "phrase_type", place).startswith("test"):
        return "test"
    family = row.get("qid_linked_id") or row.get("qid")
    return "validation" if validation_question(str(family)) else "train"


def _wordings(row: dict[str, Any], place: str) -> tuple[str, ...]:
    """Return the question, then its other wordings in the row."""
    others = (row.get(name) for name in ("question_rephrase", "question_frame"))
    given = (str(other).strip() for other in others if other)
    first = text_of(row, "question", place)
    return (first, *(other for other in given if other not in ("", "NULL", first)))


def _normal(question: str) -> str:
    return " ".join(question.lower().split())


def _kind(answer_type: object) -> str:
    """Return "closed", "open" or "" for an answer type such as CLOSED or OPEN."""
    kind = str(answer_type or "").strip().lower()
    return kind if kind in ("closed", "open") else ""


def read_slake(root: str | Path, split: str = "train", language: str = "en") -> Iterator[Example]:
    """SLAKE (Liu et al. 2021), one example per image; the official split, by image.

    Parameters
    ----------
    root : path
        Folder with `train.json`, `validation.json` (or `validate.json`), `test.json` and `imgs/`.
    split : {"train", "validation", "test"}
    language : {"en", "zh"}
        Language of the questions.
    """
    check_split(split, SPLITS, "SLAKE")
    folder = Path(root)
    names = ("validation", "validate") if split == "validation" else (split,)
    table = existing(*(folder / f"{name}.json" for name in names))
    asked = []
    for place, row in read_json_rows(table):
        if text_of(row, "q_lang", place) != language:
            continue
        name = text_of(row, "img_name", place)
        turn = Turn(
            "vqa",
            (text_of(row, "question", place),),
            text_of(row, "answer", place),
            _kind(row.get("answer_type")),
            f"slake-{text_of(row, 'qid', place)}",
        )
        modality = SLAKE_MODALITIES.get(str(row.get("modality")).lower())
        region = SLAKE_REGIONS.get(re.split(r"[_ ]", str(row.get("location")).lower())[0])
        labels = {n: v for n, v in (("modality", modality), ("region", region)) if v}
        image = image_of(folder / "imgs" / name, place)
        asked.append(Asked(image, name.split("/")[0], turn, labels))
    yield from gather(asked, "SLAKE", split)


VQA_MED_FILES = {
    "train": ("ImageClef-2019-VQA-Med-Training", "All_QA_Pairs_train.txt", "Train_images"),
    "validation": ("ImageClef-2019-VQA-Med-Validation", "All_QA_Pairs_val.txt", "Val_images"),
    "test": (
        "VQAMed2019Test",
        "VQAMed2019_Test_Questions_w_Ref_Answers.txt",
        "VQAMed2019_Test_Images",
    ),
}


def read_vqa_med_2019(root: str | Path, split: str = "train") -> Iterator[Example]:
    """VQA-Med 2019 (Ben Abacha et al. 2019), one example per image; the official split, by image.

    A test row may hold several correct answers, separated by "#"; the first is used. Optional words in
    brackets are kept without the brackets.

    Parameters
    ----------
    root : path
        Folder with the three unpacked archives.
    split : {"train", "validation", "test"}
    """
    check_split(split, SPLITS, "VQA-Med 2019")
    archive, table, images = VQA_MED_FILES[split]
    folder = existing(Path(root) / archive)
    asked = []
    rows = read_fields(folder / table, "|", 4 if split == "test" else 3)
    for number, (place, fields) in enumerate(rows, 1):
        name, question, answer = fields[0], fields[-2], fields[-1]
        if split == "test":
            answer = " ".join(re.sub(r"[()]", " ", answer.split("#")[0]).split())
        turn = Turn(
            "vqa",
            (" ".join(question.split()),),
            answer,
            "closed" if answer in ("yes", "no") else "open",
            f"vqamed19-{split}-{number}",
        )
        asked.append(Asked(image_of(folder / images / f"{name}.jpg", place), name, turn))
    yield from gather(asked, "VQA-Med-2019", split, footer=True)
