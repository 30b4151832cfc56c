"""Texts of the panel: states and numbers in words, and the conversation as HTML.

Every text of a model, a server or a reader is escaped in the HTML.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ..session.conversation import Turn
from ..session.origin import (
    is_from_header,
    is_readers,
    is_silent,
    origin_words,
    others_words,
    own_text,
)
from ..translation import _

SHOWN_TURNS = 30
"""Newest turns that are shown at first: laying out hundreds would keep Slicer waiting at each answer."""
EARLIER = "earlier:all"
"""Link that shows the other turns."""

_SURE, _FAIRLY_SURE, _UNSURE = 0.9, 0.7, 0.4
_NAME_CHARS, _NAME_END_CHARS = 40, 12


@dataclass(frozen=True)
class Palette:
    """HTML colours of the conversation, for Slicer's light or dark style."""

    text: str = "#1d2733"
    faint: str = "#66717d"
    question: str = "#e6eff8"
    link: str = "#0f5fa8"
    good: str = "#1f7a45"
    bad: str = "#b3372c"
    unsure: str = "#9a6700"

    @classmethod
    def dark(cls) -> "Palette":
        """Return colours for light text on a dark background."""
        return cls(
            text="#e8ecf0",
            faint="#9aa6b2",
            question="#26384a",
            link="#7db8ee",
            good="#7fcf9d",
            bad="#f0978d",
            unsure="#e3b04b",
        )


# Words ----------------------------------------------------------------------------------------


def confidence_words(confidence: Optional[float]) -> str:
    """Return a calibrated probability as a word and a percentage."""
    if confidence is None:
        return _("confidence not known")
    if confidence >= _SURE:
        word = _("sure")
    elif confidence >= _FAIRLY_SURE:
        word = _("fairly sure")
    elif confidence >= _UNSURE:
        word = _("unsure")
    else:
        word = _("a guess")
    # No calibration measures certainty.
    return _("{word} ({percent} %)").format(word=word, percent=min(99, round(100 * confidence)))


def certainty_words(answer: Mapping[str, Any]) -> str:
    """Return how sure an answer is; a reader's text and one that is not given have no confidence."""
    if is_readers(answer):
        return _("a reader's text")
    if is_silent(answer):
        return _("not answered")
    if is_from_header(answer):
        return _("from the header")
    return confidence_words(answer.get("confidence"))


def effect_words(effect: Mapping[str, Any]) -> str:
    """Return what a correction changes on studies that no reader has corrected."""
    count = len(effect["changes"])
    if count == 1:
        words = _("Changes the answer on 1 unread study.")
    elif count:
        words = _("Changes the answer on {count} unread studies.").format(count=count)
    else:
        words = _("Changes the answer on no other study yet.")
    if effect.get("not_examined"):
        words += " " + _("{count} are not examined yet.").format(count=effect["not_examined"])
    if effect.get("proposals"):
        words += " " + _("A wording is proposed in the section Teach.")
    return words


def model_words(model: Mapping[str, Any]) -> str:
    """Return the names of a model and its adapter."""
    name = str(model.get("name", "?"))
    adapter = model.get("adapter")
    return _("{name}, adapter {adapter}").format(name=name, adapter=adapter) if adapter else name


def task_words(task: str) -> str:
    """Return the name of a task."""
    return {"caption": _("Caption"), "report": _("Report")}.get(task, _("Question"))


def study_words(study: Mapping[str, Any]) -> str:
    """Return a readable name of a study: the server's, with a long hash cut short."""
    name = str(study.get("name") or study["id"])
    return re.sub(r"([0-9a-f]{8})[0-9a-f]{16,}", r"\1", name)


def short_name(name: str) -> str:
    """Return a name that does not widen the panel: the middle of a long one is left out."""
    if len(name) <= _NAME_CHARS:
        return name
    return f"{name[: _NAME_CHARS - _NAME_END_CHARS - 1]}…{name[-_NAME_END_CHARS:]}"


def title_words(text: str) -> str:
    """Return the title of a section, in which a single & would underline the next letter."""
    return text.replace("&", "&&")


def verdict_words(verdict: str) -> str:
    """Return a verdict in words."""
    words = {"accepted": _("accepted"), "edited": _("edited"), "rejected": _("rejected")}
    return words.get(verdict, verdict)


def duration_words(seconds: float) -> str:
    """Return a rounded duration with its unit."""
    if seconds < 90:
        return _("{count} s").format(count=max(1, round(seconds)))
    return _("{count} min").format(count=round(seconds / 60))


def size_words(count: int) -> str:
    """Return a number of bytes in kB or MB."""
    if count < 1 << 20:
        return _("{count} kB").format(count=max(1, round(count / (1 << 10))))
    return _("{count} MB").format(count=round(count / (1 << 20)))


