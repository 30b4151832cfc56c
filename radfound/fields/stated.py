"""The fields that a study's file states: modality, plane, region, projection, view and side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from radfound.study.study import Study, StudyImage
from radfound.study.taxonomy import MODALITIES

if TYPE_CHECKING:
    from radfound.study.frames import Frames

_MODALITIES = {
    "CT": "CT", "MR": "MRI", "CR": "X-ray", "DX": "X-ray", "MG": "mammography", "US": "ultrasound",
}  # fmt: skip
_REGIONS = (
    (("brain", "head", "skull"), "head"),
    (("chest", "thorax", "lung"), "thorax"),
    (("abdomen", "liver"), "abdomen"),
    (("breast",), "breast"),
    (("spine",), "spine and muscles"),
    (("pelvis", "prostate", "kidney"), "reproductive and urinary system"),
)
_SIDES = {"L": "left", "R": "right"}


def stated_fields(study: Study, frames: Frames) -> dict[str, str]:
    """Return the fields that the file states, where all images and frames agree.

    Parameters
    ----------
    study : Study
    frames : radfound.study.frames.Frames
        Frames of the study, whose planes come from the geometry of a volume.
    """
    from radfound.study.frames import PLANES

    found = {
        "modality": _same(_modality(image) for image in study.images),
        "plane": _same(PLANES[index].replace("unknown", "") for index in frames.planes.tolist()),
        "region": _same(_region(image) for image in study.images),
    }
    views = [(image.view or "").upper() for image in study.images]
    if all(view in ("PA", "AP", "LATERAL") for view in views):
        found["projection"] = _same(view.replace("LATERAL", "lateral") for view in views)
    if all(view[:2] in ("L ", "R ") for view in views):
        sides = {_SIDES[view[0]] for view in views}
        found["side"] = sides.pop() if len(sides) == 1 else "both"
    return {name: value for name, value in found.items() if value}


def _modality(image: StudyImage) -> str:
    if image.modality:
        return _MODALITIES.get(image.modality) or MODALITIES.get(image.modality, "")
    return "CT" if image.hounsfield else ""


def _region(image: StudyImage) -> str:
    part = (image.body_part or "").lower()
    return next((region for words, region in _REGIONS if any(w in part for w in words)), "")


def _same(values: Iterable[str]) -> str:
    """Return the value that all have, or ""."""
    different = set(values)
    return different.pop() if len(different) == 1 else ""
