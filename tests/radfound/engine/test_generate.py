import numpy as np
import pytest

from radfound.engine.local.model import LocalModel
from radfound.question import Question, Turn
from radfound.study.study import Study, StudyImage

QUESTIONS = ["What is shown?", "Is there an effusion on the left side of the chest?", "Why?"]


@pytest.fixture(scope="module")
def local():
    return LocalModel.load("radfound-tiny")


@pytest.fixture(scope="module")
def encoded(local):
    rng = np.random.default_rng(0)
    voxels = [rng.integers(0, 99, (depth, 20, 20)).astype(np.int16) for depth in (1, 6)]
    return [local.encode(Study((StudyImage(v, np.eye(4)),))) for v in voxels]


@pytest.fixture(scope="module")
def pairs(encoded):
    pairs = [(study, Question("vqa", question)) for study in encoded for question in QUESTIONS]
    earlier = (Turn("Which organ?", "the liver"),)
    pairs += [(encoded[0], Question("caption")), (encoded[1], Question("vqa", "And now?", earlier))]
    return pairs


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_batch_writes_what_each_stream_writes(local, pairs, batch_size):
    found = local.generate(*zip(*pairs, strict=True), 24, batch_size=batch_size)
    for (study, prompt), generated in zip(pairs, found, strict=True):
        tokens = list(local.stream(study, prompt, 24))
        assert generated.text == "".join(token.text for token in tokens)
        assert generated.complete == tokens[-1].last
        assert generated.log_probabilities == pytest.approx(
            [token.log_probability for token in tokens], abs=1e-4
        )
        assert generated.entropies == pytest.approx([token.entropy for token in tokens], abs=1e-4)


@pytest.fixture
def stop_at(local):
    """Let another token end the answers, for a while."""
    tokenizer = local.processor.tokenizer
    usual = tokenizer.eos_token

    def choose(token):
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(token)

    yield choose
    tokenizer.eos_token = usual


def test_answers_of_different_length_end_each_by_itself(local, pairs, stop_at):
    texts = [generated.text for generated in local.generate(*zip(*pairs, strict=True), 24)]
    lengths = set()
    for stop in sorted({token for text in texts for token in local.processor.text_ids(text)}):
        stop_at(stop)
        found = local.generate(*zip(*pairs, strict=True), 24)
        for (study, prompt), generated in zip(pairs, found, strict=True):
            tokens = list(local.stream(study, prompt, 24))
            assert generated.text == "".join(token.text for token in tokens)
            assert len(generated.log_probabilities) == len(tokens)
        lengths |= {len(g.log_probabilities) for g in found if g.complete}
        if len(lengths) > 1:
            return
    pytest.fail("no stop token ended the answers at different steps")


def test_a_study_that_many_prompts_ask_about_is_read_once(local, encoded, monkeypatch):
    rows = []
    merge = local.model.merge_visual_embeds
    monkeypatch.setattr(
        local.model,
        "merge_visual_embeds",
        lambda ids, visual: rows.append(len(visual)) or merge(ids, visual),
    )
    prompts = [Question("vqa", question) for question in QUESTIONS]
    local.generate([encoded[0]] * 3, prompts, 2)
    assert rows == [1]


def test_nothing_to_write_is_nothing_written(local):
    assert local.generate([], [], 5) == []
