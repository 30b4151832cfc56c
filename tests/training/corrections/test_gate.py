"""Each check of the gate: what it lets pass, what it stops, and what it says in words."""

import json

import pytest

from training.corrections import gate
from training.corrections.frozen.examination import Evaluation
from training.corrections.frozen.scoring import AnswerScores
from training.corrections.gate import Bounds, Check, Verdict
from training.corrections.plausibility import Implausible

BOUNDS = Bounds(
    tolerance=0.02, tolerance_nats=0.1, tolerance_stops=0.05, least_image=0.5, least_kept=0.8
)  # so that the defaults may be tuned


def scores(right, log_probability=None):
    """Judged answers; what is right is likely."""
    likely = [-0.1 if each else -3.0 for each in right]
    return AnswerScores(right, log_probability or likely, [0.9] * len(right))


def evaluation(name, right, blank=None, ends=(True,), log_probability=None):
    blank = [False] * len(right) if blank is None else blank
    return Evaluation(name, scores(right, log_probability), scores(blank), list(ends))


def test_a_checkpoint_that_was_replaced_during_the_training_is_named():
    assert gate.same_base("123abc", "123abc").passed
    check = gate.same_base("123abc", "456def")
    assert not check.passed
    assert check.words == "trained on 123abc, the checkpoint is now 456def"


def test_an_adapter_that_does_nothing_is_not_published():
    assert gate.changes_logits(0.25).passed
    check = gate.changes_logits(0.0)
    assert not check.passed and check.words == "logits move by at most 0"


def test_corrections_have_to_be_reproduced_up_to_the_share_that_is_asked():
    assert gate.reproduces(scores([True] * 9 + [False]), Bounds(least_reproduced=0.9)).passed
    check = gate.reproduces(scores([True] * 8 + [False] * 2), Bounds(least_reproduced=0.9))
    assert not check.passed
    assert check.words.startswith("80% of 10 reproduced, at least 90% expected")
    assert check.numbers == {"share": 0.8, "n": 10}


def test_too_many_corrections_that_suit_other_questions_are_refused_by_name():
    bounds = Bounds(tolerance_implausible=0.2)
    assert gate.plausible(Implausible(("a",) * 10, 50), bounds).passed
    check = gate.plausible(Implausible(("a", "b", "c", "d") * 5, 50), bounds)
    assert not check.passed and check.numbers == {"share": 0.4, "n": 50}
    assert check.words == (
        "40% of 50 new ones repeat themselves, or are unlikely and suit other questions as well; "
        "at most 20% expected; look at a, b, c"
    )


def test_a_few_corrections_in_a_readers_own_words_are_not_refused():
    check = gate.plausible(Implausible(("a",) * 9, 19), Bounds(tolerance_implausible=0.2))
    assert check.passed and check.words.endswith("at most 20% expected of 20 or more")
    assert gate.plausible(Implausible((), 0), BOUNDS).passed


def test_held_out_corrections_may_become_likelier_but_not_much_less_likely():
    old = [-1.0 - 0.01 * n for n in range(8)]
    before = scores([False] * 8, old)
    better = gate.held_out(before, scores([True] * 8, [each + 0.5 for each in old]), BOUNDS)
    assert better.passed and better.words.startswith(
        "likelier by 0.50 nats a token on 8 held-out corrections"
    )
    assert "0% right before, 100% after" in better.words
    worse = gate.held_out(before, scores([False] * 8, [each - 0.5 for each in old]), BOUNDS)
    assert not worse.passed and worse.words.startswith("less likely by 0.50")
    assert worse.numbers["n"] == 8 and worse.numbers["nats"] == pytest.approx(-0.5)
    assert worse.numbers["p"] < gate.SIGNIFICANT


def test_a_fall_that_is_small_or_rests_on_few_answers_is_tolerated():
    old = [-1.0 - 0.01 * n for n in range(8)]
    small = Bounds(tolerance_nats=0.1)
    assert gate.held_out(
        scores([True] * 8, old), scores([True] * 8, [x - 0.05 for x in old]), small
    ).passed
    few = gate.held_out(scores([True] * 4, old[:4]), scores([True] * 4, [-9.0] * 4), BOUNDS)
    assert few.passed and few.numbers["p"] == 1.0


def test_an_adapter_that_is_no_better_than_the_memory_is_not_published():
    better = gate.beats_memory([True] * 3 + [False] * 5, [True] * 4 + [False] * 4, 6)
    assert better.passed and better.words == (
        "4 of 8 held-out corrections right, 3 with recall, wording and heads, which answer 6"
    )
    as_good = gate.beats_memory([True] * 4 + [False] * 4, [True] * 4 + [False] * 4, 6)
    assert not as_good.passed and "the memory of the corrections is as good" in as_good.words
    assert (as_good.value, as_good.limit) == (4.0, 4.0)
    few = gate.beats_memory([True] * 4, [False] * 4, 4)
    assert few.passed and few.words.endswith("fewer than 5 decide nothing")


