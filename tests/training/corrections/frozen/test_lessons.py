"""What a run learns from and replays."""

import torch

from radfound.correction import Correction
from radfound.engine.generated import Generated
from radfound.engine.local.model import LocalModel
from training.corrections.frozen.lessons import lessons_of


class Visuals:
    """The same visual tokens for every study."""

    def __init__(self, base):
        self._width = base.model.config.text_config.hidden_size

    def of(self, images, region):
        return torch.zeros(1, 4, self._width)


def correction(image, question, task="vqa"):
    return Correction(
        images=(image,), task=task, question=question, model_text="x", verdict="edited",
        text="y", author="a",
    )  # fmt: skip


def asked_by(monkeypatch, corrections):
    """Return the questions whose own answers are replay, study by study."""
    base, asked = LocalModel.load("radfound-tiny"), []

    def generate(visual, prompts, max_new_tokens, batch_size):
        asked.extend(prompts)
        return [Generated("said", (), (), True)] * len(prompts)

    monkeypatch.setattr(base, "generate", generate)
    found = lessons_of(base, corrections, Visuals(base))
    return [(each.study, len(each.branches)) for each in found.replay], asked


def test_a_question_that_was_corrected_elsewhere_is_replayed_but_never_beside_its_correction(
    monkeypatch,
):
    corrections = [correction("s1", "Is it one?"), correction("s2", "Is it two?")]
    studies, asked = asked_by(monkeypatch, corrections)
    questions = [each.text for each in asked if each.task == "vqa"]
    assert questions.count("Is it one?") == questions.count("Is it two?") == 1
    assert len(dict(studies)) == 2 and len({count for _, count in studies}) == 1


def test_a_question_that_was_corrected_everywhere_is_not_replayed(monkeypatch):
    corrections = [correction("s1", "Is it one?"), correction("s2", "Is it one?")]
    _, asked = asked_by(monkeypatch, corrections)
    assert "Is it one?" not in {each.text for each in asked}


def test_of_many_questions_some_are_replayed(monkeypatch):
    corrections = [correction(f"s{n}", f"Is it {n}?") for n in range(60)]
    studies, _ = asked_by(monkeypatch, corrections)
    assert len(studies) == 48 and max(count for _, count in studies) <= 10
