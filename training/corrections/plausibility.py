"""Whether new corrections could be right answers: what a base model can tell of it.

It cannot know whether an answer is right. It can tell what no reader means: a text that says the same over and
over, and one that is very unlikely as an answer to its question and just as likely as one to other questions, such
as an answer that came to the wrong study. Exchanged yes and no are as plausible as right answers, and not found.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.corrections.lessons import Lesson
from training.corrections.workshop import Workshop
from training.packing import Branch

_OTHER_QUESTIONS = 8
_UNLIKELY = 0.1  # nine in ten of the right answers that the base model misses are likelier
_LOOP = 24  # tokens; fewer may repeat themselves


@dataclass(frozen=True)
class Misfits:
    """What is no answer to its question.

    Parameters
    ----------
    corrections : tuple of str
        Their ids.
    examined : int
        Of so many texts that the base model would not write itself.
    """

    corrections: tuple[str, ...]
    examined: int


@dataclass(frozen=True, eq=False)
class _Text:
    lesson: Lesson
    number: int
    log_probability: float

    @property
    def branch(self) -> Branch:
        return self.lesson.branches[self.number]

    def asked_as(self, other: _Text) -> Lesson:
        """Return this text as an answer to another one's question."""
        return Lesson(other.lesson.visual, [Branch(other.branch.question, self.branch.answer)])


def misfits(workshop: Workshop, new: Sequence[Lesson], missed: Sequence[float]) -> Misfits:
    """Find the corrections that repeat themselves or look as if they belonged to another question.

    No adapter may be on.

    Parameters
    ----------
    workshop : Workshop
    new : sequence of Lesson
        New corrections.
    missed : sequence of float
        Mean log-probabilities, in nats a token, of right answers that the base model does not give: how unlikely
        a right answer may be.
    """
    marks = workshop.mark(new)
    pieces = [(lesson, number) for lesson in new for number in range(len(lesson.branches))]
    texts = [
        _Text(*piece, log_probability)
        for piece, is_right, log_probability in zip(
            pieces, marks.right, marks.log_probability, strict=True
        )
        if not is_right
    ]
    limit = np.quantile(missed, _UNLIKELY) if missed else -np.inf
    chance = random.Random(0)

    def suits_others(text: _Text) -> bool:
        others = [each for each in texts if each.branch.question != text.branch.question]
        if text.log_probability >= limit or not others:
            return False
        some = chance.sample(others, min(_OTHER_QUESTIONS, len(others)))
        elsewhere = workshop.mark([text.asked_as(other) for other in some]).log_probability
        return float(np.mean(elsewhere)) >= text.log_probability

    found = [each for each in texts if repeats(each.branch.answer) or suits_others(each)]
    return Misfits(tuple(each.lesson.corrections[each.number] for each in found), len(texts))


def repeats(answer: Sequence[int]) -> bool:
    """Return whether an answer's tokens go round and round."""
    threes = list(zip(answer, answer[1:], answer[2:], strict=False))
    return len(answer) >= _LOOP and 2 * len(set(threes)) <= len(threes)
