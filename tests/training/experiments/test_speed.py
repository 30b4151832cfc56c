from collections import Counter

import pytest
import torch

from training.corrections.frozen.upper_layers import UpperLayers
from training.experiments import speed
from training.experiments.speed import Case, Settings, learn_ours, learn_plainly

BRIEF = Settings("radfound-tiny", layers=1, rank=2, epochs=2, batch_size=3, learning_rate=1e-3)


@pytest.fixture
def cases(examples):
    """Four answers to learn about a volume and two pictures, and as many to be examined on."""
    learnt = [
        Case(examples[index], question, answer)
        for index, question, answer in (
            (0, "Is it CT?", "Yes."),
            (0, "What is it?", "A bright square."),
            (1, "Is it CT?", "No, it is not."),
            (6, "What is it?", "A cube."),
        )
    ]
    return learnt, [Case(case.example, "What is shown?", case.answer) for case in learnt]


def answers(ids):
    return Counter(tuple(each) for each in ids)


def test_both_sides_learn_the_same_answers_and_are_examined_alike(cases, monkeypatch):
    seen = {"plain": Counter(), "ours": Counter()}
    texts, run = speed.Collator.texts, UpperLayers.forward

    def written(self, some):
        inputs = texts(self, some)
        seen["plain"] += answers(row[row != -100].tolist() for row in inputs["labels"])
        return inputs

    def ran(self, cached):
        seen["ours"] += answers(reading.branch.answer for reading in cached)
        return run(self, cached)

    monkeypatch.setattr(speed.Collator, "texts", written)
    monkeypatch.setattr(UpperLayers, "forward", ran)
    plain, ours = learn_plainly(*cases, BRIEF), learn_ours(*cases, BRIEF)
    assert (
        seen["plain"] == seen["ours"] and sum(seen["ours"].values()) == 16
    )  # two epochs, and two examinations
    assert plain.loss_before == pytest.approx(ours.loss_before, abs=0.1)  # of bfloat16
    assert plain.loss_after != plain.loss_before and ours.loss_after != ours.loss_before
    assert plain.once_s.clock == 0.0 < min(ours.once_s.clock, ours.epoch_s.clock)


def test_replay_is_learnt_beside_the_answers(cases):
    torch.manual_seed(0)
    assert learn_ours(*cases, BRIEF, replay=True).epoch_s.clock > 0


def test_the_table_has_the_ratios_of_each_side():
    def outcome(once, epoch):
        return speed.Outcome(
            speed.Seconds(once, once), speed.Seconds(epoch, epoch / 2), 900.0, 2.0, 1.5
        )

    found = {
        ("3D volumes", "plain"): [outcome(0.0, 40.0)],
        ("3D volumes", "ours"): [outcome(10.0, 5.0)],
    }
    last = speed.table(found, epochs=4).splitlines()[-1]
    assert "| 10.0 | 5.0 | 8.0 × | 8.0 × | 5.3 × |" in last and "2.000 → 1.500" in last
