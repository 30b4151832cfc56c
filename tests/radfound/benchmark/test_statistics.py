import numpy as np
import pytest

from radfound.benchmark.scoring.metrics import accuracy
from radfound.benchmark.scoring.statistics import bootstrap, cluster_sums, draw_counts, paired


def parts(*right):
    answers = ["yes" if hit else "no" for hit in right]
    return accuracy().statistics(answers, ["yes"] * len(right))


def test_the_score_is_that_of_all_items_and_lies_in_its_interval():
    found = bootstrap(accuracy().value, parts(1, 1, 1, 0), list("abcd"))
    assert found.value == 0.75
    assert found.low <= 0.75 <= found.high


def test_with_two_patients_the_interval_is_worked_by_hand():
    # Draws of {right, wrong}: both right 1/4, one each 1/2, both wrong 1/4: 2.5 % and 97.5 % are 0 and 1.
    found = bootstrap(accuracy().value, parts(1, 0), ["a", "b"])
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_the_interval_agrees_with_the_normal_one_for_many_items():
    right = np.arange(400) % 5 != 0  # 80 %, standard error 2 %
    found = bootstrap(accuracy().value, parts(*right), [str(k) for k in range(400)], draws=4000)
    assert found.low == pytest.approx(0.8 - 1.96 * 0.02, abs=0.006)
    assert found.high == pytest.approx(0.8 + 1.96 * 0.02, abs=0.006)


def test_answers_about_one_patient_are_drawn_together():
    assert cluster_sums(parts(1, 0, 1), ["a", "b", "a"]).tolist() == [[2, 2], [0, 1]]
    right = [k // 10 % 2 for k in range(200)]  # twenty patients, each all right or all wrong
    alone = bootstrap(accuracy().value, parts(*right), [str(k) for k in range(200)])
    together = bootstrap(accuracy().value, parts(*right), [str(k // 10) for k in range(200)])
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_the_same_seed_gives_the_same_draws_of_as_many_patients():
    counts = draw_counts(7, draws=5, seed=3)
    assert (counts == draw_counts(7, draws=5, seed=3)).all()
    assert (counts.sum(1) == 7).all()


def test_a_run_does_not_differ_from_itself():
    found = paired(accuracy().value, parts(1, 0, 1), parts(1, 0, 1), list("abc"))
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_a_clear_lead_excludes_zero_and_an_unclear_one_does_not():
    names = [str(k) for k in range(60)]
    clear = paired(accuracy().value, parts(*[1] * 60), parts(*[0, 1] * 30), names)
    assert clear.low > 0 and clear.p < 0.01
    unclear = paired(accuracy().value, parts(*[1, 0] * 30), parts(*[0, 1] * 30), names)
    assert unclear.low < 0 < unclear.high and unclear.p > 0.5


def test_what_cannot_be_scored_is_not_a_number():
    found = bootstrap(lambda sums: sums[..., 0] * np.nan, parts(1, 0), ["a", "b"])
    assert np.isnan([found.value, found.low, found.high]).all()
