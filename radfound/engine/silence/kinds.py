"""Kinds of question about a picture, told apart by their words.

The kinds are those for which it can differ whether a model looks: whether something is there or has a property
("presence", yes or no), whether it is normal or what is wrong ("normality"), where it is ("location"), how many or how
large ("size"), what kind of picture it is ("picture"), and all others ("other"). The first pattern that fits decides.
Of VQA-RAD's own types, 86 % fall into the kind that is meant (`tests/radfound/engine/test_kinds.py`).
"""

from __future__ import annotations

import re

from radfound.engine.confidence import calibration_group

KINDS = ("presence", "normality", "location", "size", "picture", "other")

_PATTERNS: tuple[tuple[str, str], ...] = (
    ("location", r"\bwhere\b|\b(located|location|localized)\b"),
    ("size", r"\bhow (many|much|big|large|small|wide|thick|long)\b|\bnumber of\b"),
    ("normality", r"\b(abnormal\w*|alarming|wrong|diagnosis)\b"),
    (
        "picture",
        r"\b(modality|planes?|sequence|projection|weighted|weighting|t[12]|flair|dwi|cxr|mra|cta)\b"
        r"|\b(image|scan|film|picture|x-?ray|radiograph|study|slice)s? (above )?(taken|acquired|obtained|captured|made)\b"
        r"|\b(type|kind) of (image|imaging|scan|study|picture|x-?ray|film|mri?|ct)\b|^what imaging\b|\bct or (an? )?mri?\b"
        r"|\borgan system|\borgans?\b.*\b(shown|displayed|evaluated|pictured)\b|\bpart of the (human )?body\b|\bbody (part|region)\b|^what (organ|part)s? (is|are|was) (this|being|shown)"
        r"|^is (this|it|the image)( an?)?( image| picture| scan)?( of)?( an?| the)? (axial|coronal|sagittal|transverse|pa|ap|lateral|ct"
        r"|mri?|x-?ray|ultrasound|chest|thorax|head|brain|abdom\w+|(non-?)?contrast)\b[\w\s-]*\??$"
        r"|\b(iv|intravenous|oral|gi) contrast\b|\bcontrast (given|used|administered)\b|\bwith(out)? contrast\b"
        r"|\b(axial|coronal|sagittal|pa|ap)\b.*\b(image|film|view|section|slice|scan|cut)s?\b",
    ),
    (
        "size",
        r"\b(enlarged|enlargement|dilat\w+|larger|smaller|bigger|cardiomegaly|hypertroph\w+|atroph\w+|widen\w*"
        r"|hyperinflat\w+|swollen|too big|thicken\w*|distend\w+|distension|size|diameter|width|more tha[nt]|less than"
        r"|fewer than|multiple)\b|[<>] ?\d|^are there (one|two|three)\b",
    ),
    ("presence", r"^(is|are|was) there\b|^(does|do|can)\b.*\b(show|have|see|demonstrate)\b|\b(present|evidence|visible)\b.*\?*$"),
    ("normality", r"\b(normal|patholog\w*|unremarkable|healthy|diagnos\w*|disease|condition|disorder|problem)\b"),
    (
        "location",
        r"^(on|in|at) (which|what)\b|^(which|what) (side|lobe|lung|hemisphere|quadrant|kidney|region|area|level|vascular territory"
        r"|vessel|artery|rib|diaphragm)\b|\b(side|laterality|bilateral\w*|unilateral|midline|lobes?|hemispheres?)\b"
        r"|\b(on|in|to|near) the (patient'?s )?(left|right|upper|lower)\b|\b(left|right)( or|/) ?(the )?(left|right)\b",
    ),
)  # fmt: skip
_COMPILED = tuple((kind, re.compile(pattern)) for kind, pattern in _PATTERNS)
_ABOUT_FINDINGS = re.compile(
    r"\b(abnormal\w*|patholog\w*|diagnos\w*|disease\w*|lesions?|findings?|wrong|condition|disorder|problem)\b",
    re.I,
)


def kind_of_question(task: str, question: str | None) -> str | None:
    """Return one of `KINDS`; None for captions and reports."""
    group = calibration_group(task, question)
    if group is None:
        return None
    text = " ".join((question or "").lower().replace("is/are", "is").replace("-yes/no", "").split())
    found = next((kind for kind, pattern in _COMPILED if pattern.search(text)), None)
    if found and not (found == "presence" and group == "open"):
        return found
    return "presence" if group == "closed" else "other"


def broad_kind(task: str, question: str | None) -> str | None:
    """Return "finding" for yes/no questions and for open ones about what is abnormal, "open" for other questions.

    None for captions and reports. For kinds that were not measured by themselves.
    """
    group = calibration_group(task, question)
    if group is None:
        return None
    asks_for_findings = group == "closed" or _ABOUT_FINDINGS.search(question or "")
    return "finding" if asks_for_findings else "open"
