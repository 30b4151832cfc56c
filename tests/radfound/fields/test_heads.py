import numpy as np
import pytest

from radfound.fields.heads import Head
from radfound.fields.nearness import Kinds, Nearness, Subspace


def test_probabilities_add_up_to_one_and_classes_of_one_name_are_added():
    head = Head(("a", "b", "a"), np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    found = head.probabilities(np.zeros((1, 3), np.float32))
    assert head.names == ("a", "b")
    assert found[0] == pytest.approx([2 / 3, 1 / 3])


def test_a_high_temperature_makes_a_head_less_sure():
    features = np.array([[3.0]], np.float32)
    weight, bias = np.array([[1.0], [-1.0]], np.float32), np.zeros(2, np.float32)
    sharp, soft = (Head(("a", "b"), weight, bias, t).probabilities(features)[0, 0] for t in (1, 4))
    assert 0.5 < soft < sharp


def test_a_picture_far_from_all_references_is_strange():
    plain = Subspace(np.zeros(3), np.ones(3), np.eye(3)[:, :2], np.ones(2))
    references = np.array([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [5.0, 5.0], [5.1, 5.0], [5.0, 5.1]])
    near = Nearness(
        plain,
        plain,
        Kinds(("one", "two"), np.eye(2), np.array([[0.0, 0.0], [5.0, 5.0]])),
        references,
        np.array([0, 0, 0, 1, 1, 1]),
        ("one", "two"),
        np.ones(2),
        np.zeros((2, 4)),
        np.ones((2, 4)),
    )
    features = {"inner": np.array([[0.0, 0, 0], [2.5, 2.5, 0], [0, 0, 4.0]])}
    features["pooled"] = features["inner"]
    assert (near.strangeness(features) > 1).tolist() == [False, True, True]
    assert near.to_sets(features)[0].argmin() == 0
    assert near.nearest_kinds({name: each[:1] for name, each in features.items()}) == {"one"}


def test_every_kind_has_limits_of_its_own_and_small_excesses_add_up():
    plain = Subspace(np.zeros(2), np.ones(2), np.eye(2)[:, :1], np.ones(1))
    centres = np.array([[0.0], [10.0]])
    limits = np.array([[1e6, 1.0, 1.0, 1e6], [1e6, 2.0, 2.0, 1e6]])
    near = Nearness(
        plain,
        plain,
        Kinds(("tight", "wide"), np.eye(1), centres),
        centres,
        np.array([0, 1]),
        ("tight", "wide"),
        np.ones(2),
        np.zeros((2, 4)),
        limits,
    )
    features = {"inner": np.array([[0.0, 0.8], [0.0, 1.5], [10.0, 1.5]])}
    features["pooled"] = np.array([[0.0, 0.0], [0.0, 0.0], [10.0, 0.0]])
    assert (near.strangeness(features) > 1).tolist() == [False, True, False]
    features["pooled"] = np.array([[0.0, 0.8], [0.0, 0.0], [10.0, 0.0]])
    assert near.strangeness(features)[0] == pytest.approx(np.hypot(0.8, 0.8))


def test_a_picture_between_two_kinds_is_further_than_one_of_a_kind():
    kinds = Kinds(("a", "b"), np.eye(2) / 0.3, np.array([[-1.0, 0.0], [1.0, 0.0]]) / 0.3)
    nearest, (of_a_kind, between) = kinds.relative(np.array([[1.0, 0.1], [0.0, 0.1]]))
    assert kinds.names[nearest[0]] == "b"
    assert of_a_kind < 0 < between
