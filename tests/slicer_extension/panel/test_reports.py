"""Answers and reports as a reader works on them: safety in sight, sentence by sentence."""

import pytest
import slicer
import slicer.util

from ..standin import pythonqt
from .desk import add_volume, is_shown


def report(desk):
    desk.ui.reportButton.click()
    desk.settle()
    return desk.panel.conversation.turns[-1]


def press(widget, key):
    from PySide6.QtTest import QTest

    target = pythonqt.unwrap(widget)
    target.window().activateWindow()
    target.setFocus()
    slicer.app.processEvents()
    QTest.keyClick(target, key)


def click_link(desk, link):
    from PySide6.QtCore import QUrl

    assert f'href="{link}"' in desk.ui.chatView.html
    pythonqt.unwrap(desk.ui.chatView).anchorClicked.emit(QUrl(link))


def rows(desk):
    box = desk.ui.sentenceList
    return [box.item(index).text() for index in range(box.count)]


# Safety in sight


def test_not_for_diagnosis_is_in_the_panel_at_all_times(desk):
    assert "not for diagnosis" in desk.ui.safetyLabel.text
    for name in ("server", "study", "ask", "evidence", "correct", "day", "teach"):
        getattr(desk.ui, name + "Section").collapsed = True
    assert is_shown(desk.ui.safetyLabel)


@pytest.mark.parametrize("confidence", [0.05, 0.39])
def test_an_answer_that_the_model_is_not_sure_of_is_folded(desk, confidence):
    desk.server.confidence = confidence
    turn = desk.ask()

    assert "The model is not sure." in desk.shown
    assert turn.text not in desk.shown
    assert not is_shown(desk.ui.correctionEdit) and not desk.ui.acceptButton.enabled

    click_link(desk, f"unfold:{turn.id}")

    assert turn.text in desk.shown and "a guess" in desk.shown
    assert is_shown(desk.ui.correctionEdit) and desk.ui.acceptButton.enabled


def test_no_answer_is_called_certain(desk):
    desk.server.confidence = 0.9996
    desk.ask()
    assert "sure (99 %)" in desk.shown


def test_the_reader_sets_what_is_folded(desk):
    from RadFoundLib.session.settings import Settings

    turn = desk.ask()
    assert turn.text in desk.shown

    desk.ui.foldBox.currentIndex = desk.ui.foldBox.findData(0.9)
    assert turn.text not in desk.shown
    assert Settings().fold_below() == 0.9

    desk.ui.foldBox.currentIndex = desk.ui.foldBox.findData(0.0)
    assert turn.text in desk.shown


def test_a_sure_an_unsure_and_an_unknown_answer_look_different(desk):
    from RadFoundLib.panel.render import Palette

    colours = {}
    for name, confidence in (("sure", 0.95), ("unsure", 0.5), ("unknown", None)):
        desk.ui.clearButton.click()
        desk.server.confidence = confidence
        desk.ask()
        palette = Palette()
        html = desk.ui.chatView.html
        colours[name] = [
            colour for colour in (palette.link, palette.unsure, palette.faint)
            if f'bgcolor="{colour}"' in html
        ]  # fmt: skip
    assert len({tuple(found) for found in colours.values()}) == 3


# Sentence by sentence


def test_a_report_is_shown_sentence_by_sentence_findings_and_impression_apart(desk):
    report(desk)

    assert rows(desk) == [
        "Findings",
        "·  A round lesion of 20 mm in the left lung.",
        "·  No effusion.",
        "Impression",
        "·  Lesion of the left lung; follow up.",
    ]
    assert is_shown(desk.ui.sentenceList) and not is_shown(desk.ui.correctionEdit)


