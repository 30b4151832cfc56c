"""The 10 imaging modalities and 19 organ systems of RadFound.

The paper (arXiv 2409.16183) gives only the two counts; the lists are this project's choice.
"""

from __future__ import annotations

import re
from functools import cache

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
    """Return the code in `MODALITIES` for a DICOM modality code, or None.

    Retired and special codes map to the nearest modality: intravascular ultrasound to ultrasound, a dental
    film to a radiograph. Secondary captures and documents map to None.
    """
    code = (code or "").strip().upper()
    code = _RELATED.get(code, code)
    return code if code in MODALITIES else None


_ORGAN_WORDS: dict[str, str] = {
    "brain": r"brain|cerebr\w*|cerebell\w*|intracranial|ventricles?|hydroceph\w*|midline shift|(?:frontal|parietal"
    r"|temporal|occipital) lobes?|subdural|epidural hematoma|infarct\w*|stroke|gyr\w+|sulc\w+|white matter|gray matter"
    r"|basal gangli\w+|thalam\w+|pons|midbrain|glio\w+|meningi\w+",
    "spine": r"spin\w+|vertebr\w+|dis[ck]s?|lumbar|cervical|sacr\w+|conus|cord|L[1-5]|C[1-7]",
    "head and neck": r"neck|sinus\w*|mastoid\w*|parotid|nas\w+|larynx|pharyn\w+|tongue|mandib\w*|temporal bone|skull|scalp",
    "eye and orbit": r"eyes?|orbit\w*|globe|optic|retin\w+|lens",
    "thyroid and endocrine glands": r"thyroid|adrenal\w*|pituitary|sella\w*|parathyroid",
    "breast": r"breasts?|mammogra\w+",
    "heart": r"heart|cardi\w+|atri\w+|ventricular|pericard\w+|myocard\w+|valve",
    "blood vessels": r"aort\w+|arter\w+|vein\w*|venous|vascular|aneurysm\w*|vena cava|carotid|emboli\w*|dissection",
    "lungs and airways": r"lungs?|pulmonary|lob(?:e|ar) (?:collapse|pneumonia)|airspace|bronch\w+|trache\w*|pneumonia"
    r"|consolidation|(?:upper|lower|middle) lobes?|chest",
    "pleura and mediastinum": r"pleura\w*|mediastin\w+|pneumothora\w+|hil\w{1,3}|costophrenic|(?:hemi)?diaphragm\w*|effusions?",
    "liver": r"liver|hepat\w+",
    "gallbladder and bile ducts": r"gallbladder|bil\w{2,6}|cholecyst\w+|gallstones?|common duct",
    "pancreas": r"pancrea\w+",
    "spleen and lymph nodes": r"spleen|splen\w+|lymph\w*",
    "gastrointestinal tract": r"bowel|colon\w*|ile(?:um|al|us)|jejun\w+|duoden\w+|gastr\w+|stomach|append\w+|esophag\w+"
    r"|rect\w+|sigmoid|cec\w+|mesenter\w+|periton\w+",
    "kidneys and urinary tract": r"kidneys?|renal|ureter\w*|bladder|nephr\w+|hydronephrosis|urinary",
    "male reproductive system": r"prostat\w*|testi\w+|scrot\w+|penis|penile|seminal",
    "female reproductive system": r"uter\w+|ovar\w+|adnex\w+|endometri\w+|vagin\w+|fetus|fetal|pregnan\w+",
    "musculoskeletal system": r"bones?|fractur\w+|muscle\w*|joint|knee|shoulder|hip|femur|femoral|tibia\w*|fibula\w*"
    r"|humer\w+|radius|ulna\w*|tendon|ligament\w*|menisc\w+|ankle|wrist|elbow|ribs?|clavicle|foot|hand|soft tissue mass",
}


@cache
def _organ_patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(
        (system, re.compile(rf"\b(?:{system}|{words})\b", re.IGNORECASE))
        for system, words in _ORGAN_WORDS.items()
    )


def organ_system_of(text: str) -> str | None:
    """Return the organ system that a text names most often, the first listed on a tie, or None."""
    counts = {system: len(pattern.findall(text)) for system, pattern in _organ_patterns()}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else None
