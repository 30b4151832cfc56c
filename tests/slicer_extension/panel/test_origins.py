import pytest
from RadFoundLib.net.protocol import CANNOT_TELL, READER_TEXT, SHOWN

from ..standin import pythonqt
from .desk import is_shown

RECALLED = {
    "source": "recall",
    "text": "A cyst.",
    "confidence": None,
    "model_text": "A tumour.",
    "reason": "corrected by Dr A on 2026-08-01",
    "corrected_by": "Dr A",
    "corrected_on": "2026-08-01T09:30:00.000Z",
}
SILENT = {
    "source": "field",
    "text": CANNOT_TELL,
    "confidence": None,
    "reason": "It was learnt from chest films; this picture is not like those.",
    "model_text": "Yes, a mass.",
}


def follow(desk, turn, action):
    """Click a link under an answer."""
    from PySide6.QtCore import QUrl

    pythonqt.unwrap(desk.ui.chatView).anchorClicked.emit(QUrl(f"{action}:{turn.id}"))
    desk.settle()


def test_a_readers_text_is_shown_as_corrected_and_never_as_unsure(desk):
    desk.server.readers["Is there a lesion?"] = RECALLED
    turn = desk.ask()

    assert "A cyst." in desk.shown and "Corrected by Dr A on 2026-08-01." in desk.shown
    assert "confidence" not in desk.shown and not desk.panel.is_folded(turn)
    assert "A tumour." not in desk.shown
    follow(desk, turn, "unfold")
    assert "The model's text: A tumour." in desk.shown


def test_the_model_itself_is_asked_instead_of_the_readers_text(desk):
    desk.server.readers["Is there a lesion?"] = RECALLED
    turn = desk.ask()
    assert "Ask the model itself" in desk.shown

    follow(desk, turn, "itself")

    assert [body.get("recall") for body in desk.server.asked] == [None, False]
    assert desk.panel.conversation.turns[-1].text == desk.server.texts["vqa"]


def test_other_readers_texts_are_shown_beside(desk):
    desk.server.readers["Is there a lesion?"] = {**RECALLED, "contradictions": [READER_TEXT]}
    desk.ask()

    assert "another reader wrote on 2026-08-01: No effusion." in desk.shown


def test_an_answer_that_the_model_cannot_tell_hides_its_guess(desk):
    desk.server.changes = SILENT
    turn = desk.ask()

    assert CANNOT_TELL in desk.shown and "learnt from" in desk.shown
    assert "Yes, a mass." not in desk.shown and "Accept" not in desk.shown
    follow(desk, turn, "unfold")
    assert "The model's guess: Yes, a mass." in desk.shown


def test_only_a_written_answer_corrects_what_the_model_cannot_tell(desk):
    desk.server.changes = SILENT
    desk.ask()
    ui = desk.ui
    assert ui.correctionEdit.plainText == ""
    assert not ui.acceptButton.enabled and not ui.rejectButton.enabled and not ui.editButton.enabled

    ui.correctionEdit.plainText = "No mass."
    ui.editButton.click()
    desk.settle()

    (row,) = desk.server.corrections
    assert (row["text"], row["model_text"]) == ("No mass.", "Yes, a mass.")


def test_what_is_not_answered_is_no_context_for_the_next_question(desk):
    desk.server.changes = SILENT
    desk.ask()
    desk.ask("And on the left?")

    assert "history" not in desk.server.asked[-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"source": "field", "reason": "learnt from 9,000 chest films"},
            "From the picture, by a classifier. Learnt from 9,000 chest films.",
        ),
        ({"source": "field", "reason": "stated in the file"}, "From the header of the file."),
        ({"source": "wording"}, "In the department's wording."),
        ({"source": "head"}, "By a classifier of this department's corrections."),
    ],
)
def test_an_answer_says_where_it_comes_from(desk, changes, words):
    desk.server.changes = changes
    desk.ask()

    assert words in desk.shown


def test_the_slices_that_the_model_was_shown_can_be_listed(desk):
    desk.server.changes = {"shown": SHOWN}
    turn = desk.ask()
    assert "Shown to the model: 2 of 40 slices" in desk.shown
    assert "axial slice 2" not in desk.shown

    follow(desk, turn, "slices")

    assert "axial slice 1" in desk.shown and "axial slice 2" in desk.shown


def test_a_template_stays_blank_where_the_model_cannot_tell(desk):
    from RadFoundLib.session.template import Template

    template = Template("Chest", "Effusion: {Is there an effusion?}.")
    assert template.filled([{**SILENT, "model": {"name": "m"}}]) == "Effusion: ____."


def test_the_copied_text_names_the_reader(desk):
    from RadFoundLib.panel.render import turn_text

    desk.server.readers["Is there a lesion?"] = RECALLED
    text = turn_text(desk.ask())
    assert "Corrected by Dr A on 2026-08-01." in text and "confidence" not in text


def test_a_second_opinion_is_a_models_even_where_a_reader_has_answered(desk):
    desk.server.models = ("radfound-stub", "other")
    desk.session.disconnect()
    desk.connect()
    desk.server.readers["Is there a lesion?"] = RECALLED
    desk.ask()
    assert is_shown(desk.ui.secondButton)

    desk.ui.secondButton.click()
    desk.settle()

    assert desk.server.asked[-1]["recall"] is False and desk.server.asked[-1]["model"] == "other"
    assert "other" in desk.shown


def test_evidence_is_of_the_model_that_answered(desk):
    desk.server.models = ("radfound-stub", "other")
    desk.session.disconnect()
    desk.connect()
    desk.ask()
    desk.ui.secondButton.click()
    desk.settle()

    desk.ui.evidenceButton.click()
    desk.settle()

    assert desk.server.explained[-1]["answer"]["model"]["name"] == "other"


def test_a_readers_answer_has_no_map_until_it_is_asked_for(desk):
    from RadFoundLib.scene import scene

    desk.server.readers["Is there a lesion?"] = RECALLED
    desk.ask()
    assert "This answer comes from a reader" in desk.ui.evidenceText.text
    assert desk.ui.evidenceButton.text == "Show the model's map"
    assert scene.evidence_node() is None

    desk.ui.evidenceButton.click()
    desk.settle()

    assert scene.evidence_node() is not None
    assert "where the language model looks" in desk.ui.evidenceText.text


@pytest.mark.parametrize("source", ["field", "model"])
def test_what_was_not_answered_has_no_map_and_is_not_accepted(desk, source):
    desk.server.changes = {"source": source, "text": CANNOT_TELL, "reason": "not measured"}
    turn = desk.ask()

    assert turn.is_silent
    assert not desk.ui.evidenceButton.enabled and not desk.ui.acceptButton.enabled
    assert desk.ui.evidenceText.text == "Nothing was answered, so there is no map."
