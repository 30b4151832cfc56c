"""Loader of this project's data kit.

`Kit` loads the folder that the README of the data kit describes: JSON lines, images and volumes. Nothing is
downloaded, and this package holds no data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from radfound.datasets.example import Asked, Example, Turn, gather
from radfound.datasets.medpix import (
    CAPTION_LIMIT,
    IMPRESSION_LIMIT,
    case_report,
    figure,
    metadata_turns,
)
from radfound.datasets.metadata import metadata_answers
from radfound.datasets.questions import VQA_RAD_REGIONS, validation_question
from radfound.datasets.tables import read_json_lines
from radfound.datasets.wording import radiographic_findings, report_text, whole_sentences
from radfound.exceptions import DatasetError
from radfound.reading import read_study
from radfound.study.region import Plane, PointAndNormal
from radfound.study.slices import slicing_axis
from radfound.study.study import StudyImage


def synpic(path: str) -> str:
    """Return MedPix's image number, which identifies images shared by VQA-RAD and VQA-Med."""
    found = re.search(r"synpic\d+", path)
    return found.group() if found else path


def _vqa_rad_split(row: dict[str, Any]) -> str:
    is_validation = row["split"] == "train" and validation_question(row["id"])
    return "validation" if is_validation else row["split"]


def _asked(row: dict[str, Any]) -> tuple[str, str]:
    return row["image"], " ".join(row["question"].lower().split())


def _image_labels(row: dict[str, Any]) -> dict[str, str]:
    """Return the class labels of an image in a row of VQA-RAD or VQA-Med."""
    if row["source"] != "VQA-RAD":
        return metadata_answers({"modality": row["modality"], "organ": row["organ"]})
    # VQA-RAD's modality was inferred by the kit and is often wrong; the organ comes from the publisher.
    region = VQA_RAD_REGIONS.get(row["organ"])
    return {"region": region} if region else {}


