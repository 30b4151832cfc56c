"""An answer about a study with an earlier one beside it says what was done with the earlier one."""

from dataclasses import replace

import numpy as np

from radfound.engine.engine import Engine
from radfound.engine.protocol import Abilities, Description
from radfound.engine.shown import Shown
from radfound.engine.stream import Stream, Token
from radfound.fields.values import FieldAnswer
from radfound.study.study import Study, StudyImage

NOW = StudyImage(np.zeros((1, 8, 8), np.float32), np.eye(4))
BOTH = Study([NOW, replace(NOW, prior=True)], id="both")


class Echo:
    """A backend that answers "Yes", with or without a recipe."""

    def __init__(self, shown=None):
        self._shown = shown

    def describe(self):
        return Description("echo", "r1", None, 8, None, "", Abilities("none"))

    def stream(self, study, question, *, adapter, limit):
        stream = Stream()
        stream.shown = self._shown
        stream.put(Token("Yes"))
        stream.put(Token("", last=True))
        stream.end()
        return stream


class Classifiers:
    """Answer with the number of images that they were given."""

    def answer(self, study, question):
        return FieldAnswer(str(len(study.images)), 0.9, "modality")


def test_the_present_study_is_the_study_without_the_earlier_one():
    assert BOTH.has_prior and BOTH.present.images == (NOW,) and BOTH.present.id == "both"
    for study in (Study([NOW]), Study([BOTH.images[1]])):
        assert not study.has_prior and study.present is study


def test_a_model_that_is_not_told_which_study_is_earlier_says_so():
    reason = Engine(Echo()).answer(BOTH, question="Is it larger?").reason
    assert "not told which of the two is the earlier one" in reason
    assert Engine(Echo()).answer(Study([NOW]), question="Is it larger?").reason is None


def test_a_recipe_names_the_earlier_study_so_nothing_is_to_be_said():
    engine = Engine(Echo(Shown("family", ())))
    assert engine.answer(BOTH, question="Is it larger?").reason is None


def test_classifiers_judge_the_present_study_alone_and_say_so():
    engine = Engine(Echo(), fields=Classifiers())
    answer = engine.answer(BOTH, question="Which modality?")
    assert (answer.text, answer.reason) == ("1", "about the present study alone")
    assert engine.answer(Study([NOW]), question="Which modality?").reason is None
