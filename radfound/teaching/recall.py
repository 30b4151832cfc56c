"""Recall: a corrected question about the same study is answered with the reader's text."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Protocol

from radfound.correction import Correction, is_blank
from radfound.question import Question
from radfound.records.corrections import Withdrawal
from radfound.study.region import Box, Plane, region_key
from radfound.teaching.questions import answer_key, exact_key, needs_history, question_key
from radfound.teaching.taught import Reading, Taught


class Log(Protocol):
    """Where corrections come from: a CorrectionLog, or a list in its place."""

    def since(self, number: int) -> tuple[int, list[tuple[int, Correction | Withdrawal]]]:
        """Return what was recorded after a row, as `CorrectionLog.since` does."""


_Subject = tuple[object, str | None]


class Memory:
    """The corrections that hold, in memory, by study, region and question. Thread-safe.

    Follows the log: each look-up first takes in the rows that were added by any process, so a withdrawn
    correction is forgotten at the next look-up.

    Parameters
    ----------
    log : CorrectionLog
        Or another source of rows with its `since`.
    """

    def __init__(self, log: Log):
        self._log = log
        self._lock = threading.Lock()
        self._newest = 0
        self._rows: dict[int, Correction] = {}
        self._numbers: dict[str, int] = {}
        self._by_subject: dict[_Subject, dict[int, Correction]] = {}
        self._by_question: dict[Hashable, dict[int, Correction]] = {}
        self._changes = 0

    def text_of_model(self, correction: str) -> str | None:
        """Return the model's text that a correction, named by its id, was about; None if it is unknown or blank.

        The text that a reader accepted may be an earlier reader's; the model's is with that reader's correction.
        """
        with self._lock:
            number = self._numbers.get(correction)
            if number is None:
                return None
            row = self._rows[number]
            if row.verdict == "accepted":
                rows = self._by_subject[_subject(row.image_hash, row.images, row.region)].values()
                row = next((each for each in reversed(rows) if _is_source(each, row)), row)
        return None if is_blank(row.model_text) else row.model_text

    def about(
        self,
        digest: str | None,
        images: Sequence[str],
        question: Question,
    ) -> list[Correction]:
        """Return the corrections of a question about a study, oldest first: of the same words, else of other words.

        Parameters
        ----------
        digest : str or None
            Of the study. Corrections that name a digest are found by the digest only, since a file may have been
            replaced under the same id.
        images : sequence of str
            Ids of the study's images, in order; for corrections without a digest.
        question : Question
        """
        if question.task == "vqa" and needs_history(question.text):
            return []  # a correction does not say which turns came before
        with self._lock:
            self._follow()
            found = dict(self._by_subject.get(_subject(digest, images, question.region), {}))
            if digest is not None:
                found |= self._by_subject.get(_subject(None, images, question.region), {})
        rows = [row for _, row in sorted(found.items())]
        words = exact_key(question.task, question.text)
        key = question_key(question.task, question.text)
        return [row for row in rows if exact_key(row.task, row.question) == words] or [
            row for row in rows if question_key(row.task, row.question) == key
        ]

    def asked(self, question: Question) -> list[Correction]:
        """Return the corrections of a question about any study as a whole, oldest first."""
        with self._lock:
            self._follow()
            found = self._by_question.get(question_key(question.task, question.text), {})
            return [row for _, row in sorted(found.items())]

    def rows(self) -> list[Correction]:
        """Return all corrections that hold, oldest first."""
        with self._lock:
            self._follow()
            return [row for _, row in sorted(self._rows.items())]

    def count_of(self, corrections: Iterable[str]) -> int:
        """Return how many of these corrections, by id, hold."""
        with self._lock:
            self._follow()
            return sum(each in self._numbers for each in corrections)

    @property
    def state(self) -> int:
        """A number that changes with every correction and withdrawal."""
        with self._lock:
            self._follow()
            return self._changes

    def _follow(self) -> None:
        newest, found = self._log.since(self._newest)
        if newest < self._newest:  # the log was moved away or restored from a backup
            for index in (self._rows, self._numbers, self._by_subject, self._by_question):
                index.clear()
            newest, found = self._log.since(0)
        for number, row in found:
            self._changes += 1
            if isinstance(row, Withdrawal):
                self._forget(row.correction)
            else:
                self._take_in(number, row)
        self._newest = newest

    def _take_in(self, number: int, row: Correction) -> None:
        self._rows[number] = row
        self._numbers[row.id] = number
        for index, key in self._places(row):
            index.setdefault(key, {})[number] = row

    def _forget(self, correction: str) -> None:
        number = self._numbers.pop(correction, None)
        if number is None:
            return
        row = self._rows.pop(number)
        for index, key in self._places(row):
            del index[key][number]

    def _places(self, row: Correction) -> Iterator[tuple[dict, Hashable]]:
        yield self._by_subject, _subject(row.image_hash, row.images, row.region)
        if row.region is None:
            yield self._by_question, question_key(row.task, row.question)


def _is_source(earlier: Correction, accepted: Correction) -> bool:
    """Whether an accepted text stands in another reader's correction of the same question."""
    asked = exact_key(accepted.task, accepted.question)
    return (
        earlier.verdict != "accepted"
        and earlier.text.strip() == accepted.text.strip()
        and exact_key(earlier.task, earlier.question) == asked
    )