def test_a_sentence_is_accepted_edited_and_struck_with_one_key(desk):
    from PySide6.QtCore import Qt

    report(desk)
    press(desk.ui.sentenceList, Qt.Key.Key_A)
    press(desk.ui.sentenceList, Qt.Key.Key_X)
    press(desk.ui.sentenceList, Qt.Key.Key_E)
    assert is_shown(desk.ui.sentenceEdit)
    desk.ui.sentenceEdit.text = "Metastasis is likely."
    press(desk.ui.sentenceEdit, Qt.Key.Key_Return)

    assert rows(desk)[1].startswith("✓") and rows(desk)[2].startswith("✗")
    assert rows(desk)[4] == "✎  Metastasis is likely."
    desk.ui.editButton.click()
    desk.settle()
    [sent] = desk.server.corrections
    assert sent["text"] == (
        "Findings: A round lesion of 20 mm in the left lung.\nImpression: Metastasis is likely."
    )
    assert sent["verdict"] == "edited" and "No effusion." in sent["model_text"]


def test_one_key_shows_where_the_model_looked_for_a_sentence(desk):
    from PySide6.QtCore import Qt
    from RadFoundLib.scene import scene

    desk.ui.evidenceSection.collapsed = True
    turn = report(desk)
    desk.ui.sentenceList.currentRow = 2
    press(desk.ui.sentenceList, Qt.Key.Key_W)
    assert desk.ui.evidenceText.text == "Computing the map …"
    desk.settle()

    [body] = desk.server.explained
    assert body["text"] == "No effusion." and body["answer"]["id"] == turn.answer["id"]
    assert not desk.ui.evidenceSection.collapsed
    assert scene.evidence_node() is not None
    assert is_shown(desk.ui.mapOfText) and desk.ui.mapOfText.text == "No effusion."
    assert desk.ui.evidenceText.text.startswith("The brighter a place")

    first = slicer.util.arrayFromVolume(scene.evidence_node()).copy()
    desk.ui.sentenceList.currentRow = 1
    desk.ui.whereSentenceButton.click()
    desk.settle()
    assert desk.ui.mapOfText.text == "A round lesion of 20 mm in the left lung."
    assert (slicer.util.arrayFromVolume(scene.evidence_node()) != first).any()

    desk.ui.removeEvidenceButton.click()
    assert not is_shown(desk.ui.mapOfText) and not is_shown(desk.ui.jumpButton)
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    assert composite.GetForegroundVolumeID() is None


def test_the_map_of_a_readers_words_says_that_they_are_a_readers(desk):
    report(desk)
    desk.ui.editSentenceButton.click()
    desk.ui.sentenceEdit.text = "A cyst."
    desk.panel.sentences.take()
    desk.ui.whereSentenceButton.click()
    desk.settle()

    assert desk.server.explained[-1]["text"] == "A cyst."
    assert desk.ui.evidenceText.text.startswith("These words are a reader's")


def test_a_map_on_its_way_can_be_stopped(desk):
    from RadFoundLib.scene import scene

    report(desk)
    desk.server.pause_s = 2.0
    desk.ui.whereSentenceButton.click()
    assert is_shown(desk.ui.stopButton) and not desk.ui.whereSentenceButton.enabled
    desk.ui.stopButton.click()
    desk.settle()

    assert desk.ui.evidenceText.text == "Stopped."
    assert scene.evidence_node() is None and desk.ui.whereSentenceButton.enabled


def test_a_map_is_not_laid_over_a_volume_that_was_changed_since(desk):
    report(desk)
    slicer.util.arrayFromVolume(desk.volume)[0] = 7
    slicer.util.arrayFromVolumeModified(desk.volume)
    desk.ui.whereSentenceButton.click()
    desk.settle()

    assert "has changed since this answer" in desk.ui.evidenceText.text
    assert not desk.server.explained


