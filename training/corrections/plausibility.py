"""Finds new corrections that cannot be meant, by the base model's likelihoods.

The base model cannot tell whether an answer is right. It can find texts that no reader means: loops, and texts
that are very unlikely as answers to their own question and at least as likely as answers to other questions, such
as an answer saved for the wrong study. Yes exchanged for no is as plausible as the right answer, and not found.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.corrections.frozen.base import FrozenBase
from training.corrections.frozen.lessons import Lesson
from training.packing import Branch

_OTHER_QUESTIONS = 8
_UNLIKELY = 0.1  # quantile among right answers that the base model misses
_LOOP = 24  # tokens; shorter texts may repeat themselves


@dataclass(frozen=True)
class Implausible:
    """Corrections that look like no answer to their question.

    Parameters
    ----------
    corrections : tuple of str
        Their ids.
    examined : int
        Number of texts examined: those that the base model would not generate itself.
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


def find_implausible(
    frozen: FrozenBase, new: Sequence[Lesson], missed: Sequence[float]
) -> Implausible:
    """Find corrections that repeat themselves or suit other questions at least as well as their own.

    No adapter may be loaded.

    Parameters
    ----------
    frozen : FrozenBase
    new : sequence of Lesson
        New corrections.
    missed : sequence of float
        Mean log-probabilities, in nats a token, of right answers that the base model does not give. They show
        how unlikely a right answer may be.
    """
    scores = frozen.score(new)
    pieces = [(lesson, number) for lesson in new for number in range(len(lesson.branches))]
    texts = [
        _Text(*piece, log_probability)
        for piece, is_known, log_probability in zip(
            pieces, scores.correct, scores.log_probability, strict=True
        )
        if not is_known
    ]
    limit = np.quantile(missed, _UNLIKELY) if missed else -np.inf
    trials = _trials([each for each in texts if each.log_probability < limit], texts)
    # All of them together: one pass over many answers is quicker than many over a few.
    elsewhere = iter(
        frozen.score([each for lessons in trials.values() for each in lessons]).log_probability
    )
    suits_others = {
        text
        for text, lessons in trials.items()
        if float(np.mean([next(elsewhere) for _ in lessons])) >= text.log_probability
    }
    found = [each for each in texts if repeats(each.branch.answer) or each in suits_others]
    return Implausible(tuple(each.lesson.corrections[each.number] for each in found), len(texts))


def _trials(unlikely: Sequence[_Text], texts: Sequence[_Text]) -> dict[_Text, list[Lesson]]:
    """Return each unlikely text as an answer to some other questions."""
    rng = random.Random(0)
    trials: dict[_Text, list[Lesson]] = {}
    for text in unlikely:
        if repeats(text.branch.answer):
            continue
        others = [each for each in texts if each.branch.question != text.branch.question]
        if others:
            some = rng.sample(others, min(_OTHER_QUESTIONS, len(others)))
            trials[text] = [text.asked_as(other) for other in some]
    return trials


def repeats(answer: Sequence[int]) -> bool:
    """Return whether an answer's tokens are a loop: half of their trigrams or more are repeats."""
    threes = list(zip(answer, answer[1:], answer[2:], strict=False))
    return len(answer) >= _LOOP and 2 * len(set(threes)) <= len(threes)
