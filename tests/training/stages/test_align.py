import copy

import pytest
import torch

from training.loop.config import Draw, LoopConfig
from training.stages.align import (
    AlignObjective,
    AlignWeights,
    Targets,
    frozen_stem,
    learning_parts,
    set_dropout,
)
from training.stages.grounding import SLOTS, right_words, slot_words, words_loss

CLASSES = {"modality": ["CT", "MRI"], "region": ["head"]}


@pytest.fixture
def objective(tiny, bank):
    torch.manual_seed(0)
    model, processor = tiny
    model.language_model.requires_grad_(False)
    # The tiny model has four visual tokens, and the slots are nine.
    weights = AlignWeights(words=0.0)
    return AlignObjective(model, processor, bank, CLASSES, weights, captions=2)


@pytest.fixture
def words(monkeypatch):
    """As many slots as the tiny model has visual tokens to spare."""
    monkeypatch.setattr("training.stages.grounding.SLOTS", SLOTS[:3])


def test_gradient_reaches_encoder_and_connector_but_not_the_language_model(words, tiny, bank):
    model, processor = tiny
    model.language_model.requires_grad_(False)
    objective = AlignObjective(model, processor, bank, CLASSES, AlignWeights(), captions=8)
    objective(Draw(0, 0, LoopConfig(10, 1e-3, batch_size=8)))[0].backward()
    silent = {
        name
        for name, p in objective.named_parameters()
        if p.requires_grad and p.grad is None and "place" not in name
    }
    assert not silent
    assert all(p.grad is None for p in model.language_model.parameters())


def test_an_unknown_label_costs_nothing(objective, examples):
    targets = Targets(examples, CLASSES, objective.processor)
    assert targets.classes["region"].tolist() == [0] * 6 + [-100] * 2
    assert targets.classes["modality"].tolist() == [0, 1] * 3 + [1, 1]


def test_learning_reads_the_labels_off_the_pictures(words, tiny, bank):
    torch.manual_seed(0)
    model, processor = tiny
    model.language_model.requires_grad_(False)
    objective = AlignObjective(
        model, processor, bank, CLASSES, AlignWeights(labels=5.0), captions=2
    )
    pictures = copy.copy(bank)  # single frames, as alignment validates on
    pictures.examples, pictures.rows = bank.examples[:6], bank.rows[:6]
    pictures.pixels = bank.pixels[:6]
    targets = Targets(pictures.examples, CLASSES, processor)
    before = objective.evaluate(pictures, targets)["loss"]
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=3e-3)
    for step in range(60):
        optimizer.zero_grad()
        objective(Draw(step, 0, LoopConfig(10, 1e-3, batch_size=8)))[0].backward()
        optimizer.step()
    assert objective.evaluate(pictures, targets)["loss"] < before


@pytest.mark.parametrize("factor", [0.3, 1.0])
def test_the_stem_and_the_rest_learn_whatever_the_factor_between_them(objective, factor):
    groups = learning_parts(objective, frozen_stem(objective.model, 0), factor)
    learning = [id(p) for group in groups.values() for p in group]
    assert sorted(learning) == sorted(id(p) for p in objective.parameters() if p.requires_grad)
    assert set(groups) == {factor, 1.0}


def test_dropout_is_set_everywhere(tiny):
    set_dropout(tiny[0].vision_model, 0.25)
    assert {m.p for m in tiny[0].vision_model.modules() if isinstance(m, torch.nn.Dropout)} == {
        0.25
    }


# Grounding


def test_a_slot_without_a_label_has_no_word(tiny):
    words = slot_words(tiny[1], {"plane": "axial"})
    assert [word >= 0 for word in words] == [False, True, False] * 3


def test_words_are_right_where_the_visual_tokens_are_the_words():
    embedding = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    words = torch.tensor([[7, -1, -1] * 3, [9, -1, -1] * 3])
    visual = torch.zeros(2, len(SLOTS) + 2, 8)
    visual[:, : len(SLOTS)] = embedding[words.clamp(min=0)]
    visual[:, len(SLOTS) :] = embedding.std()
    assert words_loss(visual, words, embedding).item() == pytest.approx(0.0, abs=1e-6)
    assert right_words(visual, words, embedding) == {"modality": 1.0}
    swapped = visual.flip(0)
    assert words_loss(swapped, words, embedding).item() > 0.5
