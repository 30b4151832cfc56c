"""The 10 imaging modalities and 19 organ systems that RadFound speaks of.

The paper (arXiv 2409.16183) gives the two counts; the lists are this project's reading of them.
"""

from __future__ import annotations

MODALITIES: dict[str, str] = {
    "CT": "computed tomography",
    "MR": "magnetic resonance imaging",
    "CR": "computed radiography",
    "DX": "digital radiography",
    "MG": "mammography",
    "US": "ultrasound",
    "PT": "positron emission tomography",
    "NM": "nuclear medicine",
    "XA": "X-ray angiography",
    "RF": "fluoroscopy",
}
"""DICOM modality code to its name in words."""

ORGAN_SYSTEMS: tuple[str, ...] = (
    "brain",
    "spine",
    "head and neck",
    "eye and orbit",
    "thyroid and endocrine glands",
    "breast",
    "heart",
    "blood vessels",
    "lungs and airways",
    "pleura and mediastinum",
    "liver",
    "gallbladder and bile ducts",
    "pancreas",
    "spleen and lymph nodes",
    "gastrointestinal tract",
    "kidneys and urinary tract",
    "male reproductive system",
    "female reproductive system",
    "musculoskeletal system",
)

_RELATED = {
    "BDUS": "US",
    "DF": "RF",
    "DS": "XA",
    "IO": "DX",
    "IVUS": "US",
    "MA": "MR",
    "PX": "DX",
    "RG": "CR",
    "ST": "NM",
}


def modality_of(code: str | None) -> str | None:
    """Return the one of `MODALITIES` that a DICOM modality code belongs to, or None.

    Retired and special codes go to their nearest relative: intravascular ultrasound is ultrasound,
    a dental film is a radiograph. Secondary captures and documents belong to none.
    """
    code = (code or "").strip().upper()
    code = _RELATED.get(code, code)
    return code if code in MODALITIES else None
