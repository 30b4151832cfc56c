"""Whether readers agree: with each other, with themselves, with what is known, and with what can be seen.

The gate of a fine-tuning run cannot tell yes exchanged for no from an honest correction. Other evidence can: the same
study read by somebody else, fields that the model is sure of, and heads fitted to the other readers' corrections.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import binomtest

from radfound.correction import Correction, is_blank
from radfound.study.region import region_key
from radfound.teaching.heads import FEWEST, Features, closed_questions, fit_head
from radfound.teaching.questions import answer_key, question_key

_HONEST = 0.15  # share of disagreements that honest readers may have
_CHANCE = 0.01  # of naming an honest reader, for each kind of evidence
_TIE = 10.0  # ratio of probabilities below which two readers are equally doubtful
_WORDS = {
    "others": "disagrees with other readers",
    "own": "disagrees with earlier texts of the same reader",
    "fields": "disagrees with what is known for sure",
    "pictures": "disagrees with what others' corrections teach about the pictures",
    "one_answer": "gives one answer more often than others",
}


@dataclass(frozen=True)
class Evidence:
    """How often a reader disagrees with one kind of evidence.

    Parameters
    ----------
    compared, disagreed : int
    expected : float
        Share of disagreements of an honest reader.
    p : float
        Probability of so many disagreements of an honest reader (one-sided exact test).
    """

    compared: int
    disagreed: int
    expected: float
    p: float

    @classmethod
    def of(cls, compared: int, disagreed: int, expected: float) -> Evidence:
        """Test a count of disagreements against the expected share."""
        p = 1.0
        if compared:
            p = float(binomtest(disagreed, compared, expected, alternative="greater").pvalue)
        return cls(compared, disagreed, expected, p)


@dataclass(frozen=True)
class Consistency:
    """One reader's agreement with everything there is to compare with.

    Parameters
    ----------
    author : str
    corrections : int
    others : Evidence
        Other readers' newest texts about the same study and question.
    own : Evidence
        The reader's own earlier texts about the same study and question.
    fields : Evidence
        Answers that are known for sure.
    pictures : Evidence
        Heads fitted to the other readers' corrections of the same question.
    one_answer : Evidence
        The reader's commonest answer to closed questions, against its share among other readers.
    doubts : tuple of str
        The evidence against the reader, in words; empty if there is none.
    """

    author: str
    corrections: int
    others: Evidence
    own: Evidence
    fields: Evidence
    pictures: Evidence
    one_answer: Evidence
    doubts: tuple[str, ...] = field(default=())

    @property
    def weight(self) -> float:
        """Product of the probabilities of all evidence; the smaller, the more doubtful the reader."""
        all_of_it = (self.others, self.own, self.fields, self.pictures, self.one_answer)
        return math.prod(each.p for each in all_of_it)


def consistency(
    rows: Sequence[Correction],
    *,
    sure: Callable[[Correction], str | None] | None = None,
    features: Features | None = None,
) -> list[Consistency]:
    """Compare readers.

    Parameters
    ----------
    rows : sequence of Correction
        All that hold, oldest first.
    sure : callable, optional
        From a correction to the answer that is known for sure, or None.
    features : callable, optional
        From a study's digest to its features, for the comparison with heads.

    Returns
    -------
    list of Consistency
        By author, in the order of their first correction. The most doubtful reader's corrections are set aside before
        the others are compared again. Where two readers are equally doubtful, a person has to look.
    """
    told = [row for row in rows if not is_blank(row.text)]
    authors = list(dict.fromkeys(row.author for row in told))
    settled: dict[str, Consistency] = {}
    while True:
        rest = [row for row in told if row.author not in settled]
        open_ones = [author for author in authors if author not in settled]
        found = {author: _compared(rest, author, sure, features) for author in open_ones}
        doubted = sorted((each for each in found.values() if each.doubts), key=lambda e: e.weight)
        # Two readers of the same studies who only contradict each other: nobody can tell who is wrong.
        is_tie = len(doubted) > 1 and doubted[1].weight < doubted[0].weight * _TIE
        if not doubted or is_tie:
            return [(settled | found)[author] for author in authors]
        settled[doubted[0].author] = doubted[0]


def _compared(
    rows: Sequence[Correction],
    author: str,
    sure: Callable[[Correction], str | None] | None,
    features: Features | None,
) -> Consistency:
    subjects = _by_subject(rows)
    own = [row for row in rows if row.author == author]
    sure_ones = [(row, sure(row)) for row in own] if sure else []
    known = [(row.text, text) for row, text in sure_ones if text is not None]
    evidence = {
        "others": _others(subjects, author),
        "own": _own(subjects, author),
        "fields": Evidence.of(len(known), _different(known), _HONEST),
        "pictures": _pictures(rows, author, features) if features else Evidence.of(0, 0, _HONEST),
        "one_answer": _one_answer(rows, author),
    }
    doubts = tuple(
        f"{_WORDS[name]}: {each.disagreed} of {each.compared}, "
        f"{100 * each.expected:.0f} % expected at most"
        for name, each in evidence.items()
        if each.p < _CHANCE
    )
    return Consistency(author, len(own), **evidence, doubts=doubts)


def _by_subject(rows: Sequence[Correction]) -> dict[Hashable, list[Correction]]:
    found: dict[Hashable, list[Correction]] = defaultdict(list)
    for row in rows:
        study = row.image_hash or row.images
        found[study, region_key(row.region), question_key(row.task, row.question)].append(row)
    return found


def _others(subjects: dict[Hashable, list[Correction]], author: str) -> Evidence:
    """Compare with the majority of the other readers; where they disagree, with nobody."""
    pairs = []
    for some in subjects.values():
        newest = {row.author: row.text for row in some}
        own = newest.pop(author, None)
        counts = Counter(answer_key(text) for text in newest.values()).most_common()
        is_clear = len(counts) == 1 or (len(counts) > 1 and counts[0][1] > counts[1][1])
        if own is not None and is_clear:
            pairs.append((own, counts[0][0]))
    return Evidence.of(len(pairs), _different(pairs), _HONEST)


def _own(subjects: dict[Hashable, list[Correction]], author: str) -> Evidence:
    """Compare each text with the same reader's text before it."""
    pairs = []
    for some in subjects.values():
        texts = [row.text for row in some if row.author == author]
        pairs += list(zip(texts, texts[1:], strict=False))
    return Evidence.of(len(pairs), _different(pairs), 2 * _HONEST)


