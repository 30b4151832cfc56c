"""Second opinions: whether the answers of several models to one question agree."""

from __future__ import annotations

import re
from collections.abc import Sequence

from radfound.question import Answer

_LEAST_COMMON = 0.5  # of the words of the shorter answer
_POLARITY = {"yes": True, "no": False}
_FILLERS = frozenset(
    "a an the is are was were there this that it of in on at and or with to".split()
)


def agree(answers: Sequence[Answer]) -> bool | None:
    """Return whether answers to one question agree, or None where words do not tell.

    Two answers that begin with yes or no agree if both say the same. Other answers agree if at least half
    of the words of the shorter one are in the longer one. Captions and reports are not compared: two good
    ones may share few words.

    Parameters
    ----------
    answers : sequence of Answer
        Of different models about one study.
    """
    if len(answers) < 2 or any(answer.task != "vqa" for answer in answers):
        return None
    first, *others = answers
    return all(_are_alike(first.text, other.text) for other in others)


def _are_alike(one: str, other: str) -> bool:
    words, more = _words(one), _words(other)
    said = _POLARITY.get(words[0]) if words else None
    if words and more and said is not None and more[0] in _POLARITY:
        return said == _POLARITY[more[0]]
    content, others = set(words) - _FILLERS, set(more) - _FILLERS
    if not content or not others:
        return content == others
    return len(content & others) / min(len(content), len(others)) >= _LEAST_COMMON


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
