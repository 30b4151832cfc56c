"""Questions about the kit's labelled pictures."""

import pytest

from training.fields.turns import labelled_pictures


@pytest.fixture(scope="module")
def pictures(kit):
    return list(labelled_pictures(kit))


def test_each_picture_is_asked_about_what_its_source_states(pictures):
    asked = {turn.questions[0] for each in pictures for turn in each.turns}
    assert "Which MR weighting is this?" in asked and "Was intravenous contrast given?" in asked
    weighted = [e for e in pictures if "weighting" in e.labels]
    assert all(any(t.answer == e.labels["weighting"] for t in e.turns) for e in weighted)


def test_findings_are_asked_where_they_are_and_where_they_are_not(pictures):
    answers = [t.answer for e in pictures for t in e.turns if t.kind == "closed"]
    assert 0.4 < answers.count("yes") / len(answers) < 0.6


def test_sets_without_a_licence_and_held_out_pictures_are_left_out(pictures):
    assert not {e.source for e in pictures} & {"head_ct_hemorrhage", "kidney_ct"}
    assert {e.split for e in pictures} == {"train"}