def _different(pairs: Sequence[tuple[str, str]]) -> int:
    return sum(answer_key(first) != answer_key(second) for first, second in pairs)


def _pictures(rows: Sequence[Correction], author: str, features: Features) -> Evidence:
    """Compare with heads of the other readers' corrections, where these are better than guessing.

    The share of errors that a head makes among the others' own corrections is expected of everybody.
    """
    compared, disagreed, expected = 0, 0, []
    for some in closed_questions(rows).values():
        others = [row for row in some if row.author != author]
        own = [row for row in some if row.author == author]
        head = fit_head(others, features) if len(others) >= FEWEST and own else None
        if head is None or head.compared.p_majority > _CHANCE:
            continue
        known = {answer_key(answer) for answer in head.answers}
        for row in own:
            vector = features(row.image_hash or "")
            if vector is None or answer_key(row.text) not in known or not head.knows(vector):
                continue
            compared += 1
            disagreed += answer_key(head.answer(vector)[0]) != answer_key(row.text)
            expected.append(1 - head.compared.head_balanced)
    # Some room for cases that are harder than those the head was examined on.
    share = min(0.9, float(np.mean(expected)) + 0.05) if expected else _HONEST
    return Evidence.of(compared, disagreed, share)


def _one_answer(rows: Sequence[Correction], author: str) -> Evidence:
    """Compare the share of the reader's commonest answer to a closed question with its share among others."""
    worst = Evidence.of(0, 0, 1.0)
    for some in closed_questions(rows).values():
        own = Counter(answer_key(row.text) for row in some if row.author == author)
        others = Counter(answer_key(row.text) for row in some if row.author != author)
        total = sum(others.values())
        if not own or total < FEWEST:
            continue
        answer, count = own.most_common(1)[0]
        # The upper bound of the others' share: their studies are not the same.
        share = others[answer] / total
        upper = min(0.99, share + 2 * np.sqrt(max(share * (1 - share), 0.01) / total))
        found = Evidence.of(sum(own.values()), count, float(upper))
        worst = min(worst, found, key=lambda each: each.p)
    return worst