def training_words(status: Any, has_all_checks: bool = True) -> str:
    """Return a training's progress or outcome, with all checks or those that failed.

    Parameters
    ----------
    status : TrainingStatus or None
    has_all_checks : bool
    """
    if status is None or status.state == "idle":
        return _("No training yet.")
    if status.state == "running":
        return _running_words(status)
    if status.state == "published":
        head = _("Passed its checks: the model answers with {adapter} from now on.")
        if any(check.passed is False for check in status.checks):
            head = _(
                "Published although a check failed: the model answers with {adapter} from now on."
            )
        head = head.format(adapter=status.adapter or _("a new adapter"))
        return "\n".join([head, *_checks_words(status.checks, has_all_checks)])
    if status.state == "refused":
        head = _("Did not pass its checks, so nothing changed.")
        return "\n".join([head, *_checks_words(status.checks, has_all_checks)])
    if status.state == "stopped":
        return _("The training was stopped; nothing changed.")
    return _("The training failed, and nothing changed: {why}.").format(
        why=status.message.rstrip(".") or _("see the server's log")
    )


def _running_words(status: Any) -> str:
    words = _("Learning.")
    if status.corrections == 1:
        words = _("Learning from 1 correction.")
    elif status.corrections is not None:
        words = _("Learning from {count} corrections.").format(count=status.corrections)
    if status.phase:
        words += " " + _("Now: {phase}.").format(phase=status.phase)
    if status.seconds_left is not None:
        left = duration_words(status.seconds_left)
        words += " " + _("About {left} left.").format(left=left)
    return words


def _checks_words(checks: Sequence, has_all: bool) -> list:
    """Return the checks in words, failures first: they are the reason of a refusal."""
    found = sorted(checks, key=lambda check: check.passed is not False)
    return [_check_words(check) for check in found if has_all or check.passed is False]


def _check_words(check: Any) -> str:
    words = check.words or _("not done")
    if check.passed is None:
        return _("– {check}: {outcome}").format(check=check.name, outcome=words)
    if check.passed:
        return _("✓ {check}: {outcome}").format(check=check.name, outcome=words)
    return _("✗ FAILED {check}: {outcome}").format(check=check.name, outcome=words)


# Conversation ---------------------------------------------------------------------------------


def conversation_html(
    turns: Sequence, palette: Palette, fold_below: float = 0.0, is_whole: bool = False
) -> str:
    """Return turns as HTML, with links such as `accept:ID` under each complete answer.

    Parameters
    ----------
    turns : sequence of Turn
    palette : Palette
    fold_below : float
        Answers with a lower confidence are folded until the reader opens them.
    is_whole : bool
        Whether more than the newest turns are shown.
    """
    shown = turns if is_whole else turns[-SHOWN_TURNS:]
    html_of_turns = "".join(
        _turn_html(turn, palette, fold_below, gap=12 if index else 0)
        for index, turn in enumerate(shown)
    )
    left_out = len(turns) - len(shown)
    if not left_out:
        return html_of_turns
    words = _("Show {count} earlier answers").format(count=left_out)
    link = f'<a href="{EARLIER}" style="color:{palette.link}">{escape(words)}</a>'
    return f'<p style="margin:5px">{link}</p>{html_of_turns}'


def hint_html(text: str, palette: Palette) -> str:
    """Return the HTML of an empty conversation."""
    return f'<p style="margin:8px; color:{palette.faint}">{escape(text)}</p>'


def is_folded(turn: Turn, fold_below: float) -> bool:
    """Whether an answer is hidden behind "the model is not sure"."""
    answer = turn.answer or {}
    confidence = None if is_readers(answer) else answer.get("confidence")
    is_unsure = isinstance(confidence, (int, float)) and confidence < fold_below
    return is_unsure and turn.verdict is None and not turn.is_unfolded


