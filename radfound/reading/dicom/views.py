"""The view of radiographs, mammograms and scintigrams."""

from __future__ import annotations

from radfound.reading.dicom import nuclear as dicom_nuclear
from radfound.reading.dicom.elements import directions, element, values
from radfound.reading.dicom.types import Frame

_RADIOGRAPHS = {"CR", "DX"}
_LATERAL = {"LL", "RL", "LAT", "LATERAL", "LLAT", "RLAT", "LEFT LATERAL", "RIGHT LATERAL"}
# Views by their SNOMED CT codes and the older SNOMED RT codes.
# DICOM PS3.16, CID 4010 "DX View":
_RADIOGRAPHIC_CODES = {
    "399348003": "AP",
    "R-10206": "AP",
    "272479007": "PA",
    "R-40888": "PA",
    "R-10214": "PA",
    "399067008": "LATERAL",
    "R-102CD": "LATERAL",
    "399173006": "LATERAL",
    "R-10236": "LATERAL",
    "399198007": "LATERAL",
    "R-10232": "LATERAL",
    "399135007": "LAO",
    "R-10220": "LAO",
    "399356000": "RAO",
    "R-40985": "RAO",
    "399006002": "LPO",
    "R-10212": "LPO",
    "399038007": "RPO",
    "R-10210": "RPO",
    "399061009": "AXIAL",
    "R-10241": "AXIAL",
    "399110001": "TANGENTIAL",
    "R-102C2": "TANGENTIAL",
}
# DICOM PS3.16, CID 4014 "View for Mammography", with the abbreviations of the ACR:
_MAMMOGRAPHIC_CODES = {
    "399162004": "CC",
    "R-10242": "CC",
    "399368009": "MLO",
    "R-10226": "MLO",
    "399260004": "ML",
    "R-10224": "ML",
    "399352003": "LM",
    "R-10228": "LM",
    "399099002": "LMO",
    "R-10230": "LMO",
    "399196006": "FB",
    "R-10244": "FB",
    "399188001": "SIO",
    "R-102D0": "SIO",
    "441555000": "ISO",
    "R-40AAA": "ISO",
    "399192008": "XCCL",
    "R-1024A": "XCCL",
    "399101009": "XCCM",
    "R-1024B": "XCCM",
    "127457009": "SPECIMEN",
    "G-8310": "SPECIMEN",
}
# Modifiers that change the view; DICOM PS3.16, CID 4015 "View Modifier for Mammography":
_CLEAVAGE = {"399161006", "R-102D2"}
# Views by the code's meaning, if the code is unknown.
_MEANINGS = {
    "cranio-caudal": "CC",
    "craniocaudal": "CC",
    "medio-lateral oblique": "MLO",
    "mediolateral oblique": "MLO",
    "medio-lateral": "ML",
    "latero-medial": "LM",
    "antero-posterior": "AP",
    "anteroposterior": "AP",
    "postero-anterior": "PA",
    "posteroanterior": "PA",
    "lateral": "LATERAL",
    "left lateral": "LATERAL",
    "right lateral": "LATERAL",
}


def view_of(frame: Frame) -> str | None:
    """Return the view by its usual name: "PA", "LATERAL", "L CC", "anterior"; None if unknown."""
    modality = frame.file.modality
    if dicom_nuclear.is_nuclear(frame.file):
        return _nuclear_view(frame)
    position = (
        _stated_position(frame)
        or _coded_view(frame, modality)
        or _view_from_orientation(frame, modality)
    )
    side = _breast_side(frame) if modality == "MG" else ""
    return f"{side} {position}".strip() or None


def _coded_view(frame: Frame, modality: str | None) -> str:
    codes = _MAMMOGRAPHIC_CODES if modality == "MG" else _RADIOGRAPHIC_CODES
    modifiers = values(frame.find("ViewCodeSequence.ViewModifierCodeSequence"))
    if _CLEAVAGE & {str(element(modifier, "CodeValue")) for modifier in modifiers}:
        return "CV"
    code = str(frame.find("ViewCodeSequence.CodeValue") or "")
    meaning = str(frame.find("ViewCodeSequence.CodeMeaning") or "").strip().lower()
    return codes.get(code) or _MEANINGS.get(meaning, "")


def _stated_position(frame: Frame) -> str:
    position = str(frame.find("ViewPosition") or "").strip().upper()
    return "LATERAL" if position in _LATERAL else position


def _view_from_orientation(frame: Frame, modality: str | None) -> str:
    """Return the view implied by the patient orientation; empty text if it is ambiguous."""
    rows, columns = (str(run) for run in (values(frame.find("PatientOrientation")) + ["", ""])[:2])
    if modality in _RADIOGRAPHS and rows[:1] in set("AP") and columns[:1] in set("FH"):
        return "LATERAL"
    if modality == "MG" and rows[:1] in set("AP"):
        if columns in {"L", "R"}:
            return "CC"
        if set(columns) in ({"F", "L"}, {"F", "R"}):
            return "MLO"
    return ""


def _breast_side(frame: Frame) -> str:
    side = frame.find(
        "FrameAnatomySequence.FrameLaterality", "FrameLaterality", "ImageLaterality", "Laterality"
    )
    side = str(side or "").strip().upper()
    return "" if side == "U" else side


def _nuclear_view(frame: Frame) -> str | None:
    if frame.is_positioned:
        return None
    detector = frame.groups[-1] if frame.groups else frame.file.header
    return dicom_nuclear.view_of(detector, directions(element(detector, "ImageOrientationPatient")))
