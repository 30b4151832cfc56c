"""Texts of data sets as a model should learn to say them: whole sentences, and only about the picture."""

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
# Words after which a sentence that was cut would still be open.
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
# Words that place a figure in its series, or say what every figure of the set is.
_SAYS_NOTHING = frozenset(
    "a additional and another at ct current figure follow following from image images initial later "
    "level mr mri next of on picture scan scans second selected series slice slices subsequent the "
    "third two up years".split()
)
_OTHER_PICTURES = re.compile(
    r"\b(?:radiograph(?:s|y)?|x-?rays?|films?|cxr|kub|sonogra\w+|ultraso\w+|doppler|mammogra\w+|pet|ugi"
    r"|scintigra\w+|bone scan|barium|fluorosc\w+|endoscop\w+|photograph\w*|histolog\w+|microscop\w+"
    r"|not shown)\b|\bUS:",
    re.IGNORECASE,
)
_RADIOGRAPH = re.compile(
    r"\b(?:x-?rays?|cxr|radiograph\w*|radiological|opaci\w+|consolidations?|infiltrat\w+|ground.glass)\b",
    re.IGNORECASE,
)
_AT_THE_BEDSIDE = re.compile(
    r"\b(?:physical|history|crackles|fever|diagnosed|presented|computed tomography|ct)\b",
    re.IGNORECASE,
)


def tidy(text: str | None) -> str:
    """Return a text on one line: lists as sentences, no bullets, no markup, no odd characters.

    A line that begins with a bullet or a capital begins a sentence of its own; any other line goes on
    from the one before, as in texts that were wrapped.
    """
    plain = unicodedata.normalize("NFKC", text or "").translate(_PLAIN)
    plain = "".join(c if c.isprintable() or c in "\n\r" else " " for c in plain)
    said = ""
    for line in re.split(rf"[\r\n]+|(?=[{_BULLETS[:5]}])", _MARKUP.sub(" ", plain)):
        item = _LIST_ITEM.match(line)
        words = re.sub(rf"[\s{_BULLETS}]+", " ", line[item.end() if item else 0 :]).strip()
        if item:
            words = words[:1].upper() + words[1:]
        if said and said[-1] not in ".!?:;," and not _goes_on(said, words):
            said += "."
        said = f"{said} {words}".strip()
    said = re.sub(r"(?<=[a-z]{2}\.)(?=[A-Z][a-z])", " ", said)
    said = re.sub(r" +([.,;:])(?=\s|$)", r"\1", said)
    return re.sub(r"([.,;:]) ?\.+(?=\s|$)", r"\1", said)


def _goes_on(said: str, words: str) -> bool:
    """Tell whether a line was wrapped, rather than ended, before these words."""
    last = said.split()[-1].lower().strip("(,;:")
    return not words or not (words[0].isupper() or words[0].isdigit()) or last in _SMALL_WORDS


def sentences(text: str) -> list[str]:
    """Divide a tidy text into sentences; abbreviations and list numbers do not end one."""
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

    Where not even the first fits, it is cut at a clause, or else at a word that can end a sentence.

    Parameters
    ----------
    text : str, or sentences
        A str is made tidy first.
    limit : int
        At least 20 characters.
    """
    parts = sentences(tidy(text)) if isinstance(text, str) else list(text)
    kept = ""
    for sentence in parts:
        longer = f"{kept} {_ended(sentence)}".strip()
        if len(longer) > limit:
            break
        kept = longer
    return kept or (_cut(parts[0], limit) if parts else "")


def _ended(sentence: str) -> str:
    """Put a full stop behind a sentence that has none."""
    sentence = sentence.strip().rstrip(",;:- ")
    return sentence if not sentence or sentence[-1] in ".!?" else f"{sentence}."


def _cut(sentence: str, limit: int) -> str:
    """Cut a sentence where a clause begins, or else between two words."""
    head = sentence[: limit - 1]
    ends = [found.start() for found in _CLAUSE_START.finditer(head) if found.start() > limit // 2]
    words = head[: ends[-1] if ends else head.rfind(" ") if " " in head else limit].split()
    while len(words) > 1 and words[-1].lower().strip("(,;:") in _OPEN_WORDS:
        words.pop()
    ended = _ended(" ".join(words))
    return ended if ended.count("(") == ended.count(")") else ended.replace("(", "")


def figure_caption(text: str | None, limit: int) -> str:
    """Return what a caption of a CT or MR figure says about it, or "" where it says nothing.

    Left out are figure numbers, placeholders, sentences about pictures of another kind, and captions
    that are a single word or only say that this is an image.
    """
    said = _FIGURE_NUMBER.sub("", tidy(text))
    kept = [
        part
        for part in sentences(said)
        if not (_OTHER_PICTURES.search(part) or _PLACEHOLDERS.search(part))
    ]
    words = re.findall(r"[a-z][a-z-]+", " ".join(kept).lower())
    if len(words) < 2 or all(word in _SAYS_NOTHING for word in words):
        return ""
    return whole_sentences(kept, limit)


def findings_of_figures(text: str | None, limit: int) -> str:
    """Return the findings of a CT or MR case without those of radiographs, ultrasound and the like."""
    kept = [part for part in sentences(tidy(text)) if not _OTHER_PICTURES.search(part)]
    return whole_sentences(kept, limit)


def radiographic_findings(text: str | None, limit: int) -> str:
    """Return the sentences of a clinical note that speak of what a chest radiograph shows."""
    kept = [
        part
        for part in sentences(tidy(text))
        if _RADIOGRAPH.search(part) and not _AT_THE_BEDSIDE.search(part)
    ]
    return whole_sentences(kept, limit)


def report_text(findings: str, impression: str) -> str:
    """Join the two sections as `radfound` writes and reads reports; an absent one is left out."""
    sections = (("Findings", findings), ("Impression", impression))
    return "\n".join(f"{name}: {text}" for name, text in sections if text)
