import numpy as np
import pytest
import torch

from radfound.engine.local.kv_cache import KVCache, PrefixCache
from radfound.engine.local.model import LocalModel
from radfound.question import Question
from radfound.study.study import Study, StudyImage

QUESTIONS = ["Why?", "What is shown in this image of the chest?", "Is there air?", "Where is it?"]


@pytest.fixture(scope="module")
def local():
    return LocalModel.load("radfound-tiny", dtype=torch.float32)


@pytest.fixture(scope="module")
def prefixes(local):
    def encoded(seed):
        voxels = np.random.default_rng(seed).integers(0, 99, (3, 20, 20)).astype(np.int16)
        return local.encode(Study((StudyImage(voxels, np.eye(4)),)))

    return [local.prefill(encoded(seed)) for seed in range(len(QUESTIONS))]


def ids(local, question):
    return local.question_ids(Question("vqa", question))


def alone(local, prefix, question, tokens):
    """Return what is written where nobody else asks."""
    batch = local.batch()
    [(_, token)] = batch.join([prefix], [ids(local, question)])
    written = [token]
    while len(written) < tokens and len(batch):
        written.append(batch.step()[0][1])
    return written


def test_who_joins_later_and_who_leaves_early_change_nothing_for_the_others(local, prefixes):
    batch, written, drafts = local.batch(), {}, []
    for prefix, question in zip(prefixes, QUESTIONS, strict=True):
        [(draft, token)] = batch.join([prefix], [ids(local, question)])
        drafts.append(draft)
        written[draft] = [token]
        for _ in range(3):
            for each, token in batch.step():
                written[each].append(token)
    batch.leave(drafts[0])
    while len(written[drafts[-1]]) < 12 and len(batch):
        for each, token in batch.step():
            written[each].append(token)
    for draft, prefix, question in zip(drafts, prefixes, QUESTIONS, strict=True):
        expected = alone(local, prefix, question, len(written[draft]))
        assert [token.text for token in written[draft]] == [token.text for token in expected]
        assert [token.entropy for token in written[draft]] == pytest.approx(
            [token.entropy for token in expected], abs=1e-4
        )


def test_several_that_join_together_are_written_as_if_alone(local, prefixes):
    batch = local.batch()
    together = batch.join(prefixes, [ids(local, question) for question in QUESTIONS])
    for (_, token), prefix, question in zip(together, prefixes, QUESTIONS, strict=True):
        assert token.text == alone(local, prefix, question, 1)[0].text


@pytest.mark.parametrize("most", [1, 7, 64])
def test_prompts_that_are_read_in_pieces_are_answered_as_those_read_at_once(local, prefixes, most):
    asked = [ids(local, question) for question in QUESTIONS]
    at_once, batch = local.batch().join(prefixes, asked), local.batch()
    prompts = batch.begin_prefill(prefixes, asked)
    pieces = 1
    while (tokens := batch.prefill(prompts, most)) is None:
        pieces += 1
    assert pieces >= max(map(len, asked)) // max(1, most // len(asked))
    assert len(batch) == len(tokens) == len(at_once)
    for (_, found), (_, expected) in zip(tokens, at_once, strict=True):
        assert found.text == expected.text
        assert found.entropy == pytest.approx(expected.entropy, abs=1e-4)


def test_columns_in_which_nobody_is_left_are_dropped(local, prefixes):
    batch = local.batch()
    [(long, _)] = batch.join(prefixes[:1], [ids(local, QUESTIONS[1])])
    [(short, _)] = batch.join(prefixes[1:2], [ids(local, QUESTIONS[0])])
    wide = batch._mask.shape[1]
    batch.leave(long)
    assert batch._mask.shape[1] < wide and batch._mask.bool().all()
    batch.leave(short)
    assert len(batch) == 0
    batch.leave(short)


def prefix_of(count):
    return KVCache(((torch.zeros(1, 1, count, 1), torch.zeros(1, 1, count, 1)),))


def test_the_prefix_cache_lets_go_of_what_was_used_longest_ago():
    cache = PrefixCache(max_bytes=3 * prefix_of(10).nbytes)
    for name in "abc":
        cache.put(name, prefix_of(10))
    assert cache.get("a") is not None
    cache.put("d", prefix_of(10))
    assert [cache.get(name) is not None for name in "abcd"] == [True, False, True, True]
    assert (cache.hits, cache.misses) == (4, 1)


def test_a_prefix_larger_than_the_whole_cache_is_used_and_not_kept():
    cache = PrefixCache(max_bytes=10)
    cache.put("a", prefix_of(10))
    assert cache.get("a") is None
