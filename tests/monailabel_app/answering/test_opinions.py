"""Whether the answers of several models to one question agree."""

import pytest

from monailabel_app.lib.answering.opinions import agree
from radfound.question import CANNOT_TELL, Answer, ModelVersion


def answers(*texts, task="vqa"):
    return [Answer(task, ("ct01",), "?", text, ModelVersion("m", "r")) for text in texts]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("Yes.", "yes, on the left"), True),
        (("No", "Yes"), False),
        (("No effusion is seen.", "No."), True),
        (("MRI", "an MRI of the brain"), True),
        (("the left lung", "the right kidney"), False),
        (("axial", "Axial", "axial plane"), True),
        (("axial", "axial", "coronal"), False),
        (("", ""), True),
        (("", "axial"), False),
    ],
)
def test_answers_agree_if_they_say_the_same(texts, expected):
    assert agree(answers(*texts)) is expected


def test_reports_and_single_answers_are_not_compared():
    assert agree(answers("Clear.", "Clear.", task="report")) is None
    assert agree(answers("Yes")) is None


def test_a_model_that_cannot_tell_neither_agrees_nor_disagrees():
    assert agree(answers(CANNOT_TELL, "Yes")) is None
