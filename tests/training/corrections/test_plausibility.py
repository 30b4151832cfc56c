"""Which corrections suit other questions as well as their own."""

import pytest
import torch

from training.corrections.frozen.lessons import Lesson
from training.corrections.frozen.scoring import AnswerScores
from training.corrections.plausibility import find_implausible, repeats
from training.packing import Branch

MISSED = [-1.0 - 0.1 * n for n in range(20)]  # one in ten is less likely than -2.7


class Known:
    """A base model that thinks this of a question's answers, and -5 of every other one."""

    def __init__(self, thinks, right=()):
        self._thinks, self._right = thinks, right

    def score(self, lessons):
        asked = [(b.question[0], b.answer[0]) for lesson in lessons for b in lesson.branches]
        likely = [self._thinks.get(each, -5.0) for each in asked]
        return AnswerScores([each in self._right for each in asked], likely, [0.5] * len(asked))


def corrections(*pairs):
    """One study each, with a question and an answer of one token."""
    return [
        Lesson(torch.zeros(1, 1, 1), [Branch([question], [answer])], f"s{n}", (f"c{n}",))
        for n, (question, answer) in enumerate(pairs)
    ]


def test_an_unlikely_text_that_suits_other_questions_as_well_is_found():
    found = find_implausible(Known({(1, 11): -1.0}), corrections((1, 11), (2, 12), (3, 13)), MISSED)
    assert found.corrections == ("c1", "c2") and found.examined == 3


def test_an_unlikely_text_that_suits_its_own_question_best_is_let_pass():
    found = find_implausible(
        Known({(1, 11): -4.0, (2, 12): -4.9}), corrections((1, 11), (2, 12)), MISSED
    )
    assert found.corrections == ()


def test_a_likely_text_is_let_pass_wherever_else_it_suits():
    everywhere = {(q, a): -0.5 for q in (1, 2) for a in (11, 12)}
    assert (
        find_implausible(Known(everywhere), corrections((1, 11), (2, 12)), MISSED).corrections == ()
    )


def test_what_the_base_model_says_itself_is_not_counted():
    known = Known({(1, 11): -0.1}, right={(1, 11)})
    assert find_implausible(known, corrections((1, 11), (2, 12)), MISSED).examined == 1


def test_a_base_model_that_misses_nothing_calls_no_text_unlikely():
    assert find_implausible(Known({}), corrections((1, 11), (2, 12)), []).corrections == ()


def test_texts_about_one_question_cannot_be_compared():
    assert find_implausible(Known({}), corrections((1, 11), (1, 12)), MISSED).corrections == ()


@pytest.mark.parametrize("count", [0, 1])
def test_few_corrections_are_no_error(count):
    found = find_implausible(Known({}), corrections((1, 11))[:count], MISSED)
    assert (found.corrections, found.examined) == ((), count)


def test_a_text_that_goes_round_and_round_is_found_however_likely():
    loop = [5, 6, 7] * 40
    lesson = Lesson(torch.zeros(1, 1, 1), [Branch([1], loop)], "s", ("c",))
    assert find_implausible(Known({(1, 5): -0.1}), [lesson], MISSED).corrections == ("c",)
    assert not repeats([5, 6, 7] * 3)
    assert not repeats(list(range(100)))
    assert not repeats([])
