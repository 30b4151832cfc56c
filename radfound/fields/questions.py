"""Which field or finding a question asks for.

A question is matched by its words. It is about fields if nothing is left of it but words that name a field, a value
or the picture itself; any other word means that the question asks for more than a field, and it is not matched.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from radfound.fields.catalogue import FIELDS, WORDS

# Patterns of the words that name a field in an open question. The first match is the field.
_NAMES: dict[str, str] = {
    "weighting": r"(?:mr|mri)? ?(?:weighting|weighted|pulse sequence|sequence)",
    "contrast": r"(?:(?:iv|intravenous) )?contrast(?: (?:agent|material|medium|media|dye))?",
    "density": r"breast density|density of the breasts?|breast composition|background tissue|dense",
    "projection": r"projection",
    "side": r"which breast|what breast|laterality|which side",
    "plane": r"(?:imaging |image |anatomical )?planes?(?: of section)?|cross section|cut|orientation|section",
    "modality": r"(?:imaging |image )?(?:modality|technique|method)"
    r"|(?:what|which) (?:kind|type) of (?:image|scan|study|imaging|picture|exam(?:ination)?)"
    r"|how (?:was|is) (?:this|the) (?:image|picture|scan|study) (?:taken|acquired|obtained|made)"
    r"|what was this image taken with",
    "region": r"(?:body|anatomical) (?:region|part|area)|(?:part|region|area) of (?:the|this) (?:human )?body"
    r"|organ systems?|organs?|anatomy",
}

# Patterns of the words that name a value, in yes/no questions and in choices.
_VALUES: tuple[tuple[str, str, str], ...] = (
    ("contrast", "no", r"non[- ]?contrast(?:[- ]enhanced)?|without (?:(?:iv|intravenous) )?contrast|unenhanced"),
    ("contrast", "yes", r"(?:with )?(?:(?:iv|intravenous) )?contrast(?:[- ]enhanced| enhancement| agent| material"
     r"| medium| media| dye)?"),
    ("weighting", "T1", r"t1(?:[- ]?(?:weighted|w))?"),
    ("weighting", "T2", r"t2(?:[- ]?(?:weighted|w))?(?!\*)"),
    ("weighting", "FLAIR", r"flair"),
    ("weighting", "DWI", r"dwi|diffusion(?:[- ]weighted)?"),
    ("projection", "PA", r"pa|posterior[- ]?anterior|posteroanterior"),
    ("projection", "AP", r"ap|anterior[- ]?posterior|anteroposterior"),
    ("projection", "lateral", r"lateral"),
    ("plane", "axial", r"axial|transverse|transaxial"),
    ("plane", "coronal", r"coronal"),
    ("plane", "sagittal", r"sagittal|saggital|sagital"),
    ("density", "fatty-glandular", r"fatty[- ]glandular"),
    ("density", "dense-glandular", r"dense[- ]glandular|dense"),
    ("density", "fatty", r"fatty"),
    ("side", "left", r"left breast"),
    ("side", "right", r"right breast"),
    ("modality", "mammography", r"mammogra(?:m|phy)s?"),
    ("modality", "ultrasound", r"ultrasound|sonogra(?:m|phy)|us scan"),
    ("modality", "CT", r"ct|cat scan|computed tomography"),
    ("modality", "MRI", r"mri|mr|magnetic resonance(?: imaging| image)?"),
    ("modality", "X-ray", r"x[- ]?ray|radiograph|plain film|cxr|chest film"),
    ("region", "head", r"head|brain"),
    ("region", "thorax", r"chest|thorax|lungs?"),
    ("region", "abdomen", r"abdomen|belly"),
    ("region", "spine and muscles", r"spine"),
    ("region", "breast", r"breasts?"),
)  # fmt: skip

# Words that add nothing to a question about the picture itself.
_PLAIN = frozenset(
    """a above acquire acquired administered agent an and anatomical and applied are at be been being best body by
    can captured captures conducted demonstrated could current currently depicted depicts did displayed displays do does
    done enhanced evaluated exam examination film films for from given gave has have here how human i identify image
    images imaged imaging in intravenous is it iv main made material medium method mode name obtained of on one or
    oriented part patient performed picture pictured pictures please present primarily principally received receive
    region scan scans section seen show showed showing shown shows slice study studied system systems taken tell that
    the there these this to type take types kind kinds use used uses using utilized via view viewed views visible visualised
    visualized was we were what which with without you your whether produced displaying weighted weighting us
    plane planes modality sequence projection contrast technique oriented orientation""".split()
)
_YES_NO = re.compile(
    r"^(?:is/are|is|are|was|were|did|does|do|has|have|had|can|could|would|will)\b|\b(?:yes/no|yes or no)\b"
)
_OTHER_CONTRAST = re.compile(r"\b(?:gi|oral|rectal|barium|phase|gadolinium)\b")
_EXPLAIN = re.compile(r"^(?:how (?:can|do|could|would) (?:you|we|one)|why|name|where)\b")
_LUNG, _BRAIN, _BREAST = "lung lungs chest thorax", "brain head", "breast breasts"
# Words for a finding, and for the part of the body that may stand beside it.
_FINDING_WORDS: dict[str, tuple[str, str]] = {
    "pneumonia": (r"pneumonias?", _LUNG),
    "bacterial pneumonia": (r"bacterial pneumonia", _LUNG),
    "viral pneumonia": (r"viral pneumonia", _LUNG),
    "covid-19 pneumonia": (r"covid(?:[- ]?19)?(?: pneumonia)?", _LUNG),
    "edema": (r"(?:pulmonary |lung )?o?edema", _LUNG),
    "pleural effusion": (r"(?:pleural )?effusions?", _LUNG),
    "infiltration": (r"infiltrat(?:ion|e)s?", _LUNG),
    "atelectasis": (r"atelecta(?:sis|ses)", _LUNG),
    "consolidation": (r"consolidations?", _LUNG),
    "pleural thickening": (r"pleural thickening", _LUNG),
    "breast mass": (r"(?:breast )?(?:mass(?:es)?|lesions?|tumou?rs?)", _BREAST),
    "malignant": (r"malignan(?:t|cy)|(?:breast )?cancer", _BREAST),
    "brain tumor": (r"(?:brain )?(?:tumou?rs?|mass(?:es)?|neoplasms?)", _BRAIN),
    "glioma": (r"gliomas?", _BRAIN),
    "meningioma": (r"meningiomas?", _BRAIN),
    "pituitary tumor": (r"pituitary (?:tumou?r|adenoma)s?", _BRAIN),
    "b-lines": (r"b[- ]lines?", _LUNG),
    "a-lines": (r"a[- ]lines?", _LUNG),
    "pleural line irregularity": (
        r"irregular(?:ity of the)? pleural line|pleural line irregularit(?:y|ies)",
        _LUNG,
    ),
}
_FINDING_PLAIN = frozenset(
    """a an any are be can compatible ct demonstrate demonstrates detect detected do does evidence evident film finding
    for have has here identify identified image in is it mr mri of on or patient possible present radiograph scan see
    seen show showing shown shows sign signs suggest suggested suspect suspected suspicious the there this ultrasound
    visible visualized was with x-ray you""".split()
)


@dataclass(frozen=True)
class Asked:
    """What a question asks for.

    Parameters
    ----------
    field : str or None
        Field of an open question or a choice.
    wanted : mapping of str to str
        Values that a yes/no question proposes, by field.
    findings : tuple of str
        Findings whose presence a yes/no question asks for; the words may stand for several of them.
    """

    field: str | None = None
    wanted: Mapping[str, str] = dataclasses.field(default_factory=dict)
    findings: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The kind of question, as competence is stored for it: "plane", "finding"."""
        return "finding" if self.findings else self.field or next(reversed([*self.wanted]))


