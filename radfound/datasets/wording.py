"""Clean the texts of data sets for training: whole sentences that describe the image."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_PLAIN = str.maketrans(
    {"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "−": "-", "\\": None}
)
_MARKUP = re.compile(
    r"<\s*/?\s*[a-z][a-z0-9]*\s*/?\s*>|https?://\S+|\[[^\]]*\]|\(#\d+\)", re.IGNORECASE
)
_BULLETS = "•◦▪●■□»›·*‣"
_LIST_ITEM = re.compile(rf"^\s*[{_BULLETS}>-][\s{_BULLETS}>-]*(?!\d)")
_SENTENCE_END = re.compile(r"""(?<=[.!?])["')]?\s+(?=["'(]?[A-Z0-9])""")
_ABBREVIATED = re.compile(
    r"(?:\b(?:e\.g|i\.e|vs|approx|fig|no|dr|st|ca|cf|incl|resp)|^\W*\d{1,2})\.$", re.IGNORECASE
)
_FIGURE_NUMBER = re.compile(
    r"^(?:(?:figure|fig\.?|image|film|slide|ct image|mr image)\s*#?\s*\d+[a-z]?"
    r"(?:\s*(?:,|and|of|-|&)\s*\d+[a-z]?)*\s*[.:)-]*\s*)+",
    re.IGNORECASE,
)
_SMALL_WORDS = frozenset(
    "a an and as at by for from in into is are of on or than that the this to was which with within".split()
)
# Words that cannot end a cut sentence.
_OPEN_WORDS = _SMALL_WORDS | frozenset(
    "adjacent arising associated combined consistent containing extending indicating measuring "
    "projecting proximally representing secondary showing suggesting suggestive surrounding".split()
)
_CLAUSE_START = re.compile(
    r"[,;]? (?:[-(]|and|with|without|which|that|showing|consistent|suggestive|secondary|resulting|causing"
    r"|measuring|extending|arising|in|within|at|on|into|around|adjacent|anterior|posterior|to|from)\b"
    r"|[,;] "
)
_PLACEHOLDERS = re.compile(r"\bin progress\b|^replace this\b|\?$", re.IGNORECASE)
# Words that only place a figure in its series or hold for every figure of the set.
_NO_CONTENT = frozenset(
    "a additional and another at ct current figure follow following from image images initial later "
    "level mr mri next of on picture scan scans second selected series slice slices subsequent the "
    "third two up years".split()
)
_OTHER_MODALITIES = re.compile(
    r"\b(?:radiograph(?:s|y)?|x-?rays?|films?|cxr|kub|sonogra\w+|ultraso\w+|doppler|mammogra\w+|pet|ugi"
    r"|scintigra\w+|bone scan|barium|fluorosc\w+|endoscop\w+|photograph\w*|histolog\w+|microscop\w+"
    r"|not shown)\b|\bUS:",
    re.IGNORECASE,
)
_RADIOGRAPH = re.compile(
    r"\b(?:x-?rays?|cxr|radiograph\w*|radiological|opaci\w+|consolidations?|infiltrat\w+|ground.glass)\b",
    re.IGNORECASE,
)
_CLINICAL = re.compile(
    r"\b(?:physical|history|crackles|fever|diagnosed|presented|computed tomography|ct)\b",
    re.IGNORECASE,
)


def tidy(text: str | None) -> str:
    """Return a text on one line: lists as sentences, without bullets, markup and control characters.

    A line that begins with a bullet or a capital starts a new sentence; other lines continue the previous line,
    as in wrapped text.
    """
    plain = unicodedata.normalize("NFKC", text or "").translate(_PLAIN)
    plain = "".join(c if c.isprintable() or c in "\n\r" else " " for c in plain)
    joined = ""
    for line in re.split(rf"[\r\n]+|(?=[{_BULLETS[:5]}])", _MARKUP.sub(" ", plain)):
        item = _LIST_ITEM.match(line)
        words = re.sub(rf"[\s{_BULLETS}]+", " ", line[item.end() if item else 0 :]).strip()
        if item:
            words = words[:1].upper() + words[1:]
        if joined and joined[-1] not in ".!?:;," and not _continues(joined, words):
            joined += "."
        joined = f"{joined} {words}".strip()
    joined = re.sub(r"(?<=[a-z]{2}\.)(?=[A-Z][a-z])", " ", joined)
    joined = re.sub(r" +([.,;:])(?=\s|$)", r"\1", joined)
    return re.sub(r"([.,;:]) ?\.+(?=\s|$)", r"\1", joined)


def _continues(text: str, words: str) -> bool:
    """Return whether a new line continues the sentence of the text before it."""
    last = text.split()[-1].lower().strip("(,;:")
    return not words or not (words[0].isupper() or words[0].isdigit()) or last in _SMALL_WORDS


def sentences(text: str) -> list[str]:
    """Split a tidy text into sentences; abbreviations and list numbers do not end a sentence."""
    found: list[str] = []
    start = 0
    for gap in _SENTENCE_END.finditer(text):
        head = text[start : gap.end()].strip()
        if not _ABBREVIATED.search(head):
            found.append(head)
            start = gap.end()
    if text[start:].strip():
        found.append(text[start:].strip())
    return found


def whole_sentences(text: str | Iterable[str], limit: int) -> str:
    """Return as many whole sentences as fit into `limit` characters, the last with a full stop.

    If the first sentence is too long, it is cut at a clause, or else at a word that can end a sentence.

    Parameters
    ----------
    text : str, or sentences
        A str is passed through `tidy` first.
    limit : int
        At least 20 characters.
    """
    parts = sentences(tidy(text)) if isinstance(text, str) else list(text)
    kept = ""
    for sentence in parts:
        longer = f"{kept} {_with_full_stop(sentence)}".strip()
        if len(longer) > limit:
            break
        kept = longer
    return kept or (_cut(parts[0], limit) if parts else "")


def _with_full_stop(sentence: str) -> str:
    """Return a sentence with a full stop."""
    sentence = sentence.strip().rstrip(",;:- ")
    return sentence if not sentence or sentence[-1] in ".!?" else f"{sentence}."


def _cut(sentence: str, limit: int) -> str:
    """Cut a sentence where a clause begins, or else between two words."""
    head = sentence[: limit - 1]
    ends = [found.start() for found in _CLAUSE_START.finditer(head) if found.start() > limit // 2]
    words = head[: ends[-1] if ends else head.rfind(" ") if " " in head else limit].split()
    while len(words) > 1 and words[-1].lower().strip("(,;:") in _OPEN_WORDS:
        words.pop()
    ended = _with_full_stop(" ".join(words))
    return ended if ended.count("(") == ended.count(")") else ended.replace("(", "")


def figure_caption(text: str | None, limit: int) -> str:
    """Return the informative sentences of a caption of a CT or MR figure, or "".

    Removes figure numbers, placeholders, sentences about images of other modalities, and captions of a single
    word or of words without content.
    """
    caption = _FIGURE_NUMBER.sub("", tidy(text))
    kept = [
        part
        for part in sentences(caption)
        if not (_OTHER_MODALITIES.search(part) or _PLACEHOLDERS.search(part))
    ]
    words = re.findall(r"[a-z][a-z-]+", " ".join(kept).lower())
    if len(words) < 2 or all(word in _NO_CONTENT for word in words):
        return ""
    return whole_sentences(kept, limit)


def findings_of_figures(text: str | None, limit: int) -> str:
    """Return the findings of a CT or MR case without those of radiographs, ultrasound and the like."""
    kept = [part for part in sentences(tidy(text)) if not _OTHER_MODALITIES.search(part)]
    return whole_sentences(kept, limit)


def radiographic_findings(text: str | None, limit: int) -> str:
    """Return the sentences of a clinical note that describe the chest radiograph."""
    kept = [
        part
        for part in sentences(tidy(text))
        if _RADIOGRAPH.search(part) and not _CLINICAL.search(part)
    ]
    return whole_sentences(kept, limit)


def report_text(findings: str, impression: str) -> str:
    """Join the two sections to a report text; an empty section is omitted."""
    sections = (("Findings", findings), ("Impression", impression))
    return "\n".join(f"{name}: {text}" for name, text in sections if text)