class Kit:
    """The data kit.

    Parameters
    ----------
    root : path
        The folder with `manifest.json`.

    Raises
    ------
    DatasetError
        If the folder holds no kit, or later if one of its files is missing.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not (self.root / "manifest.json").is_file():
            raise DatasetError(
                f"{self.root}: no manifest.json found, expected the folder of the data kit; give it with --data"
            )
        captions = self.rows("captions/medpix_captions.jsonl")
        self._held_out = {
            synpic(row["image"]): row["case_id"] for row in captions if row["split"] != "train"
        }

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a JSONL file of the kit.

        Parameters
        ----------
        name : str
            Path in the kit, such as "reports/medpix_cases.jsonl".
        """
        return [row for _, row in read_json_lines(self.root / name)]

    def vqa(self, split: str = "train", official: bool = False) -> Iterator[Example]:
        """VQA-RAD and VQA-Med 2019, one example per image.

        VQA-RAD has an official train and test split, by question; "validation" is the tenth of its train
        split that `validation_question` selects. Training and validation exclude images that are also figures
        of MedPix's validation and test cases, and questions that a later split repeats verbatim about the
        same image.

        Parameters
        ----------
        split : {"train", "validation", "test"}
        official : bool
            Use the publishers' splits: no validation split and no exclusions.
        """
        rows = self.rows("vqa/vqa_rad.jsonl")
        if official:
            rows = [row for row in rows if row["split"] == split]
        else:
            later = {"train": ("validation", "test"), "validation": ("test",)}.get(split, ())
            asked_later = {_asked(row) for row in rows if _vqa_rad_split(row) in later}
            rows = [
                row
                for row in rows
                if _vqa_rad_split(row) == split and _asked(row) not in asked_later
            ]
        rows += [
            row for row in self.rows("vqa/vqa_med_2019_on_medpix.jsonl") if row["split"] == split
        ]
        for source in ("VQA-RAD", "VQA-Med-2019"):
            asked = (
                self._asked_about(row)
                for row in rows
                if row["source"] == source
                and (official or split == "test" or synpic(row["image"]) not in self._held_out)
            )
            yield from gather(asked, source, split, footer=True)

    def held_out_vqa(self) -> Iterator[Example]:
        """Questions about figures of MedPix's validation and test cases, which `vqa` leaves out of training.

        Those of VQA-RAD's test split are left out here. The key of an example is the case.
        """
        rows = [
            row
            for name in ("vqa/vqa_rad.jsonl", "vqa/vqa_med_2019_on_medpix.jsonl")
            for row in self.rows(name)
            if row["split"] != "test" and synpic(row["image"]) in self._held_out
        ]
        for source in ("VQA-RAD", "VQA-Med-2019"):
            asked = (
                replace(self._asked_about(row), key=self._held_out[synpic(row["image"])])
                for row in rows
                if row["source"] == source
            )
            yield from gather(asked, source, "held-out", footer=True)

    def _asked_about(self, row: dict[str, Any]) -> Asked:
        answer = str(row["answer"]).strip()
        turn = Turn("vqa", (row["question"].strip(),), answer, row["answer_type"], row["id"])
        image = self.root / row["image"]
        return Asked(image, synpic(row["image"]), turn, _image_labels(row))

    def medpix_figures(self, split: str = "train") -> Iterator[Example]:
        """Single CT and MR figures with caption, modality, plane and region."""
        for row in self.rows("captions/medpix_captions.jsonl"):
            if row["split"] == split:
                image = self.root / row["image"]
                yield figure(row["case_id"], image, row["caption"], metadata_answers(row), split)

    def medpix_cases(self, split: str = "train", max_images: int = 6) -> Iterator[Example]:
        """Teaching cases with several figures, findings and impression: multi-image reports."""
        for row in self.rows("reports/medpix_cases.jsonl"):
            if row["split"] == split:
                images = [self.root / image for image in row["images"][:max_images]]
                case = row["id"].removeprefix("medpix-")
                example = case_report(case, images, row["findings"], row["impression"], split)
                if example:
                    yield example

    def radiographs(self, split: str = "train", every_nth_small: int = 3) -> Iterator[Example]:
        """Chest X-rays: modality, region, view, labels and clinical notes.

        NIH's images are only 64 pixels wide; one in `every_nth_small` is used.
        """
        labels = {"modality": "X-ray", "region": "thorax"}
        for row in self.rows("captions/hannover_cxr_images_only.jsonl"):
            if row["split"] == split:
                yield self._radiograph(row, labels, row.get("projection"), "")
        for name in ("actualmed", "figure1"):
            for row in self.rows(f"cxr_labels/{name}.jsonl"):
                if row["split"] == split:
                    yield self._radiograph(row, labels, row.get("view"), "")
        for row in self.rows("cxr_labels/nih.jsonl")[::every_nth_small]:
            if row["split"] == split:
                findings = (
                    "No finding."
                    if row["normal"]
                    else ", ".join(row["labels"]).replace("_", " ") + "."
                )
                yield self._radiograph(row, labels, row.get("view"), f"Chest X-ray. {findings}")
        for row in self.rows("reports/covid_chestxray.jsonl"):
            if row["split"] == split and row.get("findings"):
                yield self._clinical_note(row, labels, split)

    def _clinical_note(self, row: dict[str, Any], labels: dict[str, str], split: str) -> Example:
        """Return a chest X-ray with the radiographic findings of its clinical note, if any."""
        note = radiographic_findings(row["findings"], CAPTION_LIMIT)
        turns = metadata_turns(labels)
        if note:
            impression = whole_sentences(row.get("impression") or "", IMPRESSION_LIMIT)
            report = Turn("report", (), report_text(note, impression or "Not stated."))
            turns = (report, Turn("caption", (), note), *turns)
        files = tuple(self.root / image for image in row["images"])
        return Example(row["patient_id"], files, turns, labels, note, row["source"], split)

    def _radiograph(
        self, row: dict[str, Any], labels: dict[str, str], view: str | None, caption: str
    ) -> Example:
        turns = metadata_turns(labels)
        if view and view[:2].lower() in ("pa", "ap"):
            turns += (
                Turn(
                    "vqa",
                    ("Is this a PA or an AP film?", "Which projection is this?"),
                    view[:2].upper(),
                ),
            )
        if caption:
            turns += (Turn("caption", (), caption),)
        return Example(
            str(row["patient_id"]),
            (self.root / row["image"],),
            turns,
            labels,
            caption,
            row["source"],
            row["split"],
        )

    def mammograms(self, split: str = "train") -> Iterator[Example]:
        """MIAS lesion crops and the four-view mammography exam."""
        labels = {"modality": "mammography", "region": "breast"}
        for row in self.rows("mammo/mias_lesion_crops.jsonl"):
            if row["split"] == split:
                turns = (*metadata_turns(labels), Turn("caption", (), row["caption"]))
                yield Example(
                    row["patient_id"],
                    (self.root / row["image"],),
                    turns,
                    labels,
                    row["caption"],
                    row["source"],
                    split,
                )
        if split == "train":
            for row in self.rows("mammo/exams.jsonl"):
                files = tuple(self.root / view["image"] for view in row["images"])
                turns = (
                    *metadata_turns(labels),
                    Turn("caption", (), "Mammogram of both breasts in CC and MLO views."),
                )
                yield Example(row["id"], files, turns, labels, "", row["source"], split)

    def volumes(self, slices_per_plane: int = 8) -> Iterator[Example]:
        """CT and MR volumes: the whole volume, and single slices in the three patient planes."""
        for row in self.rows("volumes/volumes.jsonl"):
            path = self.root / row["file"]
            region = _volume_region(row["body_part"])
            if "DERIVED" in row.get("format", "") or region is None:
                continue
            modality = {"CT": "CT", "MR": "MRI"}[row["modality"]]
            study = read_study(path)
            own = ("sagittal", "coronal", "axial")[_nearest_axis(study.images[0])]
            labels = {"modality": modality, "plane": own, "region": region}
            caption = f"{modality}: {row['description'].split(',')[0]}."
            turns = (*metadata_turns(labels), Turn("caption", (), caption))
            yield Example(path.name, (path,), turns, labels, "", row["source"])
            for plane, place in _plane_places(study.images[0], slices_per_plane):
                single = {"modality": modality, "plane": plane, "region": region}
                yield Example(
                    path.name,
                    (path,),
                    metadata_turns(single),
                    single,
                    "",
                    row["source"],
                    region=place,
                )


