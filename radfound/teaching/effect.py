"""A preview of what one correction changes on unread studies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from radfound.question import Question
from radfound.teaching.questions import same_answer
from radfound.teaching.taught import Source, Taught
from radfound.teaching.teaching import Teaching


@dataclass(frozen=True)
class Unread:
    """A study that no reader has corrected.

    Parameters
    ----------
    images : tuple of str
    digest : str or None
        None if it is not known yet.
    text : str or None
        The model's own answer to the question, where it is on record.
    """

    images: tuple[str, ...]
    digest: str | None
    text: str | None = None


@dataclass(frozen=True)
class Change:
    """One study whose answer a correction changes.

    Parameters
    ----------
    images : tuple of str
    before : str or None
        None if the model answers and its answer is not on record.
    after : str or None
    source : {"model", "recall", "wording", "field", "head"}
        What the new answer comes from.
    """

    images: tuple[str, ...]
    before: str | None
    after: str | None
    source: Source


@dataclass(frozen=True)
class Proposal:
    """A template that this correction completes, and what it would change once a person accepts it."""

    template: str
    text: str
    studies: int


@dataclass(frozen=True)
class Effect:
    """What one correction changes.

    Parameters
    ----------
    correction : str
    question : str or None
    changes : tuple of Change
        Answers that differ with and without the correction, as far as they are known.
    examined : int
        Unread studies with a digest.
    not_examined : int
        Unread studies whose digest is not known.
    proposals : tuple of Proposal
    """

    correction: str
    question: str | None
    changes: tuple[Change, ...]
    examined: int
    not_examined: int
    proposals: tuple[Proposal, ...] = ()

    def told(self) -> str:
        """Return the effect in one sentence."""
        studies = "study" if len(self.changes) == 1 else "studies"
        return f"this correction changes the answer on {len(self.changes)} unread {studies}"


def effect_of(teaching: Teaching, correction: str, unread: Iterable[Unread]) -> Effect:
    """Compare the answers to a correction's question with and without the correction.

    Parameters
    ----------
    teaching : Teaching
    correction : str
        Id of a correction that holds; a withdrawn one changes nothing.
    unread : iterable of Unread
        The correction's own study is left out.

    Returns
    -------
    Effect
    """
    rows = teaching.memory.rows()
    row = next((each for each in rows if each.id == correction), None)
    studies = list(unread)
    known = [each for each in studies if each.digest is not None]
    if row is None:
        return Effect(correction, None, (), len(known), len(studies) - len(known))
    question = Question(row.task, row.question, region=row.region)
    others = [each for each in known if each.images != row.images]
    without = teaching.over(each for each in rows if each.id != correction)
    changes = []
    for study in others:
        before, after = (
            some.after_answer(study.digest, study.images, question, study.text)
            for some in (without, teaching)
        )
        if not _same(before, after, study.text):
            source = after.source if after is not None else "model"
            changes.append(Change(study.images, _text(before, study), _text(after, study), source))
    return Effect(
        correction,
        row.question,
        tuple(changes),
        len(known),
        len(studies) - len(known),
        _proposals(teaching, correction, question, others),
    )


def _same(before: Taught | None, after: Taught | None, model_text: str | None) -> bool:
    texts = [
        model_text if each is None or each.text is None else each.text for each in (before, after)
    ]
    if texts[0] is None or texts[1] is None:
        return texts[0] is texts[1]
    return same_answer(texts[0], texts[1])


def _text(taught: Taught | None, study: Unread) -> str | None:
    return study.text if taught is None or taught.text is None else taught.text


def _proposals(
    teaching: Teaching, correction: str, question: Question, others: list[Unread]
) -> tuple[Proposal, ...]:
    found = []
    for each in teaching.templates():
        template = each.template
        if each.state == "proposed" and correction in template.corrections:
            texts = [template.apply(teaching.fields_of(study.digest)) for study in others]
            changed = [
                text
                for text, study in zip(texts, others, strict=True)
                if text is not None and not (study.text and same_answer(text, study.text))
            ]
            if template.fits(question):
                found.append(Proposal(template.id, template.text, len(changed)))
    return tuple(found)
