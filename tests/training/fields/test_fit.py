import numpy as np
import pytest

from training.fields.fit import fit_kinds, fit_linear, fit_subspace, fit_temperature
from training.fields.measure import auroc, by_patient, calibration_error


@pytest.fixture(scope="module")
def two_groups():
    chance = np.random.default_rng(0)
    target = np.repeat(["a", "b"], 60)
    return chance.normal(0, 1, (120, 5)) + 2 * (target == "b")[:, None], target


def test_a_head_takes_features_as_they_are(two_groups):
    values, target = two_groups
    shifted = values * 50 + 1000
    head = fit_linear(shifted, target, 0.1)
    found = np.array(head.names)[head.probabilities(shifted).argmax(1)]
    assert (found == target).mean() > 0.95


def test_refined_classes_are_added_up_to_the_field(two_groups):
    values, target = two_groups
    refined = np.array([f"{name}|{n % 2}" for n, name in enumerate(target)])
    head = fit_linear(values, refined, 0.1)
    assert head.classes == ("a", "a", "b", "b")
    assert head.names == ("a", "b")


def test_the_temperature_mends_a_head_that_is_too_sure():
    chance = np.random.default_rng(0)
    truth = chance.integers(0, 2, 400)
    logits = np.stack([-truth, truth], axis=1) * 12.0
    wrong = chance.random(400) < 0.2
    logits[wrong] *= -1
    _, temperature = fit_temperature(logits, ("0", "1"), truth.astype(str))
    assert temperature > 3


def test_a_subspace_leaves_out_what_it_has_not_met():
    chance = np.random.default_rng(0)
    values = np.concatenate([chance.normal(0, 1, (200, 2)), np.zeros((200, 2))], axis=1)
    space = fit_subspace(values, 2)
    _, left = space.project(np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]))
    assert left[0] < 1e-3 < left[1]


def test_kinds_have_unit_variance_around_their_centres():
    chance = np.random.default_rng(0)
    names = np.repeat(["CT", "MRI"], 500)
    values = chance.normal(0, 0.2, (1000, 3)) + 2 * (names == "MRI")[:, None]
    kinds = fit_kinds(values, names)
    rest = values @ kinds.turn - np.repeat(kinds.centres, 500, axis=0)
    assert np.cov(rest.T) == pytest.approx(np.eye(3), abs=0.05)


def test_an_interval_by_patient_is_wider_than_one_by_picture():
    right = np.repeat([1.0, 0.0, 1.0, 1.0], 25)
    score = lambda rows: float(right[rows].mean())  # noqa: E731
    by_four = by_patient(score, [f"p{n // 25}" for n in range(100)])
    by_each = by_patient(score, [f"p{n}" for n in range(100)])
    assert by_four.value == by_each.value == 0.75
    assert by_four.high - by_four.low > by_each.high - by_each.low


def test_auroc_of_one_class_is_not_a_number():
    assert np.isnan(auroc(np.array([0.1, 0.2]), np.array([True, True])))
    assert auroc(np.array([0.1, 0.2]), np.array([False, True])) == 1


def test_honest_confidence_has_no_calibration_error():
    assert calibration_error(np.full(10, 0.5), np.arange(10) < 5, bins=1) == pytest.approx(0)
