"""Studies made of several images, and earlier studies of the same patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from radfound.exceptions import StudyAmbiguousError
from radfound.reading.files import is_ignored

from ..studies.datastore import Parts


def joined(parts: Sequence[Parts]) -> Parts:
    """Return several images as one."""
    rules = dict.fromkeys(part.rule for part in parts if part.rule)
    return Parts(
        tuple(path for part in parts for path in part.paths),
        tuple(uid for part in parts for uid in part.series),
        "; ".join(rules) or None,
    )


def check_same_patient(current: Sequence[Path], prior: Sequence[Path]) -> None:
    """Raise StudyAmbiguousError if the headers name two patients; files without a patient pass."""
    patients = {_patient_of(path) for path in (*current, *prior)} - {""}
    if len(patients) > 1:
        raise StudyAmbiguousError(
            "prior: a study of another patient; expected an earlier study of the same one"
        )


def _patient_of(path: Path) -> str:
    """Return the patient ID of a DICOM file or of the first one in a folder; empty without one."""
    import pydicom

    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        path = next((file for file in files if not is_ignored(file.name)), path)
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
    except Exception:  # not DICOM; pydicom passes on any error of its parsers
        return ""
    return str(header.get("PatientID") or "")
