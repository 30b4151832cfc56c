import numpy as np
import pytest
import torch

from radfound.correction import Correction
from radfound.study.study import Study, StudyImage
from training.corrections.frozen.base import FrozenBase
from training.corrections.frozen.lessons import lessons_of
from training.corrections.frozen.scoring import score_answers
from training.corrections.frozen.visual_tokens import VisualTokens
from training.corrections.trainer import Recipe, train_adapter

# Answers are never certain enough, so that runs are of one length.
BRIEF = {"layers": 2, "max_steps": 15, "learning_rate": 5e-3, "confident": 1.1}


def correction(question, model_text, text, verdict="edited"):
    return Correction(
        images=("ct01",),
        task="vqa",
        question=question,
        model_text=model_text,
        verdict=verdict,
        text=text,
        author="a",
    )


@pytest.fixture
def frozen():
    return FrozenBase("radfound-tiny", BRIEF["layers"])


@pytest.fixture
def corrected(frozen):
    voxels = np.random.default_rng(0).integers(0, 99, (9, 16, 16)).astype(np.int16)
    study = Study((StudyImage(voxels, np.diag([-1.0, -1.0, 3.0, 1.0])),))
    corrections = [
        correction("Which side?", "On the left.", "On the right."),
        correction("Is it CT?", "No.", "No.", verdict="accepted"),
        correction("What is it?", "", "A nodule."),
        correction("How many?", "Two of them.", "Three of them."),
    ]
    return lessons_of(
        frozen.base, corrections, VisualTokens(frozen.base, lambda _: study)
    ).corrected


def learnt(frozen, corrected, preference, rejected):
    torch.manual_seed(0)
    frozen.new_adapter(rank=4)
    recipe = Recipe(**BRIEF, preference=preference)
    train_adapter(
        frozen.base,
        frozen.upper,
        frozen.activations.of(corrected),
        [],
        recipe,
        lambda _: None,
        rejected,
    )


def margin(frozen, corrected, rejected):
    """By how much the readers' texts are likelier than the model's."""
    pairs = [
        (reading, other)
        for reading, other in zip(frozen.activations.of(corrected), rejected, strict=True)
        if other
    ]
    chosen, others = (
        score_answers(frozen.upper, some).log_probability for some in zip(*pairs, strict=True)
    )
    return np.mean(chosen) - np.mean(others)


def test_only_a_text_that_the_reader_replaced_is_refused(frozen, corrected):
    rejected = frozen.activations.of_rejected(corrected)
    said = [
        each and frozen.base.processor.tokenizer.decode(each.branch.answer[:-1])
        for each in rejected
    ]
    assert said == ["On the left.", None, None, "Two of them."]
    for reading, other in zip(frozen.activations.of(corrected), rejected, strict=True):
        assert other is None or other.branch.question == reading.branch.question


def test_with_a_preference_the_readers_text_moves_further_from_the_models(frozen, corrected):
    rejected = frozen.activations.of_rejected(corrected)
    before = margin(frozen, corrected, rejected)
    learnt(frozen, corrected, 0.0, rejected)
    without = margin(frozen, corrected, rejected)
    learnt(frozen, corrected, 3.0, rejected)
    assert margin(frozen, corrected, rejected) > without + 0.1 > before + 0.1


def test_without_a_preference_a_run_is_the_one_that_knows_of_no_pairs(frozen, corrected):
    weights = []
    for rejected in (frozen.activations.of_rejected(corrected), ()):
        learnt(frozen, corrected, 0.0, rejected)
        parameters = frozen.base.model.language_model.parameters()
        weights.append([p.detach().clone() for p in parameters if p.requires_grad])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
