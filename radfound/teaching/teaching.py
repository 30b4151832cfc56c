"""The entry point of teaching: what corrections say about one question, before and after the model's answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from radfound.correction import Correction
from radfound.exceptions import NotFoundError, RequestError
from radfound.fields.questions import answer_chances
from radfound.question import Question
from radfound.records.corrections import Withdrawal
from radfound.teaching.decisions import Decision, Decisions
from radfound.teaching.heads import Features, Head, closed_questions, fit_head
from radfound.teaching.questions import question_key
from radfound.teaching.recall import Log, Memory, confirmed_rows, recalled
from radfound.teaching.taught import Taught
from radfound.teaching.wording import FEWEST, Template, propose

StudyFields = Callable[[str], Mapping[str, str]]
"""From the digest of a study to what is known of it, {field: value}; empty if nothing is cached."""
StudyChances = Callable[[str], Mapping[str, Mapping[str, float]]]
"""From the digest of a study to the probability of each class of each field and finding; empty if nothing is cached."""


@dataclass(frozen=True)
class TemplateState:
    """A template as a person sees it.

    Parameters
    ----------
    template : Template
    state : {"proposed", "accepted", "refused", "replaced", "unsupported"}
        "replaced": accepted, and another one was accepted later for the same question.
        "unsupported": accepted, but fewer than two of its corrections still hold, so it is not applied.
    decision : Decision or None
        The newest one.
    """

    template: Template
    state: str
    decision: Decision | None


@dataclass(frozen=True)
class _Fitted:
    """The head of a question, None if there can be none, and the corrections of that moment."""

    state: int
    corrections: tuple[str, ...]
    head: Head | None


class Teaching:
    """What corrections teach at once. Thread-safe.

    Parameters
    ----------
    log : CorrectionLog
    decisions : Decisions
        About proposed templates.
    features : callable, optional
        From a study's digest to its cached features, for heads.
    fields : callable, optional
        From a study's digest to its cached fields, for wording.
    chances : callable, optional
        From a study's digest to its cached chances, from which the heads of questions about fields start.
    patient : callable, optional
        From a correction to its patient, whose studies are held out together when a head is examined.
    confirm : int
        Number of readers who must agree on a text before it is learnt from; recall shows it before.
    """

    def __init__(
        self,
        log: Log,
        decisions: Decisions,
        *,
        features: Features | None = None,
        fields: StudyFields | None = None,
        chances: StudyChances | None = None,
        patient: Callable[[Correction], str | None] | None = None,
        confirm: int = 1,
    ):
        if confirm < 1:
            raise RequestError(f"confirm: found {confirm}; expected 1 or more readers")
        self._memory = Memory(log)
        self._decisions = decisions
        self._features = features
        self._fields = fields
        self._chances = chances
        self._patient = patient
        self._confirm = confirm
        self._lock = threading.Lock()
        self._heads: dict[Hashable, _Fitted] = {}
        self._proposed: tuple[int, list[Template]] = (-1, [])

    # Answers ----------------------------------------------------------------------------------

    def before_answer(
        self, digest: str | None, images: Sequence[str], question: Question
    ) -> Taught | None:
        """Return what readers said about this question of this study, or None.

        Parameters
        ----------
        digest : str or None
            Of the study.
        images : sequence of str
            Ids of the study's images, in order.
        question : Question
        """
        return recalled(self._memory.about(digest, images, question), self._confirm)

    def after_answer(
        self,
        digest: str | None,
        images: Sequence[str],
        question: Question,
        model_text: str | None,
        *,
        features: np.ndarray | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Taught | None:
        """Return what takes the place of the model's text, with that text folded, or None.

        Recall comes first, then a head that is better than the model, then the department's wording.

        Parameters
        ----------
        digest, images, question
            As for `before_answer`.
        model_text : str or None
            The model's own text, None where it was not asked.
        features, fields : array and mapping, optional
            Of this study; by default those that are cached.
        """
        found = self.before_answer(digest, images, question)
        if found is None or found.text is None:
            other = self._head_answer(digest, question, model_text, features) or self._worded(
                digest, question, fields
            )
            if found is not None and other is not None:
                reason = f"{other.reason}; {found.reason}"
                other = replace(other, reason=reason, rejected_by=found.rejected_by)
            found = other or found
        return None if found is None else replace(found, model_text=model_text)

    def takes_features(self, question: Question) -> bool:
        """Return whether a head or a template answers this question about studies whose features are kept."""
        head = self.head(question)
        key = question_key(question.task, question.text)
        return (
            head is not None and head.compared.beats_guessing
        ) or key in self._decisions.accepted()

    # Heads ------------------------------------------------------------------------------------

    def head(self, question: Question) -> Head | None:
        """Return the head of a question, whether or not it is good enough to be used."""
        if self._features is None or question.task != "vqa" or question.region is not None:
            return None
        key = question_key(question.task, question.text)
        state = self._memory.state
        with self._lock:
            known = self._heads.get(key)
        if known is not None and known.state == state:
            return known.head
        rows = confirmed_rows(self._memory.asked(question), self._confirm)
        ids = tuple(row.id for row in rows)
        if known is not None and known.corrections == ids:
            head = known.head
        else:
            some = closed_questions(rows).get(key, [])
            head = self._fitted(some) if some else None
        with self._lock:
            self._heads[key] = _Fitted(state, ids, head)
        return head

    def _fitted(self, rows: Sequence[Correction]) -> Head | None:
        assert self._features is not None
        return fit_head(
            rows,
            self._features,
            self._patient,
            lambda row: self.fields_of(row.image_hash).get("modality"),
            self._known,
        )

    def _known(
        self, digest: str, question: str, answers: Sequence[str]
    ) -> Mapping[str, float] | None:
        """Return what the fields' classifiers know of the answers to a question, None if nothing."""
        return answer_chances(question, answers, self._chances(digest)) if self._chances else None

    def heads(self) -> list[Head]:
        """Return the heads of all questions with enough corrections, used or not."""
        asked = closed_questions(confirmed_rows(self._memory.rows(), self._confirm)).values()
        found = (self.head(Question("vqa", some[-1].question)) for some in asked)
        return [head for head in found if head is not None]

    def _head_answer(
        self,
        digest: str | None,
        question: Question,
        model_text: str | None,
        features: np.ndarray | None,
    ) -> Taught | None:
        head = self.head(question)
        if head is None or not head.compared.is_better_than(model_text):
            return None
        if features is None and digest is not None and self._features is not None:
            features = self._features(digest)
        modality = self.fields_of(digest).get("modality")
        if features is None or not head.knows(features, modality):
            return None
        known = self._known(digest, question.text or "", head.answers) if digest else None
        text, confidence = head.answer(features, known)
        reason = f"learnt from {len(head.corrections)} corrections: {head.compared.told()}"
        return Taught("head", text, reason, confidence=confidence, version=f"head {head.version}")

    # Wording ----------------------------------------------------------------------------------

    def templates(self) -> list[TemplateState]:
        """Return the templates that were proposed or decided about, those that ask for a decision first."""
        decided = self._decisions.newest()
        proposed = {each.id: each for each in self._proposals()}
        accepted = {each.template.id for each in self._decisions.accepted().values()}
        found = [
            TemplateState(each, "proposed", None)
            for each in proposed.values()
            if each.id not in decided
        ]
        for decision in decided.values():
            template, state = decision.template, str(decision.state)
            if state == "accepted" and template.id not in accepted:
                state = "replaced"
            elif state == "accepted" and not self._is_supported(template, proposed):
                state = "unsupported"
            found.append(TemplateState(template, state, decision))
        return found

    def accept(self, template: str, author: str) -> Decision:
        """Apply a template from the next answer on; NotFoundError if it was never proposed."""
        return self._decisions.decide(self._template(template), "accepted", author)

    def refuse(self, template: str, author: str) -> Decision:
        """Do not propose or apply a template; NotFoundError if it was never proposed."""
        return self._decisions.decide(self._template(template), "refused", author)

    def _template(self, template: str) -> Template:
        for each in self._proposals():
            if each.id == template:
                return each
        decided = self._decisions.newest().get(template)
        if decided is None:
            raise NotFoundError(f"template: none with the id {template[:40]!r} is proposed")
        return decided.template

    def _proposals(self) -> list[Template]:
        if self._fields is None:
            return []
        state = self._memory.state
        with self._lock:
            # What is known of studies grows without a correction, so no proposal is asked for again.
            if self._proposed[0] == state and self._proposed[1]:
                return self._proposed[1]
        rows = confirmed_rows(self._memory.rows(), self._confirm)
        fields = partial(_fields_of, self._fields)
        found = propose(rows, fields)
        with self._lock:
            self._proposed = (state, found)
        return found

    def _is_supported(self, template: Template, proposed: Mapping[str, Template]) -> bool:
        """Whether two of a template's corrections still hold."""
        named = set(template.corrections)
        if template.id in proposed:
            named |= set(proposed[template.id].corrections)
        return self._memory.count_of(named) >= FEWEST

    def _worded(
        self, digest: str | None, question: Question, fields: Mapping[str, str] | None
    ) -> Taught | None:
        if question.region is not None:
            return None
        decision = self._decisions.accepted().get(question_key(question.task, question.text))
        if decision is None:
            return None
        proposed = {each.id: each for each in self._proposals()}
        if not self._is_supported(decision.template, proposed):
            return None
        known = self.fields_of(digest) if fields is None else _lower(fields)
        text = decision.template.apply(known)
        if text is None:
            return None
        reason = f"in the wording that {decision.author} accepted on {decision.created[:10]}"
        return Taught("wording", text, reason, version=f"template {decision.version}")

    # Previews ---------------------------------------------------------------------------------

    @property
    def memory(self) -> Memory:
        """The corrections that hold."""
        return self._memory

    def fields_of(self, digest: str | None) -> Mapping[str, str]:
        """Return the cached fields of a study; empty if none is known."""
        return _lower(self._fields(digest)) if self._fields and digest is not None else {}

    @property
    def features(self) -> Features | None:
        """Gives the cached features of a study, where there are any."""
        return self._features

    @property
    def confirm(self) -> int:
        """Number of readers who must agree on a text before it is learnt from."""
        return self._confirm

    def over(self, rows: Iterable[Correction]) -> Teaching:
        """Return the same teaching over other corrections, to compare what they change."""
        return Teaching(
            _Fixed(list(rows)),
            self._decisions,
            features=self._features,
            fields=self._fields,
            chances=self._chances,
            patient=self._patient,
            confirm=self._confirm,
        )


class _Fixed:
    """Corrections in place of a log."""

    def __init__(self, rows: Sequence[Correction]):
        self._rows: list[tuple[int, Correction | Withdrawal]] = list(enumerate(rows, start=1))

    def since(self, number: int) -> tuple[int, list[tuple[int, Correction | Withdrawal]]]:
        """Return what `CorrectionLog.since` would."""
        return len(self._rows), self._rows[number:]


def _lower(fields: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in fields.items()}


def _fields_of(fields: StudyFields, row: Correction) -> Mapping[str, str]:
    return fields(row.image_hash) if row.image_hash is not None else {}
