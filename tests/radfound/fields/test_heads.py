import numpy as np
import pytest

from radfound.fields.heads import Head, Kinds, Nearness, Subspace


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
        Kinds(np.eye(2), np.array([[0.0, 0.0], [5.0, 5.0]])),
        references,
        np.array([0, 0, 0, 1, 1, 1]),
        ("one", "two"),
        np.ones(2),
        np.zeros(4),
        np.ones(4),
    )
    features = {"inner": np.array([[0.0, 0, 0], [2.5, 2.5, 0], [0, 0, 4.0]])}
    features["pooled"] = features["inner"]
    assert (near.strangeness(features) > 1).tolist() == [False, True, True]
    assert near.to_sets(features)[0].argmin() == 0


def test_a_picture_between_two_kinds_is_further_than_one_of_a_kind():
    kinds = Kinds(np.eye(2) / 0.3, np.array([[-1.0, 0.0], [1.0, 0.0]]) / 0.3)
    of_a_kind, between = kinds.relative(np.array([[1.0, 0.1], [0.0, 0.1]]))
    assert of_a_kind < 0 < between
