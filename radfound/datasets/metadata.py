"""Questions about the metadata of MedPix figures (MedPix 2.0, Siragusa et al. 2025).

The benchmark uses the first wording of each question; training samples from all wordings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from radfound.study.study import StudyImage

FOOTER_SHARE = 0.06  # the contributor's name is printed over the lowest part of a figure

METADATA_QUESTIONS: dict[str, tuple[str, ...]] = {
    "modality": (
        "Which imaging modality is this?",
        "What imaging modality was used?",
        "What kind of scan is this?",
        "How was this image acquired?",
    ),
    "plane": (
        "In which plane is this image?",
        "What is the plane of this image?",
        "Which anatomical plane is shown?",
    ),
    "region": (
        "Which body region is shown?",
        "What part of the body is being imaged?",
        "Which organ system is shown in the image?",
    ),
}

MODALITY_WORDS = {"CT": "CT", "MR": "MRI", "XR": "X-ray", "MG": "mammography"}


def metadata_answers(row: Mapping[str, str | None]) -> dict[str, str]:
    """Return {"modality": …, "plane": …, "region": …} in words for a row with `modality`, `plane`, `organ`.

    Missing fields are omitted.
    """
    answers = {}
    if row.get("modality") in MODALITY_WORDS:
        answers["modality"] = MODALITY_WORDS[str(row["modality"])]
    if plane := row.get("plane"):
        answers["plane"] = "axial" if plane.lower() == "transverse" else plane.lower()
    if organ := row.get("organ"):
        answers["region"] = organ.lower()
    return answers


def without_footer(image: StudyImage) -> StudyImage:
    """Cut off the lowest rows of a 2D image, where MedPix prints a credit."""
    rows = image.voxels.shape[1]
    return replace(image, voxels=image.voxels[:, : rows - round(rows * FOOTER_SHARE)])
