"""The labelled pictures of the data kit, with the fields and findings that each one states."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radfound.datasets import Kit
from radfound.datasets.example import Example
from radfound.datasets.metadata import metadata_answers

_SPLITS = {"val": "validation"}
_WEIGHTING = {
    "MR - T1W - noncontrast": "T1",
    "MR - T1W w/Gadolinium": "T1",
    "MR - T1W w/Gd (fat suppressed)": "T1",
    "MR - T2 weighted": "T2",
    "MR - FLAIR": "FLAIR",
    "MR - DWI Diffusion Weighted": "DWI",
}
_CONTRAST = {
    "CT w/contrast (IV)": "yes",
    "CT - GI & IV Contrast": "yes",
    "CTA - CT Angiography": "yes",
    "CT - noncontrast": "no",
    "CT - GI Contrast": "no",
}
_LOCATIONS = frozenset(
    (
        "Brain and Neuro", "Musculoskeletal", "Chest, Pulmonary", "Gastrointestinal", "Genitourinary", "Spine",
        "Head and Neck", "Generalized", "Vascular", "Cardiovascular", "Eye and Orbit", "Abdomen", "Nerve, central",
    )
)  # fmt: skip
_NOT_IMAGING = frozenset(("Photograph", "Gross Pathology", "Drawing"))
_REGIONS = {"chest": "thorax", "head": "head", "abdomen": "abdomen", "breast": "breast"}
_MODALITIES = {
    "CT": "CT", "MR": "MRI", "DX": "X-ray", "CR": "X-ray", "MG": "mammography", "US": "ultrasound",
}  # fmt: skip
# Pictures without a known patient are grouped as the findings' README divides them.
_BLOCKS = {"busi": 3, "brain_tumor_mri": 40, "sarscov2_ct": 25, "kidney_ct": 60}


@dataclass(frozen=True)
class Sample:
    """One picture with what is known of it.

    Parameters
    ----------
    file : Path
    set : str
        Source of the picture, such as "medpix" or "nih_cxr".
    patient : str
        Patient or case; a block of file numbers where neither is known.
    split : {"train", "validation", "test"}
    labels : dict
        Field to class, for the fields that the source states.
    findings : tuple of str, or None
        Findings named by the source; None if the source names none for any picture.
    age : float or None
        In years.
    sex : str
        "F", "M" or "".
    footer : bool
        Whether the lowest 6 % of the picture are cropped.
    """

    file: Path
    set: str
    patient: str
    split: str
    labels: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[str, ...] | None = None
    age: float | None = None
    sex: str = ""
    footer: bool = False

    def example(self) -> Example:
        """Return the picture as an example, whose `read` loads it."""
        return Example(self.patient, (self.file,), (), footer=self.footer)


def kit_samples(root: str | Path) -> list[Sample]:
    """Return the labelled pictures of the kit, volumes excepted."""
    kit = Kit(root)
    return [*_medpix(kit), *_radiographs(kit), *_mammograms(kit), *_findings(kit)]


def _medpix(kit: Kit) -> Iterator[Sample]:
    for row in kit.rows("captions/medpix_captions.jsonl"):
        labels = metadata_answers(row)
        detail, plane = row["modality_detail"], row["plane"]
        if detail in _WEIGHTING:
            labels["weighting"] = _WEIGHTING[detail]
        if detail in _CONTRAST:
            labels["contrast"] = _CONTRAST[detail]
        if row["location"] in _LOCATIONS:
            labels["location"] = row["location"].lower()
        if plane in _NOT_IMAGING and row["split"] == "train":
            continue  # filed as CT or MR, but not such a picture
        yield Sample(
            kit.root / row["image"], "medpix", row["case_id"], row["split"], labels, footer=True
        )


def _radiographs(kit: Kit) -> Iterator[Sample]:
    for name in (
        "captions/hannover_cxr_images_only",
        "cxr_labels/actualmed",
        "cxr_labels/figure1",
        "cxr_labels/nih",
    ):
        for row in kit.rows(f"{name}.jsonl"):
            view = row.get("view") or row.get("projection")
            yield Sample(
                kit.root / row["image"],
                name.rpartition("/")[2].partition("_")[0],
                str(row["patient_id"]),
                row["split"],
                _radiograph_labels(view),
            )
    for row in kit.rows("reports/covid_chestxray.jsonl"):
        for image, view in zip(row["images"], row["views"], strict=True):
            yield Sample(
                kit.root / image,
                "covid_notes",
                f"covidcxr-{row['patient_id']}",
                row["split"],
                _radiograph_labels(view),
            )


def _radiograph_labels(view: str | None) -> dict[str, str]:
    labels = {"modality": "X-ray", "region": "thorax"}
    projection = (view or "").upper().split(" ")[0]
    if projection in ("PA", "AP"):
        labels["projection"] = projection
    elif projection in ("L", "LATERAL"):
        labels["projection"] = "lateral"
    return labels


def _mammograms(kit: Kit) -> Iterator[Sample]:
    for row in kit.rows("mammo/mias_lesion_crops.jsonl"):
        yield Sample(
            kit.root / row["image"],
            "mias_crops",
            row["patient_id"],
            row["split"],
            {"modality": "mammography", "region": "breast", "density": row["density"]},
        )
    for row in kit.rows("mammo/exams.jsonl"):
        for view in row["images"]:
            labels = {
                "modality": "mammography",
                "region": "breast",
                "side": {"L": "left", "R": "right"}[view["laterality"]],
            }
            # The only exam with four views is kept for the test.
            yield Sample(kit.root / view["image"], "gmic", row["id"], "test", labels)


def _findings(kit: Kit) -> Iterator[Sample]:
    for row in kit.rows("findings/findings.jsonl"):
        labels = {"modality": _MODALITIES[row["modality"]], "region": _REGIONS[row["region"]]}
        view = row["view"] or ""
        if row["modality"] == "DX" and row["set"] != "kermany_pediatric_cxr":
            labels |= _radiograph_labels(view)
        elif view.lower() in ("axial", "coronal"):
            labels["plane"] = view.lower()
        if row["modality"] == "MG":
            labels |= {
                "side": {"L": "left", "R": "right"}[row["laterality"]],
                "density": row["density"],
            }
        yield Sample(
            kit.root / "findings" / row["file"],
            row["set"],
            _patient(row),
            _SPLITS.get(row["split"], row["split"]),
            labels,
            tuple(label.lower() for label in row["labels"]),
            float(row["age"]) if str(row.get("age") or "").isdigit() else None,
            (row.get("sex") or "").upper().replace("W", "F")[:1],
        )


def _patient(row: Mapping[str, Any]) -> str:
    if row["patient"]:
        return str(row["patient"])
    stem = Path(row["file"]).stem
    found = re.match(r"(.*?)(\d+)\D*$", stem)
    if not found:
        return f"{row['set']}-{stem}"
    return f"{row['set']}-{found[1]}{int(found[2]) // _BLOCKS[row['set']]}"
