"""When two questions are the same question in other words.

A wrong match would give a reader's answer to another question. So the comparison is strict: after the removal of
words without content and the replacement of synonyms, the same words must be left in the same roles. Side, negation,
polarity, finding, region, number and comparison are words with content, and an unknown word always counts. Paraphrases
that need knowledge of the world are missed.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from functools import lru_cache

# Words that carry no content of a question about an image.
_EMPTY = frozenset(
    "a an the of on at to this these here in is are was were be been being do does did has have had can could you will "
    "would should may please tell me us any some there image images picture pictures study scan scans exam examination "
    "patient s".split()
)
# Verbs and nouns of being seen: without content in a question for yes or no, kept in others.
_SEEN = frozenset(
    "see seen visible show shown demonstrate demonstrated present presence evidence evident sign noted identified "
    "appreciated visualized depicted detected displayed observed apparent look looks appear appears appearing seem seems".split()
)
_SYNONYMS = {
    "x ray": "radiograph",
    "xray": "radiograph",
    "film": "radiograph",
    "plain film": "radiograph",
    "mr": "mri",
    "magnetic resonance imaging": "mri",
    "magnetic resonance": "mri",
    "cat": "ct",
    "computed tomography": "ct",
    "iv": "intravenous",
    "haemorrhage": "hemorrhage",
    "bleed": "hemorrhage",
    "bleeding": "hemorrhage",
    "oedema": "edema",
    "tumour": "tumor",
    "oesophagus": "esophagus",
    "ischaemia": "ischemia",
    "anaemia": "anemia",
    "gray": "grey",
    "colour": "color",
    "centre": "center",
    "enlargement of heart": "cardiomegaly",
    "enlarged heart": "cardiomegaly",
    "heart enlarged": "cardiomegaly",
    "cxr": "chest radiograph",
    "posteroanterior": "pa",
    "anteroposterior": "ap",
    "administered": "given",
    "bilaterally": "bilateral",
    "situated": "located",
    "kind": "type",
    "sort": "type",
    "modalitie": "modality",
    "metastase": "metastasis",
    "diagnose": "diagnosis",
    "plu": "plus",
}
_LONGEST_SYNONYM = 3
# Words of place may move as a group: "an effusion in the left lung", "the left lung has an effusion".
_PLACES = frozenset(
    "left right bilateral upper lower middle anterior posterior superior inferior medial lateral central peripheral "
    "apical basal proximal distal lung lobe hemithorax thorax chest heart mediastinum hilum pleura diaphragm rib "
    "clavicle abdomen pelvis liver spleen kidney pancreas stomach bowel colon rectum bladder gallbladder uterus prostate "
    "head brain hemisphere ventricle cerebellum brainstem frontal parietal temporal occipital skull orbit sinus neck "
    "spine vertebra breast knee hip shoulder arm leg hand foot femur tibia humerus side base apex".split()
)
_NOT_PLURAL = frozenset(
    "pancreas ascites series apices gas bias lens biceps triceps always has does yes".split()
)
_ASKS_YES_OR_NO = frozenset(
    "is are was were am does do did has have had can could will would should may any".split()
)
# Words that point to an earlier turn: the question means nothing without its history.
_POINTS_BACK = frozenset("it its they them their that those one ones same other another".split())
_FOLLOWS_ON = re.compile(r"^(?:and|or|but|so|then|what about|how about|also|why)\b")
_MEANINGS_OF_WHERE = re.compile(
    r"^(?:what|which)(?: is| are| was| were)? (?:the )?(?:locations?|positions?|sites?) of\b"
)


@lru_cache(maxsize=65_536)
def question_key(task: str, question: str | None) -> Hashable:
    """Return a key that is equal for the same question in other words.

    Parameters
    ----------
    task : {"vqa", "caption", "report"}
    question : str or None
        None for a caption or a report.
    """
    if task != "vqa":
        return (task,)
    text = _plain(question or "")
    asks = _asks(text)
    if asks == "where":
        text = _MEANINGS_OF_WHERE.sub("where", text)
    words = [
        word
        for word in _canonical(text.split())
        if word not in _EMPTY and not (asks in ("yes or no", "how many") and word in _SEEN)
    ]
    asking = ("what", "which", "where", "located") if asks == "where" else ("what", "which")
    content = [word for word in words if word not in asking]
    if not content:
        return (task, asks, text)
    places = tuple(word for word in content if word in _PLACES)
    others = tuple("see" if word in _SEEN else word for word in content if word not in _PLACES)
    if places and not others:  # the order of the words is all that is left
        return (task, asks, tuple(content))
    return (task, asks, others, places)


def exact_key(task: str, question: str | None) -> str:
    """Return a key that is equal for the same words, whatever their case, spaces and final marks."""
    return f"{task} {_plain(question or '')}"


def needs_history(question: str | None) -> bool:
    """Return whether a question points to an earlier turn, such as "And on the left?" or "Is it large?"."""
    text = _plain(question or "")
    return bool(_FOLLOWS_ON.match(text)) or not _POINTS_BACK.isdisjoint(text.split())


def same_answer(first: str, second: str) -> bool:
    """Return whether two texts are the same, whatever their case, spaces and final full stop."""
    return answer_key(first) == answer_key(second)


def answer_key(text: str) -> str:
    """Return a text in lower case with single spaces and without a final full stop."""
    return " ".join(text.lower().split()).rstrip(". ")


def _plain(text: str) -> str:
    text = text.lower().replace("’", "'")
    text = re.sub(r"\b(can)?n't\b", lambda found: "can not" if found.group(1) else " not", text)
    text = re.sub(r"n't\b", " not", text)
    text = re.sub(r"(?<=\d)[.,](?=\d)", "_", text)
    text = text.replace("+", " plus ").replace("<", " below ").replace(">", " above ")
    return " ".join(re.findall(r"\w+", text))


def _asks(text: str) -> str:
    words = text.split()
    if not words:
        return "open"
    if words[0] in _ASKS_YES_OR_NO:
        return "yes or no"
    if text.startswith(("how many", "how much")) or "number of" in text:
        return "how many"
    if "where" in words or _MEANINGS_OF_WHERE.match(text):
        return "where"
    return "open"


def _canonical(words: list[str]) -> Iterable[str]:
    """Yield the words in the singular, with synonyms of up to three words replaced."""
    position = 0
    while position < len(words):
        for length in range(_LONGEST_SYNONYM, 0, -1):
            part = " ".join(words[position : position + length])
            if length > 1 and part in _SYNONYMS:
                yield from _SYNONYMS[part].split()
                break
            if length == 1:
                single = _singular(part)
                yield from _SYNONYMS.get(part, _SYNONYMS.get(single, single)).split()
        position += length


def _singular(word: str) -> str:
    if word in _NOT_PLURAL or len(word) < 4 or not word.endswith("s"):
        return word
    if word.endswith(("ss", "us", "is")):  # mass, hydrocephalus, stenosis
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1]
