import random
import time

import numpy as np
import pytest

from radfound.records.ranking import (
    Score,
    at_random,
    by_both,
    by_diversity,
    by_name,
    by_uncertainty,
    reasons_to_read,
)

SURE, UNSURE = Score(0.1, "Is there free air?"), Score(0.41, "Is there free air?")


@pytest.fixture
def chance():
    return random.Random(0)  # whose first draw does not explore


def at(*place, uncertainty=None):
    return Score(uncertainty, None, np.array(place, np.float32))


def names(choices):
    return [choice.image for choice in choices]


def test_first_is_by_name():
    assert names(by_name(["b", "a"])) == ["a", "b"]


def test_random_gives_each_study_once(chance):
    assert sorted(names(at_random(["a", "b", "c"], chance))) == ["a", "b", "c"]


def test_least_certain_study_comes_first_and_the_reason_says_how_and_where(chance):
    chosen = by_uncertainty(["a", "b", "new"], {"a": SURE, "b": UNSURE}, chance)
    assert names(chosen) == ["b", "a", "new"]
    assert (
        chosen[0].reason == "the model is least sure here, of 2 unread studies: Is there free air?"
    )
    assert "at random" in chosen[2].reason


def test_without_scores_chance_decides_and_says_so(chance):
    for chosen in (
        by_uncertainty(["a", "b"], {}, chance),
        by_diversity(["a", "b"], {"a": SURE}, [], chance),
        by_both(["a", "b"], {}, [], chance),
    ):
        assert sorted(names(chosen)) == ["a", "b"]
        assert "the model has seen none of them yet" in chosen[0].reason


def test_study_farthest_from_every_corrected_one_comes_first(chance):
    scores = {"a": at(1, 0), "b": at(9, 1), "c": at(5, 0), "known": at(0, 0), "other": at(9, 0)}
    chosen = by_diversity(["a", "b", "c"], scores, ["known", "other", "lost"], chance)
    assert names(chosen) == ["c", "a", "b"]
    assert chosen[0].reason == "most unlike the 2 corrected studies, of 3 unread studies"


def test_before_the_first_correction_the_most_typical_study_comes_first(chance):
    scores = {"a": at(0, 0), "b": at(1, 0), "c": at(5, 0)}
    assert names(by_diversity(["a", "b", "c"], scores, [], chance))[0] == "b"


def test_hybrid_prefers_what_stands_for_uncertain_studies_that_are_not_near_a_corrected_one(chance):
    scores = {
        "of three": at(9, 0, uncertainty=0.3),
        "beside it": at(9, 1, uncertainty=0.2),
        "beside it too": at(9, -1, uncertainty=0.2),
        "alone and far": at(0, 30, uncertainty=0.1),
        "uncertain, as one corrected": at(0, 0, uncertainty=0.9),
        "known": at(0, 0.5),
    }
    images = sorted(scores.keys() - {"known"})
    chosen = by_both(images, scores, ["known"], chance)
    assert names(chosen)[0] == "of three"
    assert names(chosen)[-1] == "uncertain, as one corrected"
    what = "typical of 5 unread studies that are unlike the corrected ones"
    assert chosen[0].reason == f"{what}; the model is less sure here than in most studies"
    assert chosen[1].reason == what


def test_hybrid_stands_for_all_alike_where_nothing_was_asked_yet(chance):
    scores = {"edge": at(0, 0), "middle": at(1, 0), "other edge": at(2, 0)}
    chosen = by_both(list(scores), scores, [], chance)
    assert names(chosen)[0] == "middle"
    assert chosen[0].reason == "typical of 3 unread studies that are unlike the corrected ones"


def test_hybrid_lets_a_single_study_stand_for_itself(chance):
    (choice,) = by_both(["a"], {"a": at(1, 0, uncertainty=0.2)}, [], chance)
    assert choice.reason.startswith("typical of 1 unread")


def test_hybrid_goes_by_uncertainty_where_no_study_has_been_placed(chance):
    chosen = by_both(["a", "b"], {"a": SURE, "b": UNSURE}, [], chance)
    assert (
        chosen[0].reason == "the model is least sure here, of 2 unread studies: Is there free air?"
    )


def test_hybrid_explores_one_time_in_five():
    scores = {name: at(n, 0, uncertainty=n / 10) for n, name in enumerate("abcdef")}
    chance = random.Random(0)
    reasons = [by_both("abcde", scores, ["f"], chance)[0].reason for _ in range(500)]
    assert 60 < sum("left to chance" in reason for reason in reasons) < 140


def test_each_study_says_what_is_known_for_reading_it():
    question = "Is there free air?"
    less_sure = "The model is less sure here than in most studies"
    scores = {
        "unsure and far": Score(0.9, question, np.array([9, 0], np.float32)),
        "unsure and near": Score(0.8, None, np.array([1, 0], np.float32)),
        "sure and far": Score(0.1, question, np.array([8, 0], np.float32)),
        "sure and near": Score(0.2, question, np.array([0, 1], np.float32)),
        "corrected": at(0, 0),
    }
    images = [*list(scores)[:4], "new"]

    assert reasons_to_read(images, scores, ["corrected", "lost"]) == {
        "unsure and far": f"{less_sure}, and no similar one was corrected: {question}",
        "unsure and near": f"{less_sure}.",
        "sure and far": "No similar study was corrected.",
        "sure and near": "A similar study was corrected.",
    }
    assert reasons_to_read(images, scores, []) == {
        "unsure and far": f"{less_sure}: {question}",
        "unsure and near": f"{less_sure}.",
    }
    assert reasons_to_read([], {}, []) == {}


def test_ten_thousand_studies_rank_in_under_a_second(chance):
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(10_200, 128)).astype(np.float32)
    scores = {f"ct{n:05}": Score(n % 97 / 97, "Any mass?", v) for n, v in enumerate(vectors)}
    images = list(scores)[:10_000]
    corrected = list(scores)[10_000:]
    for rank in (
        lambda: by_uncertainty(images, scores, chance),
        lambda: by_diversity(images, scores, corrected, chance),
        lambda: by_both(images, scores, corrected, chance),
        lambda: reasons_to_read(images, scores, corrected),
    ):
        began = time.process_time()
        assert len(rank()) == 10_000
        assert time.process_time() - began < 1
