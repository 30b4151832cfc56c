"""MedPix 2.0 (Siragusa et al. 2025): teaching figures with captions, and cases with findings.

Layout: https://github.com/CHILab1/MedPix-2.0, `splitted_dataset/README.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from radfound.datasets.example import Example, Turn
from radfound.datasets.metadata import METADATA_QUESTIONS, metadata_answers
from radfound.datasets.tables import check_split, existing, image_of, read_json_lines, text_of
from radfound.datasets.wording import (
    figure_caption,
    findings_of_figures,
    report_text,
    tidy,
    whole_sentences,
)

SOURCE = "MedPix-2.0"
CAPTION_LIMIT, FINDINGS_LIMIT, IMPRESSION_LIMIT = (
    180,
    170,
    80,
)  # characters; about 40, 40 and 20 tokens


def metadata_turns(labels: dict[str, str]) -> tuple[Turn, ...]:
    """Return the questions about modality, plane and region."""
    return tuple(Turn("vqa", METADATA_QUESTIONS[name], answer) for name, answer in labels.items())


def figure(
    case: str, image: Path, caption: str | None, labels: dict[str, str], split: str
) -> Example:
    """Return a figure with its metadata questions and, if it is informative, its caption."""
    text = figure_caption(caption, CAPTION_LIMIT)
    turns = metadata_turns(labels)
    if text:
        turns += (Turn("caption", (), text),)
    return Example(case, (image,), turns, labels, text, SOURCE, split, footer=True)


def case_report(
    case: str, images: list[Path], findings: str | None, impression: str | None, split: str
) -> Example | None:
    """Return a case as a report on its figures, or None if the texts are too short."""
    found = findings_of_figures(findings, FINDINGS_LIMIT)
    concluded = whole_sentences(impression or "", IMPRESSION_LIMIT)
    if len(found) < 20 or not concluded or not images:
        return None
    answer = report_text(found, concluded)
    return Example(
        case, tuple(images), (Turn("report", (), answer),), source=SOURCE, split=split, footer=True
    )


def read_medpix(root: str | Path, split: str = "train", max_images: int = 6) -> Iterator[Example]:
    """Load figures, then cases; the publisher's split, by case.

    Parameters
    ----------
    root : path
        Folder with `images/` and `splitted_dataset/`.
    split : {"train", "validation", "test"}
    max_images : int
        Most figures of a case in one report.
    """
    check_split(split, ("train", "validation", "test"), SOURCE)
    folder = existing(Path(root) / "splitted_dataset")
    images = existing(Path(root) / "images")
    for file in _parts(folder, "descriptions", split):
        for place, row in read_json_lines(file):
            described: dict[str, Any] = row.get("Description") or {}
            labels = metadata_answers(
                {
                    "modality": row.get("Type"),
                    "plane": described.get("Plane"),
                    "organ": row.get("Location Category"),
                }
            )
            image = _image(images, text_of(row, "image", place), place)
            yield figure(
                text_of(row, "U_id", place), image, described.get("Caption"), labels, split
            )
    for file in _parts(folder, "data", split):
        for place, row in read_json_lines(file):
            names = [*(row.get("TAC") or ()), *(row.get("MRI") or ())][:max_images]
            fields: dict[str, Any] = row.get("Case") or {}
            example = case_report(
                text_of(row, "U_id", place),
                [_image(images, name, place) for name in names],
                fields.get("Findings"),
                fields.get("Case Diagnosis") or fields.get("Title"),
                split,
            )
            if example:
                yield example


def _parts(folder: Path, name: str, split: str) -> list[Path]:
    """Return the files of a split; the publisher also ships the training split in two halves."""
    if split != "train":
        return [existing(folder / f"{name}_{'dev' if split == 'validation' else split}.jsonl")]
    whole = folder / f"{name}_train.jsonl"
    if whole.is_file():
        return [whole]
    halves = [folder / f"{name}_train_1.jsonl", folder / f"{name}_train_2.jsonl"]
    return [existing(half) for half in halves] if halves[0].is_file() else [existing(whole)]


def _image(images: Path, name: str, place: str) -> Path:
    name = tidy(name)
    return image_of(images / (name if name.endswith(".png") else f"{name}.png"), place)
