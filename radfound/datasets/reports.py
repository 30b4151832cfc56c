"""Loaders of report sets: Open-i, R2Gen's annotation.json, MIMIC-CXR and CT-RATE, as published."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from radfound.datasets.example import Example, Turn
from radfound.datasets.tables import (
    ADVICE,
    check_split,
    existing,
    hashed_split,
    image_of,
    opened_text,
    read_csv,
    read_json,
    text_of,
)
from radfound.datasets.wording import report_text, tidy
from radfound.exceptions import DatasetError

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
CHEST_XRAY = {"modality": "X-ray", "region": "thorax"}
CHEST_CT = {"modality": "CT", "plane": "axial", "region": "thorax"}


def _report(
    key: str,
    files: Sequence[Path],
    sections: tuple[str, str],
    labels: dict[str, str],
    source: str,
    split: str,
    study: str,
) -> Example | None:
    """Return a study with its findings and impression, or None if the report has neither."""
    answer = report_text(tidy(sections[0]), tidy(sections[1]))
    if not answer or not files:
        return None
    turn = Turn("report", (), answer, id=study)
    return Example(key, tuple(files), (turn,), dict(labels), source=source, split=split)


def read_openi(root: str | Path, split: str = "train") -> Iterator[Example]:
    """Chest radiographs of Indiana University on Open-i (Demner-Fushman et al. 2016), one per study.

    The publisher gives no split; each report belongs to one patient, and `hashed_split` of its id is used. For
    the usual split of papers on report generation, load R2Gen's file with `read_r2gen`.

    Parameters
    ----------
    root : path
        Folder with `ecgen-radiology/*.xml` (NLMCXR_reports.tgz), and with the images of
        NLMCXR_png.tgz in it or in `NLMCXR_png/` or `images/`.
    split : {"train", "validation", "test"}
    """
    check_split(split, SPLITS, "Open-i")
    folder = Path(root)
    reports = existing(folder / "ecgen-radiology")
    paths = sorted(reports.glob("*.xml"))
    if not paths:
        raise DatasetError(f"{reports}: no XML in it; unpack NLMCXR_reports.tgz; {ADVICE}")
    images = next((f for n in ("NLMCXR_png", "images") if (f := folder / n).is_dir()), folder)
    for path in paths:
        try:
            tree = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise DatasetError(f"{path}: not XML ({error}); unpack the archive again") from error
        named = tree.find("uId")
        study = (named.get("id") if named is not None else None) or path.stem
        if hashed_split(study) != split:
            continue
        sections_by_label = {
            str(part.get("Label")).upper(): "".join(part.itertext())
            for part in tree.iter("AbstractText")
        }
        files = [
            image_of(images / f"{part.get('id')}.png", str(path))
            for part in tree.iter("parentImage")
            if part.get("id")
        ]
        sections = (
            sections_by_label.get("FINDINGS", ""),
            sections_by_label.get("IMPRESSION", ""),
        )
        example = _report(study, files, sections, CHEST_XRAY, "Open-i", split, study)
        if example:
            yield example


def read_r2gen(root: str | Path, split: str = "train") -> Iterator[Example]:
    """R2Gen's copies of IU X-ray and MIMIC-CXR (Chen et al. 2020); their split.

    Rows with a subject id are MIMIC-CXR; others are IU X-ray. Reports of IU X-ray hold the findings only;
    reports of MIMIC-CXR are full texts, from which findings and impression are extracted.

    Parameters
    ----------
    root : path
        Folder with `annotation.json` and `images/`.
    split : {"train", "validation", "test"}
    """
    check_split(split, SPLITS, "R2Gen")
    table = Path(root) / "annotation.json"
    splits = read_json(table)
    rows = splits.get("val" if split == "validation" else split) if isinstance(splits, dict) else 0
    if not isinstance(rows, list):
        raise DatasetError(f"{table}: no list of rows under train, val and test; {ADVICE}")
    for number, row in enumerate(rows, 1):
        place = f"{table}, {split} row {number}"
        text = text_of(row, "report", place)
        paths = row.get("image_path")
        if not isinstance(paths, list):
            raise DatasetError(f"{place}: image_path is {paths!r}; expected a list of file names")
        files = [image_of(Path(root) / "images" / name, place) for name in paths]
        if "subject_id" in row:
            key, source = f"p{text_of(row, 'subject_id', place)}", "MIMIC-CXR"
            sections = report_sections(text)
            if not any(sections):  # some copies of the file hold the findings only
                sections = (text, "")
        else:
            key, source = text_of(row, "id", place).split("_")[0], "IU X-ray"
            sections = (text, "")
        name = text_of(row, "id", place)
        example = _report(key, files, sections, CHEST_XRAY, source, split, name)
        if example:
            yield example


_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z /,&()-]{2,60}):", re.MULTILINE)
_RULE = re.compile(r"_{5,}\s*$|^\s*FINAL (?:REPORT|ADDENDUM)\s*$", re.MULTILINE)


def report_sections(text: str) -> tuple[str, str]:
    """Return findings and impression of a report whose sections begin with a heading in capitals.

    "CONCLUSION" counts as impression, "FINDINGS AND IMPRESSION" as findings. Repeated sections, as in a
    report on two examinations, are joined.
    """
    parts = _HEADING.split(_RULE.sub("", text))
    found: dict[str, list[str]] = {"findings": [], "impression": []}
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        if "FINDING" in heading:
            found["findings"].append(body.strip())
        elif heading in ("IMPRESSION", "IMPRESSIONS", "CONCLUSION", "CONCLUSIONS"):
            found["impression"].append(body.strip())
    return "\n".join(found["findings"]), "\n".join(found["impression"])


def read_mimic_cxr(root: str | Path, split: str = "train") -> Iterator[Example]:
    """MIMIC-CXR (Johnson et al. 2019), one example per study; the official split, by patient.

    Studies whose report has no heading for findings or impression are skipped.

    Parameters
    ----------
    root : path
        Folder with `mimic-cxr-2.0.0-split.csv` (or `.csv.gz`) and
        `files/p10/p10000032/s50414267/*.jpg` (or `.dcm`); the reports `files/p10/p10000032/s50414267.txt`
        are there too, or in the unpacked `mimic-cxr-reports/files/`.
    split : {"train", "validation", "test"}
    """
    check_split(split, SPLITS, "MIMIC-CXR")
    folder = Path(root)
    name = "mimic-cxr-2.0.0-split.csv"
    table = existing(folder / name, folder / f"{name}.gz")
    images = existing(folder / "files")
    texts = folder / "mimic-cxr-reports" / "files"
    texts = texts if texts.is_dir() else images
    studies: dict[tuple[str, str], list[Path]] = {}
    wanted = "validate" if split == "validation" else split
    for place, row in read_csv(table, ("dicom_id", "study_id", "subject_id", "split")):
        if row["split"] == wanted:
            patient, study = f"p{row['subject_id']}", f"s{row['study_id']}"
            stem = images / patient[:3] / patient / study / row["dicom_id"]
            image = stem.with_suffix(".jpg")
            image = image if image.exists() else image_of(stem.with_suffix(".dcm"), place)
            studies.setdefault((patient, study), []).append(image)
    skipped = 0
    for (patient, study), files in studies.items():
        with opened_text(texts / patient[:3] / patient / f"{study}.txt") as file:
            sections = report_sections(file.read())
        example = _report(patient, files, sections, CHEST_XRAY, "MIMIC-CXR", split, study)
        if example:
            yield example
        else:
            skipped += 1
    if skipped:
        logger.info("MIMIC-CXR: skipped %d %s reports without sections", skipped, split)


CT_RATE_TABLES = {
    "train": ("train_reports.csv", "train_fixed"),
    "validation": ("validation_reports.csv", "valid_fixed"),
}


def read_ct_rate(root: str | Path, split: str = "train") -> Iterator[Example]:
    """CT-RATE (Hamamci et al. 2024): non-contrast chest CT, one example per reconstruction.

    The official split, by patient; there is no test split, and papers report results on validation. Volumes
    come from the `_fixed` folders: those of the first release need slope and intercept of a separate table
    for Hounsfield units.

    Parameters
    ----------
    root : path
        The set's folder `dataset`, with `radiology_text_reports/` and
        `train_fixed/train_1/train_1_a/train_1_a_1.nii.gz`.
    split : {"train", "validation"}
    """
    check_split(split, tuple(CT_RATE_TABLES), "CT-RATE")
    table, volumes = CT_RATE_TABLES[split]
    folder = existing(Path(root) / volumes)
    columns = ("VolumeName", "Findings_EN", "Impressions_EN")
    rows = read_csv(Path(root) / "radiology_text_reports" / table, columns)
    for place, row in rows:
        name = row["VolumeName"]
        parts = name.removesuffix(".nii.gz").split("_")
        if len(parts) != 4:
            raise DatasetError(
                f"{place}: volume {name!r}; expected a name such as train_1_a_1.nii.gz; check the file"
            )
        patient, study = "_".join(parts[:2]), "_".join(parts[:3])
        volume = image_of(folder / patient / study / name, place)
        found, concluded = (
            "" if text.strip().lower() in ("not given.", "nan") else text
            for text in (row["Findings_EN"], row["Impressions_EN"])
        )
        example = _report(patient, [volume], (found, concluded), CHEST_CT, "CT-RATE", split, name)
        if example:
            yield example
