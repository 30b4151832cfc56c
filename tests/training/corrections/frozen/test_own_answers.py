"""The base model's answers about corrected studies are generated once."""

import pytest
import torch

from radfound.engine.generated import Generated
from radfound.engine.local.model import LocalModel
from radfound.question import Question
from training.corrections.frozen.kept import Kept
from training.corrections.frozen.own_answers import OwnAnswers

FIRST, SECOND = Question("vqa", "Is it CT?"), Question("caption")


@pytest.fixture
def asked(monkeypatch):
    """What the model had to generate; a question in capital letters is never answered to its end."""
    found = []

    def generate(self, visual, questions, limit, at_once):
        found.extend(questions)
        return [Generated(f"of {q.text}", (), (), q.text != "ENDLESS?") for q in questions]

    monkeypatch.setattr(LocalModel, "generate", generate)
    return found


@pytest.fixture
def make(tmp_path):
    base = LocalModel.load("radfound-tiny")
    return lambda: OwnAnswers(base, Kept(tmp_path / "own", "own answers", 2**20))


VISUAL = torch.ones(1, 4, 32)


def test_an_answer_is_generated_once_also_across_runs(make, asked):
    answers = make().of([VISUAL, VISUAL], [FIRST, SECOND], 64)
    assert answers == ["of Is it CT?", "of None"]
    again = make().of([VISUAL.clone(), VISUAL.clone()], [FIRST, SECOND], 64)
    assert again == answers and asked == [FIRST, SECOND]


def test_an_answer_without_an_end_is_remembered_as_one(make, asked):
    endless = Question("vqa", "ENDLESS?")
    assert make().of([VISUAL], [endless], 64) == make().of([VISUAL], [endless], 64) == [None]
    assert asked == [endless]


def test_another_study_or_limit_is_asked_again(make, asked):
    make().of([VISUAL], [FIRST], 64)
    make().of([VISUAL + 1], [FIRST], 64)
    make().of([VISUAL], [FIRST], 32)
    assert len(asked) == 3


def test_questions_are_not_readable_and_vanish_when_they_are_not_asked_any_more(
    make, asked, tmp_path
):
    make().of([VISUAL, VISUAL], [FIRST, SECOND], 64)
    (file,) = (tmp_path / "own").iterdir()
    assert b"Is it CT" not in file.read_bytes().replace(b"of Is it CT?", b"")
    make().of([VISUAL], [SECOND], 64)
    assert b"of Is it CT?" not in file.read_bytes()
    make().of([VISUAL], [FIRST], 64)
    assert asked == [FIRST, SECOND, FIRST]


def test_a_file_of_other_content_is_made_again(make, asked, tmp_path):
    answers = make().of([VISUAL], [FIRST], 64)
    (file,) = (tmp_path / "own").iterdir()
    key = file.name.removesuffix(".safetensors")
    Kept(tmp_path / "own", "", 2**20).put(key, {"x": torch.tensor([9, 9], dtype=torch.uint8)})
    assert make().of([VISUAL], [FIRST], 64) == answers and len(asked) == 2
