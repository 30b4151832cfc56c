"""What Slicer knows about a volume that a reader may send with a question: never names or ids."""

from typing import Any

import slicer

from ..translation import _

_TAGS = {
    "modality": "0008,0060",
    "bodyPart": "0018,0015",
    "age": "0010,1010",
    "sex": "0010,0040",
}
_MODALITIES = {"CT", "MR", "CR", "DX", "MG", "US", "PT", "NM", "XA", "RF", "OT"}
_MOST_CHARS = 32


def known_about(volume: Any) -> dict:
    """Return what is known, in words, by "modality", "bodyPart", "age", "sex" and "window".

    From Slicer's DICOM database, for volumes loaded from it; the window from the display. Only
    values of a known form are returned, since a free text could hold a name.
    """
    found = {}
    values = _dicom_values(volume)
    modality = values.get("modality", "").upper()
    if modality in _MODALITIES:
        found["modality"] = modality
    part = values.get("bodyPart", "")
    if part and len(part) <= _MOST_CHARS and part.replace(" ", "").replace("_", "").isalpha():
        found["bodyPart"] = part.replace("_", " ").lower()
    age = values.get("age", "")
    if age[:-1].isdigit() and age[-1:] in ("Y", "M", "W", "D"):
        found["age"] = _age_group(int(age[:-1]) if age.endswith("Y") else 0)
    sex = {"M": _("male"), "F": _("female")}.get(values.get("sex", "").upper())
    if sex:
        found["sex"] = sex
    display = volume.GetDisplayNode() if volume is not None else None
    if display is not None and display.IsA("vtkMRMLScalarVolumeDisplayNode"):
        found["window"] = _("window {width}/{level}").format(
            width=f"{display.GetWindow():.0f}", level=f"{display.GetLevel():.0f}"
        )
    return found


def _dicom_values(volume: Any) -> dict:
    instances = (volume.GetAttribute("DICOM.instanceUIDs") or "") if volume is not None else ""
    database = getattr(slicer, "dicomDatabase", None)
    if not instances or database is None:
        return {}
    first = instances.split()[0]
    return {name: str(database.instanceValue(first, tag)).strip() for name, tag in _TAGS.items()}


def _age_group(years: int) -> str:
    if years < 18:
        return _("under 18 years")
    if years >= 90:
        return _("90 years or older")
    decade = years // 10 * 10
    return _("{low} to {high} years").format(low=max(decade, 18), high=decade + 9)