def _subject(
    digest: str | None, images: Sequence[str], region: Box | Plane | None
) -> tuple[object, str | None]:
    return (digest if digest is not None else tuple(images), region_key(region))


def recalled(found: Sequence[Correction], confirm: int = 1) -> Taught | None:
    """Return what readers said about one question of one study; the newest text wins.

    Parameters
    ----------
    found : sequence of Correction
        As `Memory.about` returns them.
    confirm : int
        Number of readers who have to agree before a text counts as confirmed. It is recalled before, and
        says that it is not confirmed.

    Returns
    -------
    Taught or None
        None if no reader said anything. Without a text if readers only rejected the model's answer.
    """
    newest = newest_of_each(found)
    rejecting = tuple(row.author for row in newest if is_blank(row.text))
    texts = [row for row in newest if not is_blank(row.text)]
    if not texts:
        if not rejecting:
            return None
        return Taught(
            "model",
            None,
            f"{_names(rejecting)} rejected the model's answer to this question",
            rejected_by=rejecting,
        )
    winner = texts[-1]
    wins = answer_key(winner.text)
    others = tuple(
        Reading(row.text, row.author, row.created, row.id)
        for row in texts
        if answer_key(row.text) != wins
    )
    agreeing = [row for row in texts if answer_key(row.text) == wins]
    verb = "confirmed" if winner.verdict == "accepted" else "corrected"
    reason = f"{verb} by {winner.author} on {winner.created[:10]}"
    if others:
        reason += f"; {_names(each.author for each in others)} said otherwise"
    is_confirmed = len(agreeing) >= confirm
    if not is_confirmed:
        reason += f"; {confirm - len(agreeing)} more must agree before it is learnt"
    return Taught(
        "recall",
        winner.text,
        reason,
        corrected_by=winner.author,
        corrected_on=winner.created,
        correction=winner.id,
        contradictions=others,
        rejected_by=rejecting,
        confirmed=is_confirmed,
    )


def newest_of_each(rows: Iterable[Correction]) -> list[Correction]:
    """Return each author's newest correction among those of one question, oldest first."""
    newest: dict[str, Correction] = {}
    for row in rows:
        newest.pop(row.author, None)
        newest[row.author] = row
    return list(newest.values())


def confirmed_rows(rows: Sequence[Correction], confirm: int = 1) -> list[Correction]:
    """Return the corrections that may be learnt from: of each study and question the newest text.

    Parameters
    ----------
    rows : sequence of Correction
        Oldest first.
    confirm : int
        Leave out texts on which fewer readers agree.
    """
    groups: dict[Hashable, list[Correction]] = {}
    for row in rows:
        subject = _subject(row.image_hash, row.images, row.region)
        groups.setdefault((subject, question_key(row.task, row.question)), []).append(row)
    found = []
    for group in groups.values():
        texts = [row for row in newest_of_each(group) if not is_blank(row.text)]
        if not texts or is_blank(group[-1].text):
            continue
        wins = answer_key(texts[-1].text)
        if sum(answer_key(row.text) == wins for row in texts) >= confirm:
            found.append(texts[-1])
    return found


def _names(authors: Iterable[str]) -> str:
    names = list(dict.fromkeys(authors))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