def asked_for(question: str, findings: Iterable[str] = ()) -> Asked | None:
    """Return what a question asks for, or None if it asks for anything else.

    Parameters
    ----------
    question : str
    findings : iterable of str
        Names of the findings that may be asked for.
    """
    text = _plain(question)
    if not text or _EXPLAIN.search(text):
        return None
    about = _field_question(text)
    if about is None and _YES_NO.search(text):
        named = _findings_named(text, findings)
        return Asked(findings=named) if named else None
    return about


def answer_chances(
    question: str, answers: Iterable[str], chances: Mapping[str, Mapping[str, float]]
) -> dict[str, float] | None:
    """Return what is known of a study about some answers to a question.

    Parameters
    ----------
    question : str
    answers : iterable of str
        In readers' words, such as "With contrast".
    chances : mapping of str to mapping
        For each field and finding that is known of the study, the probability of each class, as `Reading.chances`.

    Returns
    -------
    dict of str to float, or None
        Probability of each answer. None if the question asks for anything else, if that is not known of the study, or
        if an answer is none of its values.
    """
    asked = asked_for(question, [name for name in chances if name not in FIELDS])
    if asked is None:
        return None
    known: Mapping[str, float]
    if asked.field is None:
        known = _chances_of_yes_and_no(asked, chances)
        values = {answer: _plain(answer) for answer in answers}
    else:
        known = chances.get(asked.field, {})
        values = {answer: _value(asked.field, answer) for answer in answers}
    if not all(value in known for value in values.values()):
        return None
    return {answer: known[value] for answer, value in values.items()}