def test_a_long_caption_is_shown_sentence_by_sentence_and_a_short_one_is_not(desk):
    desk.server.texts["caption"] = "CT of the chest. A round lesion."
    desk.ui.captionButton.click()
    desk.settle()
    assert rows(desk) == ["·  CT of the chest.", "·  A round lesion."]
    assert is_shown(desk.ui.whereSentenceButton) and not is_shown(desk.ui.correctionEdit)
    desk.ui.strikeSentenceButton.click()
    desk.ui.editButton.click()
    desk.settle()
    assert desk.server.corrections[-1]["text"] == "A round lesion."

    desk.server.texts["caption"] = "CT of the chest."
    desk.ui.captionButton.click()
    desk.settle()
    assert not is_shown(desk.ui.sentenceList) and is_shown(desk.ui.correctionEdit)


def test_the_buttons_under_the_sentences_do_the_same(desk):
    turn = report(desk)
    desk.ui.acceptSentenceButton.click()
    desk.ui.strikeSentenceButton.click()
    desk.ui.sentenceList.currentRow = 2
    assert desk.ui.strikeSentenceButton.text == "Take back (X)"
    desk.ui.strikeSentenceButton.click()
    assert not turn.draft.is_changed and desk.ui.acceptButton.enabled

    desk.ui.addSentenceButton.click()
    desk.ui.sentenceEdit.text = "No rib fracture."
    pythonqt.unwrap(desk.ui.sentenceEdit).returnPressed.emit()
    desk.ui.sentenceList.currentRow = 1
    desk.ui.editSentenceButton.click()
    desk.ui.sentenceEdit.text = "A round lesion."
    pythonqt.unwrap(desk.ui.sentenceEdit).returnPressed.emit()

    assert "+  No rib fracture." in rows(desk)
    assert turn.draft.text().startswith("Findings: A round lesion. No effusion.")
    assert not desk.ui.acceptButton.enabled and desk.ui.editButton.enabled


def test_escape_leaves_a_sentence_as_it_was(desk):
    from PySide6.QtCore import Qt

    turn = report(desk)
    desk.ui.editSentenceButton.click()
    desk.ui.sentenceEdit.text = "Something else."
    press(desk.ui.sentenceEdit, Qt.Key.Key_Escape)
    assert not is_shown(desk.ui.sentenceEdit)

    desk.ui.addSentenceButton.click()
    press(desk.ui.sentenceEdit, Qt.Key.Key_Escape)

    assert not turn.draft.is_changed


def test_a_sentence_that_is_still_typed_is_saved_with_the_report(desk):
    report(desk)
    desk.ui.editSentenceButton.click()
    desk.ui.sentenceEdit.text = "A lesion of 18 mm."

    desk.ui.editButton.click()
    desk.settle()

    assert "A lesion of 18 mm." in desk.server.corrections[0]["text"]


def test_a_sentence_may_be_struck_or_left_while_it_is_typed(desk):
    turn = report(desk)
    before = rows(desk)
    desk.ui.addSentenceButton.click()
    desk.ui.sentenceEdit.text = "Half a sen"
    desk.ui.strikeSentenceButton.click()  # which removes it
    desk.ui.sentenceEdit.text = "Half a sentence"
    assert rows(desk) == before and not turn.draft.is_changed

    desk.ui.sentenceList.currentRow = 1
    desk.ui.addSentenceButton.click()  # without words
    desk.ui.sentenceList.currentRow = len(before)
    desk.ui.editSentenceButton.click()
    desk.ui.sentenceEdit.text = "The last one."

    assert rows(desk)[:-1] == before[:-1] and rows(desk)[-1].endswith("The last one.")


def test_a_sentence_that_is_typed_stays_with_its_report_when_the_study_changes(desk):
    report(desk)
    desk.ui.strikeSentenceButton.click()
    desk.ui.sentenceList.currentRow = 1
    desk.ui.editSentenceButton.click()
    desk.ui.sentenceEdit.text = "A lesion of"
    desk.ui.volumeSelector.setCurrentNode(add_volume("other"))
    assert not is_shown(desk.ui.sentenceEdit)
    assert "An edit of CT is not saved" in desk.ui.askMessage.text

    desk.ui.volumeSelector.setCurrentNode(desk.volume)

    assert desk.ui.sentenceList.item(1).text().endswith("A lesion of")


