"""Questions whose answers are a figure's metadata: modality, plane and body region.

The first wording of each is the one that the benchmark asks; training draws from all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

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

    A field that the row leaves out, or has as None, is left out.
    """
    answers = {}
    if row.get("modality") in MODALITY_WORDS:
        answers["modality"] = MODALITY_WORDS[str(row["modality"])]
    if plane := row.get("plane"):
        answers["plane"] = "axial" if plane.lower() == "transverse" else plane.lower()
    if organ := row.get("organ"):
        answers["region"] = organ.lower()
    return answers
