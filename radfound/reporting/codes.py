"""Codes of reports: the procedure by modality, languages (CID 100, CID 5000), and this project's own codes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DOCUMENT = ("18748-4", "LN", "Diagnostic Imaging Report")
FINDINGS = (("121070", "DCM", "Findings"), ("121071", "DCM", "Finding"))
IMPRESSION = (("121072", "DCM", "Impressions"), ("121073", "DCM", "Impression"))
PROCESSING_EQUIPMENT = ("109102", "DCM", "Processing Equipment")

OWN_SCHEME = "99RADFOUND"
"""Designator of the codes that no standard has."""
EVIDENCE_WEIGHT = ("evidence", OWN_SCHEME, "Evidence weight")
# No public code was found for what a reader did with a draft; IHE AI Result Assessment may bring one.
VERDICT = ("verdict", OWN_SCHEME, "Reader's verdict on the AI draft")
_VERDICTS = {"accepted": "Accepted unchanged", "edited": "Edited"}

_PROCEDURES = {
    "CT": ("77477000", "SCT", "Computed tomography"),
    "MR": ("113091000", "SCT", "Magnetic resonance imaging"),
    "MG": ("71651007", "SCT", "Mammography"),
    "US": ("16310003", "SCT", "Ultrasonography"),
    "PT": ("82918005", "SCT", "Positron emission tomography"),
    "NM": ("373205008", "SCT", "Nuclear medicine imaging"),
    "XA": ("77343006", "SCT", "Angiography"),
    "RF": ("44491008", "SCT", "Fluoroscopy"),
}
_PLAIN = ("168537006", "SCT", "Plain radiography")
_ANY = ("363679005", "SCT", "Imaging procedure")
_PROJECTIONS = ("CR", "DX", "RG", "DR")

LANGUAGES = {
    "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "fi": "Finnish", "fr": "French", "hu": "Hungarian", "it": "Italian", "ja": "Japanese",
    "ko": "Korean", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "tr": "Turkish", "uk": "Ukrainian",
    "und": "Undetermined", "zh": "Chinese",
}  # fmt: skip
"""Languages of reports by their tags of RFC 5646."""


def language_of(tag: str) -> tuple[str, str, str]:
    """Return the code of a language; KeyError if it is not in `LANGUAGES`."""
    return (tag, "RFC5646", LANGUAGES[tag])


def verdict_of(verdict: str) -> tuple[str, str, str]:
    """Return the code of a reader's verdict on a draft, "accepted" or "edited"; KeyError for others."""
    return (verdict, OWN_SCHEME, _VERDICTS[verdict])


def own_scheme() -> Dataset:
    """Return the item of Coding Scheme Identification that says whose codes `OWN_SCHEME` are."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodingSchemeDesignator = OWN_SCHEME
    item.CodingSchemeName = "Private codes of RadFound"
    item.CodingSchemeResponsibleOrganization = "RadFound project"
    return item


def procedure_of(modalities: Iterable[str]) -> tuple[str, str, str]:
    """Return the code of the imaging procedure: value, scheme and meaning."""
    for modality in modalities:
        if modality in _PROCEDURES:
            return _PROCEDURES[modality]
        if modality in _PROJECTIONS:
            return _PLAIN
    return _ANY