def test_what_is_typed_as_an_answer_stays_with_it(desk):
    desk.ask()
    desk.ui.correctionEdit.plainText = "Two lesions, the larger"
    assert desk.panel.turn.is_unsaved

    desk.widget.exit()  # to place a marker in another module
    desk.widget.enter()
    assert desk.ui.correctionEdit.plainText == "Two lesions, the larger"

    desk.ask("And the liver?")
    assert desk.ui.correctionEdit.plainText == desk.server.texts["vqa"]
    desk.ui.volumeSelector.setCurrentNode(add_volume("other"))
    assert "An edit of CT is not saved" in desk.ui.askMessage.text
    desk.ui.volumeSelector.setCurrentNode(desk.volume)
    assert desk.ui.answerBox.itemText(1) == "Is there a lesion? (not saved)"
    desk.panel.choose(desk.panel.conversation.turns[0])
    assert desk.ui.correctionEdit.plainText == "Two lesions, the larger"

    desk.ui.editButton.click()
    desk.settle()

    assert [row["text"] for row in desk.server.corrections] == ["Two lesions, the larger"]
    assert not desk.panel.conversation.has_unsaved


def test_a_corrected_report_is_the_report_and_the_models_text_is_struck_and_folded(desk):
    turn = report(desk)
    desk.ui.editSentenceButton.click()
    desk.ui.sentenceEdit.text = "A lesion of 18 mm."
    pythonqt.unwrap(desk.ui.sentenceEdit).returnPressed.emit()
    desk.ui.editButton.click()
    desk.settle()

    assert "A lesion of 18 mm." in desk.shown and "20 mm" not in desk.shown
    click_link(desk, f"unfold:{turn.id}")
    assert "20 mm" in desk.shown
    assert "line-through" in desk.ui.chatView.html


def test_a_rejected_answer_is_struck(desk):
    desk.ask()
    desk.ui.rejectButton.click()

    assert "line-through" in desk.ui.chatView.html


# Templates

TEMPLATE = {
    "name": "Chest",
    "text": "Findings: Effusion: {Is there an effusion?}. Heart: {Is the heart enlarged?}. "
    "Bones: ____.\nImpression: {What is the main finding?}",
}


@pytest.fixture
def department(server):
    server.templates = [TEMPLATE]


def fill_template(desk):
    box = desk.ui.templateBox
    box.currentIndex = box.findText("Chest")
    pythonqt.unwrap(box).activated.emit(box.currentIndex)
    desk.settle()
    return desk.panel.conversation.turns[-1]


def test_a_template_is_filled_as_far_as_the_model_can(department, desk):
    assert is_shown(desk.ui.templateBox)

    turn = fill_template(desk)

    assert [body["question"] for body in desk.server.asked] == [
        "Is there an effusion?", "Is the heart enlarged?", "What is the main finding?",
    ]  # fmt: skip
    assert turn.answer["sections"]["impression"] == "Yes, a small one on the left"
    assert "Bones: ____." in turn.draft.text()


def test_a_blank_of_a_template_stays_blank_where_the_model_is_not_sure(department, desk):
    desk.server.confidence = 0.1
    desk.ui.foldBox.currentIndex = desk.ui.foldBox.findData(0.0)

    turn = fill_template(desk)

    assert turn.answer["sections"]["findings"] == "Effusion: ____. Heart: ____. Bones: ____."


def test_a_filled_template_is_not_sent_as_a_correction_of_the_model(department, desk):
    turn = fill_template(desk)
    desk.ui.acceptButton.click()
    desk.settle()

    assert turn.verdict == "accepted"
    assert not desk.server.corrections and not desk.session.outbox.waiting()


def test_a_server_without_templates_offers_none(desk):
    assert not is_shown(desk.ui.templateBox)


# Keeping


