"""Drafts of reports and templates, without Slicer."""

import pytest
from RadFoundLib.session.draft import Draft, split_sentences
from RadFoundLib.session.template import BLANK, Template

REPORT = {
    "text": "Findings: A lesion of approx. 3 mm. No effusion. Impression: Follow up.",
    "sections": {"findings": "A lesion of approx. 3 mm. No effusion.", "impression": "Follow up."},
}


def test_an_abbreviation_ends_no_sentence():
    text = "A lesion of approx. 3 mm. No effusion!\nHeart of normal size."

    assert split_sentences(text) == [
        "A lesion of approx. 3 mm.", "No effusion!", "Heart of normal size.",
    ]  # fmt: skip


def test_a_draft_that_is_not_touched_is_the_models():
    draft = Draft.of_answer(REPORT)
    for index in range(3):
        draft.accept(index)

    assert not draft.is_changed
    assert draft.text() == (
        "Findings: A lesion of approx. 3 mm. No effusion.\nImpression: Follow up."
    )


def test_a_struck_sentence_comes_back_as_it_was():
    draft = Draft.of_answer(REPORT)
    draft.edit(1, "A small effusion.")
    draft.strike(1)
    assert "effusion" not in draft.text()

    draft.strike(1)

    assert draft.sentences[1].state == "edited" and "A small effusion." in draft.text()


def test_an_edit_back_to_the_models_words_is_no_edit():
    draft = Draft.of_answer(REPORT)
    draft.edit(2, "Normal.")
    draft.edit(2, "Follow up.")

    assert not draft.is_changed


def test_a_sentence_of_ones_own_goes_to_the_end_of_the_findings_and_is_removed_by_striking():
    draft = Draft.of_answer(REPORT)

    index = draft.add("No rib fracture.")
    assert draft.sections()["findings"].endswith("No effusion. No rib fracture.")
    draft.strike(index)

    assert not draft.is_changed


def test_a_report_without_headings_has_none_when_edited():
    draft = Draft.of_answer({"text": "A lesion. No effusion.", "sections": None})
    draft.strike(1)

    assert draft.text() == "A lesion."


def answer(text, confidence):
    return {"text": text, "confidence": confidence, "model": {"name": "m"}}


def test_a_question_that_a_template_asks_twice_is_asked_once():
    template = Template("x", "{Effusion?} {Effusion?} {Side?}")

    assert template.questions() == ["Effusion?", "Side?"]
    assert template.filled([answer("Yes.", 0.9), answer("left", None)]) == "Yes Yes left"


@pytest.mark.parametrize("given", [answer("Yes.", 0.1), answer("  ", 0.9)])
def test_an_unsure_or_empty_answer_leaves_its_blank(given):
    assert Template("x", "Effusion: {Effusion?}.").filled([given]) == f"Effusion: {BLANK}."


def test_the_confidence_of_a_filled_template_is_that_of_its_least_sure_answer():
    filled = Template("x", "{A?} {B?}").answer([answer("a", 0.9), answer("b", 0.6)], ["ct01"])

    assert filled["confidence"] == 0.6 and filled["images"] == ["ct01"]
    assert filled["sections"] is None
