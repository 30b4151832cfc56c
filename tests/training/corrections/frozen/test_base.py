"""The frozen base model: what is computed once, and answers that scoring decides."""

import logging

import pytest
import torch

from radfound.records.adapters import AdapterStore
from tests.training.corrections.tiny_checkpoint import write_checkpoint
from training.corrections.frozen.base import FrozenBase
from training.corrections.frozen.examination import from_tensors, to_tensors
from training.corrections.frozen.kept import Kept
from training.corrections.frozen.lessons import Lesson
from training.packing import Branch


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", studies=6)


@pytest.fixture
def make(checkpoint, tmp_path):
    """Make what a new training process makes of the same folder."""
    # In float32: in bfloat16 a near tie of two tokens depends on the processor.
    return lambda: FrozenBase(checkpoint, 1, dtype=torch.float32, folder=tmp_path / "kept")


def never(*arguments, **options):
    raise AssertionError("was computed again")


def same(one, other):
    a, b = (to_tensors(each) for each in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_results_of_the_base_model_are_computed_once_across_runs(make, tmp_path, monkeypatch):
    store = AdapterStore(tmp_path / "adapters")
    first = make()
    evaluation = first.evaluation_of(store, None)
    second = make()
    monkeypatch.setattr(second, "evaluate", never)
    assert same(second.evaluation_of(store, None), evaluation)
    assert len(evaluation.said) == 6 and evaluation.name == "the base model"


def test_a_damaged_result_is_computed_again_with_a_line_in_the_log(make, tmp_path, caplog):
    store = AdapterStore(tmp_path / "adapters")
    evaluation = make().evaluation_of(store, None)
    (file,) = (tmp_path / "kept" / "evaluations").iterdir()
    key = file.name.removesuffix(".safetensors")
    for damage in (
        lambda: file.write_bytes(b"damaged"),
        lambda: Kept(file.parent, "", 2**20).put(key, {"stops": torch.zeros(1)}),
    ):
        damage()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert same(make().evaluation_of(store, None), evaluation)
        assert "evaluations" in caplog.text and "made again" in caplog.text


def test_activations_of_the_bundled_studies_are_computed_once_across_runs(
    make, tmp_path, monkeypatch
):
    first, store = make(), AdapterStore(tmp_path / "adapters")
    # With the image, with a blank one and replay; then the base model is evaluated.
    assert first.left_to_compute(store, None) == (6 + 6 + 2) + 3 * 6
    first.prepare()
    scores = first.score(first.regression_set)
    first.keep_activations()
    second = make()
    assert second.left_to_compute(store, None) == 3 * 6
    second.prepare()
    monkeypatch.setattr(second.base, "prefill_many", never)
    assert second.score(second.regression_set).log_probability == scores.log_probability
    for one, other in zip(
        first.activations.of(first.replay), second.activations.of(second.replay), strict=True
    ):
        assert one.branch == other.branch
        assert torch.equal(one.hidden, other.hidden)
        assert torch.equal(one.teacher_hidden, other.teacher_hidden)


def test_activations_of_another_model_or_damaged_ones_are_not_used(make, tmp_path, caplog):
    first = make()
    first.prepare()
    first.keep_activations()
    (file,) = (tmp_path / "kept" / "activations").iterdir()
    key = file.name.removesuffix(".safetensors")
    Kept(file.parent, "", 2**30).put(key, {"answers": torch.tensor([1])})
    second = make()
    with caplog.at_level(logging.WARNING):
        second.prepare()
    assert "made again" in caplog.text
    one, other = (each.score(each.regression_set).log_probability for each in (first, second))
    assert one == other
    other = FrozenBase(first.checkpoint, 2, folder=tmp_path / "kept")
    assert other.left_to_compute(AdapterStore(tmp_path / "adapters"), None) > 3 * 6


def greedy(frozen, visual, question):
    """The tokens that greedy decoding gives, one forward pass for each."""
    ids, stop = [], frozen.base.processor.tokenizer.eos_token_id
    while len(ids) < 48 and ids[-1:] != [stop]:
        cached = frozen.activations.of([Lesson(visual, [Branch(question, [*ids, stop])])])
        ids.append(int(frozen.upper.forward(cached).logits[-1].argmax()))
    return ids


def test_an_answer_decided_by_scoring_is_the_one_that_is_generated(make, monkeypatch):
    frozen = make()
    lesson = frozen.regression_set[0]
    asked = [(lesson.visual, lesson.branches[0].question)]
    (generated,) = frozen.answers(asked, [[]])
    draft = greedy(frozen, *asked[0])
    monkeypatch.setattr(frozen.base, "decode", never)
    (found,) = frozen.answers(asked, [[lesson.branches[0].answer, draft]])
    assert (found.text, found.complete) == (generated.text, generated.complete)
    assert found.log_probability == pytest.approx(generated.log_probability, abs=1e-3)


def test_an_answer_that_no_draft_decides_is_generated(make):
    frozen = make()
    lesson = frozen.regression_set[0]
    asked = [(lesson.visual, lesson.branches[0].question)]
    wrong = [
        lesson.branches[0].answer,
        greedy(frozen, *asked[0])[:5],
    ]  # another text; one cut short
    assert frozen.answers(asked, [wrong]) == frozen.answers(asked, [[]])


def test_an_evaluation_is_found_as_it_was_kept(make, tmp_path):
    evaluation = make().evaluation_of(AdapterStore(tmp_path / "adapters"), None)
    assert same(from_tensors("x", to_tensors(evaluation)), evaluation)