def test_a_conversation_is_there_again_after_its_scene_was_loaded(desk):
    turn = report(desk)
    desk.ui.strikeSentenceButton.click()
    desk.ui.editButton.click()
    desk.settle()
    shown = desk.shown
    desk.ui.keepButton.click()
    slicer.mrmlScene.SetSaveToXMLString(1)
    slicer.mrmlScene.Commit()
    saved = slicer.mrmlScene.GetSceneXMLString()
    texts = {
        node.GetName(): node.GetText() for node in slicer.util.getNodesByClass("vtkMRMLTextNode")
    }

    slicer.mrmlScene.Clear()
    slicer.mrmlScene.SetLoadFromXMLString(1)
    slicer.mrmlScene.SetSceneXMLString(saved)
    slicer.mrmlScene.Import()
    for node in slicer.util.getNodesByClass("vtkMRMLTextNode"):
        node.SetText(texts[node.GetName()])  # its own file holds the text
    desk.panel.tell("study")

    assert desk.shown == shown
    [restored] = desk.panel.conversation.turns
    assert restored.draft.text() == turn.draft.text() and restored.verdict == "edited"


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"schema": "radfound.conversation/1", "turns": [{}]}']
)
def test_a_kept_conversation_of_another_version_is_said_so(desk, text):
    from RadFoundLib.scene import scene

    scene.save_conversation(desk.volume, text)
    desk.panel.tell("study")

    assert "kept by another version" in desk.ui.askMessage.text
    assert not desk.panel.conversation.turns


def test_a_conversation_is_exported_as_pdf(desk, tmp_path, monkeypatch):
    import qt

    report(desk)
    path = tmp_path / "out.pdf"
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(path))
    desk.ui.exportButton.click()

    assert path.read_bytes().startswith(b"%PDF") and path.stat().st_size > 2000
    assert desk.ui.askMessage.text == "Exported."


def test_a_report_is_sent_to_the_archive_where_the_server_offers_it(desk):
    turn = report(desk)
    assert not is_shown(desk.ui.archiveButton)
    desk.server.archive = "reader"
    desk.ui.connectButton.click()
    desk.connect()

    assert is_shown(desk.ui.archiveButton)
    desk.ui.archiveButton.click()
    desk.settle()
    desk.ui.acceptButton.click()
    desk.settle()
    desk.ui.archiveButton.click()
    desk.settle()

    assert desk.server.archived == [
        {"answer_id": turn.answer["id"]}, {"correction_id": turn.correction_id},
    ]  # fmt: skip
    assert "on its way" in desk.ui.askMessage.text


# Several models


def test_the_reader_chooses_the_model_where_there_are_several(module, server):
    from .desk import Desk, add_volume

    server.models = ("radfound-mini", "medgemma")
    desk = Desk(module, server)
    add_volume()
    desk.connect()
    desk.ui.consentBox.checked = True
    assert is_shown(desk.ui.modelBox)
    desk.ui.modelBox.currentIndex = desk.ui.modelBox.findData("medgemma")

    turn = desk.ask()

    assert server.asked[-1]["model"] == "medgemma"
    assert turn.answer["model"]["name"] == "medgemma"


def test_a_second_opinion_is_that_of_another_model_on_the_same_question(module, server):
    from .desk import Desk, add_volume

    server.models = ("radfound-mini", "medgemma")
    desk = Desk(module, server)
    add_volume()
    desk.connect()
    desk.ui.consentBox.checked = True
    desk.ui.modelBox.currentIndex = desk.ui.modelBox.findData("radfound-mini")
    desk.ask("Is there a lesion?")

    desk.ui.secondButton.click()
    desk.settle()

    first, second = desk.panel.conversation.turns
    assert (first.answer["model"]["name"], second.answer["model"]["name"]) == server.models
    assert second.question == "Is there a lesion?" and not second.history
    assert "radfound-mini" in desk.shown and "medgemma" in desk.shown


def test_one_model_is_not_offered_for_choice(desk):
    assert not is_shown(desk.ui.modelBox) and not is_shown(desk.ui.secondButton)
    desk.ask()
    assert "model" not in desk.server.asked[-1]
