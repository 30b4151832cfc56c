"""Captions and reports in plain sentences, from the fields and findings that are known and sure."""

from __future__ import annotations

from collections.abc import Mapping

from radfound.fields.values import FieldValue, FindingValue

_PICTURES = {
    "CT": "CT image",
    "MRI": "MR image",
    "X-ray": "radiograph",
    "mammography": "mammogram",
    "ultrasound": "ultrasound image",
}
_REGIONS = {
    "head": "the head",
    "thorax": "the chest",
    "abdomen": "the abdomen",
    "breast": "the breast",
    "spine and muscles": "the spine or the musculoskeletal system",
    "reproductive and urinary system": "the pelvis",
}
_DENSITIES = {
    "fatty": "The breast tissue is fatty.",
    "fatty-glandular": "The breast tissue is fatty with glandular parts.",
    "dense-glandular": "The breast tissue is dense.",
}
_FINDINGS = {"malignant": "malignant breast mass", "edema": "pulmonary edema"}
UNKNOWN_PICTURE = "I do not know this kind of picture."
NOT_JUDGED = "Findings cannot be judged from this picture with this model."
_ONLY_THESE = "Other findings cannot be judged from this picture with this model."


def compose(
    fields: Mapping[str, FieldValue], task: str, findings: Mapping[str, FindingValue] | None = None
) -> str:
    """Return a caption or a report.

    Parameters
    ----------
    fields : mapping of str to FieldValue
        As `FieldModel.read` returns them; those without a value are left out of the text.
    task : {"caption", "report"}
    findings : mapping of str to FindingValue, optional
        As `FieldModel.findings` returns them.

    Returns
    -------
    str
        The report has the headings "Findings:" and "Impression:".

    Raises
    ------
    ValueError
        If the task is another one.
    """
    if task not in ("caption", "report"):
        raise ValueError(f"task is {task!r}; expected 'caption' or 'report'")
    known = {name: value.value for name, value in fields.items() if value.value}
    sentences = [_picture_sentence(known)]
    if density := _DENSITIES.get(known.get("density", "")):
        sentences.append(density)
    found = [_finding_sentence(name, each) for name, each in (findings or {}).items()]
    judged = [_ONLY_THESE] if found else [NOT_JUDGED]
    if "modality" not in known and not found:
        judged = [NOT_JUDGED]
    if task == "caption":
        return " ".join([*sentences, *found, *judged])
    impression = " ".join(found) if found else NOT_JUDGED
    return f"Findings: {' '.join([*sentences, *found, *judged])} Impression: {impression}"


def _picture_sentence(known: Mapping[str, str]) -> str:
    modality = known.get("modality")
    if not modality:
        return UNKNOWN_PICTURE
    words = []
    if modality in ("CT", "MRI") and "plane" in known:
        words.append(known["plane"])
    if modality == "MRI" and "weighting" in known:
        weighting = known["weighting"]
        words.append(
            {"FLAIR": "FLAIR", "DWI": "diffusion-weighted"}.get(weighting, f"{weighting}-weighted")
        )
    if modality == "CT" and "contrast" in known:
        words.append("contrast-enhanced" if known["contrast"] == "yes" else "non-contrast")
    if modality == "X-ray" and "projection" in known:
        words.append(known["projection"])
    words.append(_PICTURES.get(modality, f"{modality} image"))
    place = _REGIONS.get(known.get("region", ""))
    if modality == "mammography":
        side = known.get("side")
        place = "both breasts" if side == "both" else f"the {side} breast" if side else None
    text = " ".join(words) + (f" of {place}" if place else "")
    return text[0].upper() + text[1:] + "."


def _finding_sentence(name: str, finding: FindingValue) -> str:
    word = _FINDINGS.get(name, name)
    share = round(100 * finding.probability)
    verb = "likely" if finding.probability >= 0.5 else "unlikely"
    return f"{word[0].upper()}{word[1:]}: {verb} ({share} %; {finding.limit})."