def _turn_html(turn: Turn, palette: Palette, fold_below: float, gap: int) -> str:
    asked = escape(turn.question or task_words(turn.task))
    if turn.where:
        asked += f' <span style="color:{palette.faint}">· {escape(turn.where)}</span>'
    head = (
        f'<table width="100%" cellspacing="0" cellpadding="5" style="margin-top:{gap}px"><tr>'
        f'<td bgcolor="{palette.question}" style="color:{palette.text}"><b>{asked}</b></td>'
        f"</tr></table>"
    )
    if turn.answer is None:
        # The answer comes last, outside the table, so that streamed text can be appended.
        return (
            f'{head}<p style="margin:5px; color:{palette.text}">'
            f"{_open_html(turn, palette)}{_footer_html(turn, palette)}</p>"
        )
    if is_folded(turn, fold_below):
        shown = (
            f'<b style="color:{palette.unsure}">{escape(_("The model is not sure."))}</b> '
            + _link("unfold", turn, _("Show its answer"), palette)
        )
        footer = ""
    else:
        shown, footer = _answer_html(turn, palette), _footer_html(turn, palette)
    # A bar at the left tells a sure answer from an unsure one at a glance.
    return (
        f'{head}<table width="100%" cellspacing="0" cellpadding="5"><tr>'
        f'<td width="2" bgcolor="{_bar(turn, palette)}"></td>'
        f'<td style="color:{palette.text}">{shown}{footer}</td></tr></table>'
    )


def _bar(turn: Turn, palette: Palette) -> str:
    if turn.verdict is not None:
        return palette.bad if turn.verdict == "rejected" else palette.good
    if is_readers(turn.answer or {}):
        return palette.good
    if turn.is_silent:
        return palette.unsure
    if is_from_header(turn.answer or {}):
        return palette.link
    confidence = (turn.answer or {}).get("confidence")
    if confidence is None:
        return palette.faint
    return palette.link if confidence >= _FAIRLY_SURE else palette.unsure


def _open_html(turn: Turn, palette: Palette) -> str:
    if turn.state == "failed":
        text = escape(turn.text) + "<br>" if turn.text else ""
        return text + f'<span style="color:{palette.bad}">{escape(turn.error)}</span>'
    if turn.state == "waiting":
        return f'<span style="color:{palette.faint}">{escape(_("Loading the study …"))}</span>'
    if not turn.text.strip() and not turn.is_open:
        return _nothing(palette)
    return escape(turn.text)


def _nothing(palette: Palette) -> str:
    return f'<span style="color:{palette.faint}">{escape(_("(no words)"))}</span>'


def _answer_html(turn: Turn, palette: Palette) -> str:
    """Return the report or answer as it stands: a reader's correction before the model's text."""
    if turn.verdict == "edited":
        sections = turn.draft.sections() if turn.draft is not None else {"": turn.correction}
        shown = _sections_html(sections)
    else:
        sections = (turn.answer or {}).get("sections") or {"": turn.text}
        shown = _sections_html(sections) or escape(turn.text) or _nothing(palette)
        if turn.is_silent:
            shown = f'<b style="color:{palette.unsure}">{shown}</b>'
        if turn.verdict == "rejected":
            shown = f'<span style="color:{palette.faint}"><s>{shown}</s></span>'
            if turn.correction.strip():
                shown = escape(turn.correction) + "<br>" + shown
    answer = turn.answer or {}
    if turn.verdict is None:
        remarks = [origin_words(answer), *others_words(answer)]
        shown += "".join(_small(escape(each), palette.faint) for each in remarks if each)
    own = own_text(answer)
    if turn.verdict == "edited" or own:
        shown += _own_text_html(turn, own, palette)
    return shown


def _own_text_html(turn: Turn, own: str, palette: Palette) -> str:
    """Return what the model itself wrote, folded until the reader opens it."""
    is_guess = not turn.verdict and is_silent(turn.answer or {})
    if not turn.is_unfolded:
        words = _("Show the model's guess") if is_guess else _("Show the model's text")
        if is_readers(turn.answer or {}) and not own:
            words = _("Show the earlier text")
        return _small(_link("unfold", turn, words, palette), palette.faint)
    text = f"<s>{escape(turn.model_text)}</s>"
    if own and turn.verdict is None:
        words = _("The model's guess: {text}") if is_guess else _("The model's text: {text}")
        text = escape(words.format(text=own))
    return f'<br><br><span style="color:{palette.faint}">{text}</span>'


def _slices_html(turn: Turn, palette: Palette) -> str:
    """Return the slices that the model was shown, folded until the reader opens them."""
    shown = (turn.answer or {}).get("shown") or {}
    slices = shown.get("slices") or []
    if not slices:
        return ""
    words = _("Shown to the model: {what}").format(
        what=shown.get("note") or _("{count} pictures").format(count=len(slices))
    )
    if not turn.has_open_slices:
        return _small(_link("slices", turn, words, palette), palette.faint)
    return _small("<br>".join(escape(each) for each in [words, *slices]), palette.faint)


def _sections_html(sections: Mapping[str, Any]) -> str:
    return "<br><br>".join(
        (f"<b>{escape(section_words(name))}</b><br>" if name else "") + escape(text)
        for name, text in sections.items()
        if str(text).strip()
    )


