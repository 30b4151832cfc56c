import numpy as np
import pytest
import torch

from radfound.correction import Correction
from radfound.study.study import Study, StudyImage
from training.corrections.adapt import Recipe, learn, mark
from training.corrections.lessons import lessons_of
from training.corrections.visual_tokens import VisualTokens
from training.corrections.workshop import Workshop

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
def workshop():
    return Workshop("radfound-tiny", BRIEF["layers"])


@pytest.fixture
def corrected(workshop):
    voxels = np.random.default_rng(0).integers(0, 99, (9, 16, 16)).astype(np.int16)
    study = Study((StudyImage(voxels, np.diag([-1.0, -1.0, 3.0, 1.0])),))
    corrections = [
        correction("Which side?", "On the left.", "On the right."),
        correction("Is it CT?", "No.", "No.", verdict="accepted"),
        correction("What is it?", "", "A nodule."),
        correction("How many?", "Two of them.", "Three of them."),
    ]
    return lessons_of(
        workshop.base, corrections, VisualTokens(workshop.base, lambda _: study)
    ).corrected


def learnt(workshop, corrected, preference, refused):
    torch.manual_seed(0)
    workshop.new_adapter(rank=4)
    recipe = Recipe(**BRIEF, preference=preference)
    learn(
        workshop.base, workshop.upper, workshop.read(corrected), [], recipe, lambda _: None, refused
    )


def margin(workshop, corrected, refused):
    """By how much the readers' texts are likelier than the model's."""
    pairs = [
        (reading, other)
        for reading, other in zip(workshop.read(corrected), refused, strict=True)
        if other
    ]
    chosen, others = (
        mark(workshop.upper, some).log_probability for some in zip(*pairs, strict=True)
    )
    return np.mean(chosen) - np.mean(others)


def test_only_a_text_that_the_reader_replaced_is_refused(workshop, corrected):
    refused = workshop.read_refused(corrected)
    said = [
        each and workshop.base.processor.tokenizer.decode(each.branch.answer[:-1])
        for each in refused
    ]
    assert said == ["On the left.", None, None, "Two of them."]
    for reading, other in zip(workshop.read(corrected), refused, strict=True):
        assert other is None or other.branch.question == reading.branch.question


def test_with_a_preference_the_readers_text_moves_further_from_the_models(workshop, corrected):
    refused = workshop.read_refused(corrected)
    before = margin(workshop, corrected, refused)
    learnt(workshop, corrected, 0.0, refused)
    without = margin(workshop, corrected, refused)
    learnt(workshop, corrected, 3.0, refused)
    assert margin(workshop, corrected, refused) > without + 0.1 > before + 0.1


def test_without_a_preference_a_run_is_the_one_that_knows_of_no_pairs(workshop, corrected):
    weights = []
    for refused in (workshop.read_refused(corrected), ()):
        learnt(workshop, corrected, 0.0, refused)
        parameters = workshop.base.model.language_model.parameters()
        weights.append([p.detach().clone() for p in parameters if p.requires_grad])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
