"""The fields of a study: their classes, the words for them, and the studies in which each has a meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Field:
    """One field of a study.

    Parameters
    ----------
    name : str
    label : str
        Name shown to users.
    classes : tuple of str
    applies_to : mapping of str to tuple of str
        Fields that must be known, with one of these values, for this one to have a meaning.
    flips : bool
        Whether left and right matter, so that a mirrored picture has another value.
    """

    name: str
    label: str
    classes: tuple[str, ...]
    applies_to: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    flips: bool = False


_SECTIONAL = {"modality": ("CT", "MRI")}
_MAMMOGRAM = {"modality": ("mammography",)}

FIELDS: dict[str, Field] = {
    each.name: each
    for each in (
        Field("modality", "modality", ("CT", "MRI", "X-ray", "mammography", "ultrasound")),
        Field("plane", "plane", ("axial", "coronal", "sagittal"), _SECTIONAL),
        Field(
            "region",
            "body region",
            (
                "abdomen", "breast", "head", "reproductive and urinary system", "spine and muscles", "thorax",
            ),
        ),
        Field(
            "location",
            "part of the body",
            (
                "abdomen", "brain and neuro", "cardiovascular", "chest, pulmonary", "eye and orbit",
                "gastrointestinal", "generalized", "genitourinary", "head and neck", "musculoskeletal",
                "nerve, central", "spine", "vascular",
            ),
            _SECTIONAL,
        ),
        Field("weighting", "MR weighting", ("T1", "T2", "FLAIR", "DWI"), {"modality": ("MRI",)}),
        Field("contrast", "intravenous contrast", ("yes", "no"), {"modality": ("CT",)}),
        Field(
            "projection",
            "projection",
            ("PA", "AP", "lateral"),
            {"modality": ("X-ray",), "region": ("thorax",)},
        ),
        Field("side", "side of the breast", ("left", "right"), _MAMMOGRAM, flips=True),
        Field(
            "density",
            "breast density",
            ("fatty", "fatty-glandular", "dense-glandular"),
            _MAMMOGRAM,
        ),
    )
}  # fmt: skip
"""Fields by name, in the order in which they are read: a field comes after those that it depends on."""

WORDS: dict[tuple[str, str], str] = {
    ("contrast", "yes"): "with intravenous contrast",
    ("contrast", "no"): "without intravenous contrast",
    ("weighting", "T1"): "T1-weighted",
    ("weighting", "T2"): "T2-weighted",
    ("weighting", "DWI"): "diffusion-weighted",
    ("side", "both"): "both breasts",
}
"""Words of an answer for a value of a field, where they differ from the value."""