def read_kit(root: str | Path, split: str = "train") -> Iterator[Example]:
    """Load all images of the kit except the volumes, which have no splits."""
    kit = Kit(root)
    for source in (kit.vqa, kit.medpix_figures, kit.medpix_cases, kit.radiographs, kit.mammograms):
        yield from source(split)


def read_kit_vqa_rad(root: str | Path, split: str = "train") -> Iterator[Example]:
    """Load VQA-RAD from the kit, in the publisher's split and without exclusions."""
    return (e for e in Kit(root).vqa(split, official=True) if e.source == "VQA-RAD")


def _volume_region(body_part: str) -> str | None:
    for word, region in (
        ("brain", "head"),
        ("head", "head"),
        ("abdomen", "abdomen"),
        ("breast", "breast"),
    ):
        if word in body_part:
            return region
    return None


def _nearest_axis(image: StudyImage) -> int:
    return int(np.argmax(np.abs(image.affine[:3, slicing_axis(image)])))


def _plane_places(image: StudyImage, count: int) -> Iterator[tuple[str, Plane]]:
    """Yield plane name and region for `count` slices in the middle half of each patient axis."""
    size = np.array(image.voxels.shape[::-1])
    corners = np.array([[(size[a] - 1) * ((n >> a) & 1) for a in range(3)] for n in range(8)])
    ras = corners @ image.affine[:3, :3].T + image.affine[:3, 3]
    low, high = ras.min(0), ras.max(0)
    thickness = image.spacing_mm.max()
    for axis, plane in enumerate(("sagittal", "coronal", "axial")):
        if thickness > 4 and axis != _nearest_axis(image):
            continue  # reformats across thick slices are not readable
        normal = np.eye(3)[axis]
        for share in np.linspace(0.25, 0.75, count):
            point = (low + high) / 2
            point[axis] = low[axis] + share * (high[axis] - low[axis])
            yield plane, Plane(PointAndNormal(tuple(point.tolist()), tuple(normal.tolist())))
