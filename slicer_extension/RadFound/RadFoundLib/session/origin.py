"""Where an answer comes from, in words: a model, a classifier, a reader or the department."""

from collections.abc import Mapping
from typing import Any

from ..net.protocol import CANNOT_TELL
from ..translation import _

_IN_THE_FILE = "stated in the file"


def source_of(answer: Mapping[str, Any]) -> str:
    """Return what an answer comes from; older servers name nothing, and only models answer there."""
    return str(answer.get("source") or "model")


def is_silent(answer: Mapping[str, Any]) -> bool:
    """Whether the server does not answer, since the model cannot tell it from the picture."""
    return not is_readers(answer) and answer.get("text") == CANNOT_TELL


def is_readers(answer: Mapping[str, Any]) -> bool:
    """Whether the text is a reader's."""
    return source_of(answer) == "recall"


def is_from_header(answer: Mapping[str, Any]) -> bool:
    """Whether the answer stands in the header of the file."""
    return source_of(answer) == "field" and answer.get("reason") == _IN_THE_FILE


def own_text(answer: Mapping[str, Any]) -> str:
    """Return the model's own text where another one is shown in its place; empty otherwise."""
    own = str(answer.get("model_text") or "").strip()
    return own if own != str(answer.get("text") or "").strip() else ""


def origin_words(answer: Mapping[str, Any]) -> str:
    """Return where an answer comes from; empty for a plain answer of the model."""
    source, reason = source_of(answer), str(answer.get("reason") or "").strip()
    if source == "recall":
        if reason.startswith("confirmed"):
            words = _("Confirmed by {author} on {day}.")
        else:
            words = _("Corrected by {author} on {day}.")
        return words.format(
            author=answer.get("corrected_by") or _("a reader"),
            day=day_of(answer.get("corrected_on")),
        )
    if is_silent(answer):
        return reason
    heads = {
        "field": _("From the picture, by a classifier."),
        "head": _("By a classifier of this department's corrections."),
        "wording": _("In the department's wording."),
    }
    if is_from_header(answer):
        return _("From the header of the file.")
    # A remark of the server's about a plain answer stands alone.
    return " ".join(part for part in (heads.get(source, ""), _sentence(reason)) if part)


def others_words(answer: Mapping[str, Any]) -> list:
    """Return what other readers wrote about the same question."""
    return [
        _("{author} wrote on {day}: {text}").format(
            author=each.get("author"), day=day_of(each.get("created")), text=each.get("text")
        )
        for each in answer.get("contradictions") or []
    ]


def day_of(moment: Any) -> str:
    """Return the date of a time in ISO 8601."""
    return str(moment or "?")[:10]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""