def _certainty_html(answer: Mapping[str, Any], palette: Palette) -> list:
    """Return the confidence, for an answer that has one or should have one."""
    confidence = answer.get("confidence")
    if is_readers(answer) or is_silent(answer) or is_from_header(answer):
        return []
    words = escape(confidence_words(confidence))
    if confidence is None or confidence < _FAIRLY_SURE:
        words = f'<b style="color:{palette.unsure}">{words}</b>'
    return [words]


def _footer_html(turn: Turn, palette: Palette) -> str:
    if turn.is_open:
        return ""
    if turn.answer is None:
        parts = [escape(_("stopped"))] if turn.state == "stopped" else []
        if turn.can_be_asked_again:
            parts.append(_link("again", turn, _("Ask again"), palette))
        return _small(" &nbsp;·&nbsp; ".join(parts), palette.faint)
    rest = [] if is_readers(turn.answer) else [model_words(turn.answer["model"])]
    if turn.answer.get("finished") is False:
        rest.append(_("cut off at the maximum length"))
    certainty = [] if turn.verdict == "edited" else _certainty_html(turn.answer, palette)
    parts = [*certainty, *map(escape, rest)]
    lines = _small(" · ".join(parts), palette.faint) if parts else ""
    lines += _slices_html(turn, palette)
    if turn.verdict:
        colour = palette.bad if turn.verdict == "rejected" else palette.good
        words = escape(verdict_words(turn.verdict))
        if turn.correction_id:
            words += " &nbsp;·&nbsp; " + _link("takeback", turn, _("Take back"), palette)
        return lines + _small(words, colour)
    links = " &nbsp;·&nbsp; ".join(
        _link(action, turn, word, palette) for action, word in _offers(turn)
    )
    return lines + _small(links, palette.faint)


def _offers(turn: Turn) -> list:
    """Return the links under an answer without a verdict, as (action, word)."""
    offers = [("accept", _("Accept")), ("edit", _("Edit")), ("reject", _("Reject"))]
    if turn.is_silent:
        return [("edit", _("Write the answer"))]
    if is_readers(turn.answer or {}):
        offers.append(("itself", _("Ask the model itself")))
    return offers


def _link(action: str, turn: Turn, word: str, palette: Palette) -> str:
    return f'<a href="{action}:{turn.id}" style="color:{palette.link}">{escape(word)}</a>'


def _small(content: str, colour: str) -> str:
    return f'<br><span style="color:{colour}; font-size:small">{content}</span>'


def section_words(name: str) -> str:
    """Return the name of a report's section."""
    return {"findings": _("Findings"), "impression": _("Impression")}.get(name, name.capitalize())


def escape(text: Any) -> str:
    """Escape text for HTML and keep its line breaks."""
    return html.escape(str(text), quote=True).replace("\n", "<br>")


# Files -----------------------------------------------------------------------------------


def turn_text(turn: Turn) -> str:
    """Return a turn as plain text, to copy, export or save in the scene."""
    head = turn.question or task_words(turn.task)
    lines = [head + (f" ({turn.where})" if turn.where else ""), "", _body_text(turn), ""]
    if turn.answer is not None:
        lines += [
            words for words in (origin_words(turn.answer), *others_words(turn.answer)) if words
        ]
        if not is_readers(turn.answer):
            lines.append(f"{model_words(turn.answer['model'])}; {certainty_words(turn.answer)}")
    if turn.verdict == "edited":
        lines.append(_("Edited by the reader."))
    elif turn.verdict:
        lines.append(_("By the reader: {verdict}.").format(verdict=verdict_words(turn.verdict)))
    lines.append(_("Written by a research model; not for diagnosis."))
    return "\n".join(lines) + "\n"


def print_html(turns: Iterable, study: str) -> str:
    """Return a conversation as HTML for a page of paper."""
    parts = []
    for turn in turns:
        head = escape(turn.question or task_words(turn.task))
        parts.append(
            f"<h3>{head}</h3><p>{escape(turn_text(turn).partition(chr(10))[2].strip())}</p>"
        )
    return f"<h2>{escape(study)}</h2>" + "<hr>".join(parts)


def conversation_text(turns: Iterable) -> str:
    """Return a conversation's turns as plain text."""
    return ("\n" + "-" * 40 + "\n\n").join(turn_text(turn) for turn in turns)


def _body_text(turn: Turn) -> str:
    if turn.verdict == "edited":
        sections = turn.draft.sections() if turn.draft is not None else {}
    else:
        sections = (turn.answer or {}).get("sections") or {}
    if any(str(text).strip() for text in sections.values()):
        return "\n\n".join(
            f"{section_words(name)}\n{text}" if name else str(text)
            for name, text in sections.items()
            if text
        )
    return turn.final_text