def test_lost_right_answers_fail_the_regression_check_with_their_numbers():
    before = evaluation("a-0003", [True] * 40 + [False] * 10)
    same = evaluation("new", [True] * 40 + [False] * 10)
    assert gate.regression(before, same, BOUNDS).passed
    after = evaluation("new", [True] * 30 + [False] * 20)
    check = gate.regression(before, after, BOUNDS)
    assert not check.passed and check.name == "regression beside a-0003"
    assert check.words.startswith(
        "60.0% of 50 right, 80.0% by a-0003 (lost 10, gained 0, p = 0.00098)"
    )
    assert check.numbers["lost"] == 10 and check.numbers["right_after"] == pytest.approx(0.6)


def test_as_many_gained_as_lost_pass_and_one_lost_answer_is_chance():
    before = evaluation("a-0003", [True] * 5 + [False] * 5)
    turned = evaluation("new", [False] * 5 + [True] * 5)
    assert gate.regression(before, turned, BOUNDS).passed
    one_lost = evaluation("new", [True] * 4 + [False] * 6)
    assert gate.regression(before, one_lost, BOUNDS).passed  # 10 points, but p = 0.5


def test_right_answers_that_become_much_less_likely_fail_although_still_right():
    old = [-0.1 - 0.001 * n for n in range(20)]
    before = evaluation("the base model", [True] * 20, log_probability=old)
    after = evaluation("new", [True] * 20, log_probability=[each - 0.3 for each in old])
    check = gate.regression(before, after, BOUNDS)
    assert not check.passed and "right answers less likely by 0.30 nats a token" in check.words


def test_replayed_answers_have_to_stay_where_there_is_no_regression_set():
    assert gate.others_stay(scores([True] * 4 + [False]), Bounds(least_kept=0.8)).passed
    check = gate.others_stay(scores([True] * 3 + [False] * 2), Bounds(least_kept=0.8))
    assert not check.passed and check.words == "60% of 5 stayed, at least 80% expected"
    assert gate.others_stay(scores([]), BOUNDS).passed


def test_answers_that_no_longer_end_fail():
    before = evaluation("a-0003", [True], ends=[True] * 10)
    assert gate.stops(before, evaluation("new", [True], ends=[True] * 10), BOUNDS).passed
    check = gate.stops(before, evaluation("new", [True], ends=[True] * 7 + [False] * 3), BOUNDS)
    assert not check.passed
    assert check.words == "70% of 10 end by themselves, 100% by a-0003"


def test_an_adapter_that_answers_without_looking_fails():
    before = evaluation("a-0003", [True] * 8, blank=[True] * 4 + [False] * 4)
    seeing = evaluation("new", [True] * 8, blank=[True] * 5 + [False] * 3)
    assert gate.sees_the_image(before, seeing, BOUNDS).passed
    blind = evaluation("new", [True] * 8, blank=[True] * 7 + [False])
    check = gate.sees_the_image(before, blind, BOUNDS)
    assert not check.passed
    assert check.words == "a blank image costs 12.5% of the right answers, 50.0% with a-0003"


def test_a_model_that_never_looked_is_not_asked_to_look_more():
    before = evaluation("the base model", [False] * 8, blank=[True] * 2 + [False] * 6)
    assert gate.sees_the_image(
        before, evaluation("new", [True] * 4, blank=[True] * 4), BOUNDS
    ).passed


def test_the_verdict_names_what_failed_and_is_json():
    good, bad = Check("one", True, "fine", {}), Check("two", False, "40% of 5", {"share": 0.4})
    assert Verdict((good,)).passed and Verdict((good,)).reason == ""
    verdict = Verdict((good, bad, bad), forced=True)
    assert not verdict.passed and verdict.reason == "two: 40% of 5; two: 40% of 5"
    kept = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert kept["passed"] is False and kept["forced"] is True
    assert kept["checks"][1] == {
        "name": "two", "passed": False, "words": "40% of 5", "numbers": {"share": 0.4}, "value": None, "limit": None,
    }  # fmt: skip


def test_a_verdict_tells_whether_only_other_answers_are_the_trouble():
    good, lost = (
        Check("corrections", True, "", {}),
        Check("regression beside a-0001", False, "", {}),
    )
    blind, wrong = Check("sees the image", False, "", {}), Check("corrections", False, "", {})
    assert Verdict((good, lost, blind)).only_changes_others
    assert not Verdict((lost, wrong)).only_changes_others
    assert not Verdict((good,)).only_changes_others


def test_the_numbers_of_every_check_are_json():
    before, after = evaluation("a-0001", [True, False]), evaluation("new", [False, False])
    checks = (
        gate.same_base("a", "b"),
        gate.changes_logits(0.1),
        gate.reproduces(before.with_image, BOUNDS),
        gate.held_out(before.with_image, after.with_image, BOUNDS),
        gate.beats_memory([True], [False], 1),
        gate.regression(before, after, BOUNDS),
        gate.others_stay(after.with_image, BOUNDS),
        gate.stops(before, after, BOUNDS),
        gate.sees_the_image(before, after, BOUNDS),
    )
    assert json.loads(json.dumps(Verdict(checks).to_json(), allow_nan=False))["checks"]