def _chances_of_yes_and_no(
    asked: Asked, chances: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    wanted = asked.wanted or {name: "yes" for name in asked.findings[:1]}
    if not all(name in chances for name in wanted):
        return {}
    yes = math.prod(chances[name].get(value, 0.0) for name, value in wanted.items())
    return {"yes": yes, "no": 1 - yes}


def _value(field: str, answer: str) -> str:
    """Return the value of a field that an answer names, "" if it names anything else too."""
    text = _plain(answer)
    for value in FIELDS[field].classes:
        if text in (_plain(value), _plain(WORDS.get((field, value), value))):
            return value
    values, rest = _values_in(text)
    is_clear = values.keys() == {field} and len(values[field]) == 1 and not _has_content(rest)
    return values[field][0] if is_clear else ""


def _plain(question: str) -> str:
    text = question.lower().replace("is/are", "is").replace("-yes/no", "").replace("yes/no", "")
    return " ".join(re.sub(r"[^\w\s/*-]", " ", text).split())


def _field_question(text: str) -> Asked | None:
    if _OTHER_CONTRAST.search(text):
        return None
    values, rest = _values_in(text)
    several = [name for name, found in values.items() if len(found) > 1]
    if _YES_NO.search(text) and values and not several:
        if _has_content(rest):
            return None
        if values.get("contrast") and re.search(r"\bwith(?: or|/) ?without\b", text):
            return Asked(field="contrast")
        return Asked(wanted={name: found[0] for name, found in values.items()})
    if len(several) == 1 and not _has_content(rest):
        return Asked(field=several[0])
    if _YES_NO.search(text):
        return None
    for name, pattern in _NAMES.items():
        if name == "plane" and "patient" in text:
            continue
        left = re.sub(rf"\b(?:{pattern})\b", " ", text)
        if left != text:
            _, left = _values_in(left)
            return None if _has_content(left) else Asked(field=name)
    return None


def _values_in(text: str) -> tuple[dict[str, list[str]], str]:
    """Return the values named in a text by field, and the text without them."""
    found: dict[str, list[str]] = {}
    for name, value, pattern in _VALUES:
        left = re.sub(rf"\b(?:{pattern})\b(?!\*)", " ", text)
        if left != text:
            found.setdefault(name, []).append(value)
            text = left
    return found, text


def _has_content(text: str) -> bool:
    return any(word not in _PLAIN for word in text.split())


def _findings_named(text: str, findings: Iterable[str]) -> tuple[str, ...]:
    """Return the findings that a question names, if it names nothing else; the longest match wins."""
    named: list[tuple[int, str]] = []
    for name in findings:
        pattern, part = _FINDING_WORDS.get(name, (re.escape(name), ""))
        match = re.search(rf"\b(?:{pattern})\b", text)
        if match:
            left = (text[: match.start()] + " " + text[match.end() :]).split()
            if all(word in _FINDING_PLAIN or word in part.split() for word in left):
                named.append((match.end() - match.start(), name))
    longest = max((length for length, _ in named), default=0)
    return tuple(name for length, name in named if length == longest)
