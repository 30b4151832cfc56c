import numpy as np
import pytest
import slicer
import slicer.util

from ..standin import pythonqt
from .desk import Desk, add_volume, is_shown

# Server


def test_a_new_panel_says_what_to_do_first(module):
    ui = module.ui

    assert "Enter the address" in ui.stateLabel.text
    assert "Load a volume" in ui.volumeText.text
    assert "Connect to a server" in ui.chatView.plainText
    assert not ui.askButton.enabled and not ui.captionButton.enabled
    assert not is_shown(ui.tokenEdit) and not is_shown(ui.consentBox)


def test_connecting_tells_the_model_and_remembers_the_address(module, server):
    desk = Desk(module, server)

    desk.connect()

    assert desk.ui.stateLabel.text == "connected: radfound-stub"
    assert desk.ui.connectButton.text == "Disconnect"
    assert desk.ui.addressBox.itemText(0) == server.address
    assert desk.ui.addressBox.count == 1


def test_the_adapter_that_answers_is_named(module, server):
    server.active = "a-0003"
    desk = Desk(module, server)

    desk.connect()

    assert desk.ui.stateLabel.text == "connected: radfound-stub, adapter a-0003"


def test_disconnecting_keeps_the_conversation(desk):
    desk.ask()

    desk.ui.connectButton.click()

    assert desk.session.state == "away"
    assert "A. Reader" not in desk.shown and desk.server.texts["vqa"] in desk.shown
    assert not desk.ui.captionButton.enabled


def test_an_address_that_is_none_is_explained(module):
    module.ui.addressBox.setEditText("ht tp:/nowhere")
    module.ui.connectButton.click()

    assert "expected one such as 127.0.0.1:8000" in module.ui.stateLabel.text


def test_a_token_is_asked_for_only_by_a_server_that_wants_one(module, server):
    server.token = "secret"
    desk = Desk(module, server)
    desk.ui.addressBox.setEditText(server.address)
    desk.ui.connectButton.click()
    desk.until(lambda: desk.session.state == "refused")
    assert is_shown(desk.ui.tokenEdit)
    assert "asks for a token" in desk.ui.stateLabel.text

    desk.ui.tokenEdit.text = "secret"
    desk.ui.connectButton.click()
    desk.until(lambda: desk.session.state == "connected")

    desk.settle()
    assert pythonqt.unwrap(desk.ui.tokenEdit).echoMode().name == "Password"


def test_a_token_is_neither_in_the_settings_nor_in_the_scene(module, server, tmp_path):
    server.token = "a-secret-token"
    desk = Desk(module, server)
    desk.volume = add_volume()
    desk.ui.addressBox.setEditText(server.address)
    desk.ui.connectButton.click()
    desk.until(lambda: desk.session.state == "refused")
    desk.ui.tokenEdit.text = "a-secret-token"
    desk.connect()
    desk.ui.consentBox.checked = True
    desk.ask()

    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.mrmlScene.SetSaveToXMLString(1)
    slicer.mrmlScene.Commit()
    assert "a-secret-token" not in slicer.mrmlScene.GetSceneXMLString()
    desk.panel.settings._store.sync()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".ini" for path in files)
    for path in files:
        assert b"a-secret-token" not in path.read_bytes(), path


# Consent


def test_nothing_is_sent_before_the_reader_agrees(module, server):
    desk = Desk(module, server)
    add_volume()
    desk.connect()
    desk.ui.questionEdit.text = "What is this?"
    desk.ui.askButton.click()
    desk.run(0.2)

    assert is_shown(desk.ui.consentBanner)
    assert server.address in desk.ui.consentText.text
    assert not server.images and not server.asked

    desk.ui.agreeButton.click()
    desk.until(lambda: len(desk.panel.conversation.answered()) == 1)

    assert len(server.images) == 1
    assert not is_shown(desk.ui.consentBanner)


def test_who_does_not_agree_has_sent_nothing(module, server):
    desk = Desk(module, server)
    add_volume()
    desk.connect()
    desk.ui.captionButton.click()

    desk.ui.notNowButton.click()
    desk.run(0.1)

    assert desk.ui.askMessage.text == "Nothing was sent."
    assert not server.images and not desk.panel.conversation.turns


def test_consent_is_for_the_server_and_the_study_that_it_was_asked_for(module, server):
    from RadFoundLib.selftest.pretended_server import StubServer

    desk, other = Desk(module, server), StubServer()
    first = add_volume()
    desk.connect()
    desk.ui.captionButton.click()
    assert is_shown(desk.ui.consentBanner)
    second = add_volume("second")
    desk.ui.volumeSelector.setCurrentNode(second)
    assert not is_shown(desk.ui.consentBanner)

    desk.ui.volumeSelector.setCurrentNode(first)
    desk.ui.captionButton.click()
    desk.server = other
    desk.connect()

    assert not is_shown(desk.ui.consentBanner)
    desk.ui.agreeButton.click()  # as by a key that was pressed before
    desk.settle()
    assert not desk.panel.conversation.turns and not server.asked and not other.asked
    other.close()


def test_consent_is_remembered_for_this_server_only(desk, running):
    from RadFoundLib.selftest.pretended_server import StubServer
    from RadFoundLib.session.settings import Settings

    assert Settings().consents() == {desk.server.address}
    other = StubServer()
    try:
        desk.server = other
        desk.ui.connectButton.click()
        desk.connect()
        assert not desk.ui.consentBox.checked
        desk.ui.captionButton.click()
        assert is_shown(desk.ui.consentBanner)
    finally:
        other.close()


def test_consent_can_be_taken_back(desk):
    desk.ask()
    desk.ui.consentBox.checked = False

    desk.ui.captionButton.click()

    assert is_shown(desk.ui.consentBanner)
    assert len(desk.panel.conversation.turns) == 1


def test_a_study_of_the_server_needs_no_consent_to_be_asked_about(desk):
    desk.ui.consentBox.checked = False
    take_next_study(desk)

    desk.ask()

    assert not desk.server.images
    assert desk.server.asked[-1]["image"] == "study-7"


# Study


def take_next_study(desk, image="study-7"):
    from RadFoundLib.scene.volumefile import VolumeContent

    content = VolumeContent(np.zeros((3, 4, 5), np.int16), np.diag([1.0, 1, 2, 1]))
    with content.open() as file:
        desk.server.studies[image] = file.read()
    desk.ui.nextButton.click()
    desk.until(lambda: desk.panel.volume is not None and desk.panel.volume.GetName() == image)
    desk.settle()


def test_the_next_study_is_loaded_with_the_reason_for_it(desk, running):
    take_next_study(desk)

    assert desk.ui.nextText.text == "study-7: first by name."
    assert desk.ui.volumeSelector.currentNode().GetName() == "study-7"
    # The file held a patient's study.
    import os

    assert not os.listdir(running.app.temporaryPath)


def test_the_strategy_that_is_chosen_is_the_one_that_is_asked_for(desk):
    desk.ui.strategyBox.currentIndex = desk.ui.strategyBox.findData("random")

    take_next_study(desk)

    assert ("POST", "/activelearning/random") in desk.server.requests


def test_no_further_study_is_said_so(desk):
    desk.ui.nextButton.click()
    desk.settle()

    assert "has been read" in desk.ui.nextText.text


def test_a_changed_study_of_the_server_is_sent(desk):
    take_next_study(desk)
    slicer.util.updateVolumeFromArray(desk.panel.volume, np.ones((3, 4, 5), np.int16))

    desk.ask()

    assert len(desk.server.images) == 1


def test_a_volume_is_sent_once_however_often_it_is_asked_about(desk):
    desk.ask()
    desk.ask("And now?")
    desk.ui.connectButton.click()
    desk.connect()
    desk.ask("And after that?")

    assert [method for method, _ in desk.server.requests].count("PUT") == 1


def test_two_volumes_of_one_name_have_their_own_conversations(desk):
    desk.ask("About the first?")
    second = add_volume(affine=np.diag([1.0, 1, 1, 1]))

    desk.ui.volumeSelector.setCurrentNode(second)

    assert "number 2 of 2" in desk.ui.volumeText.text
    assert "About the first?" not in desk.shown
    desk.ask("About the second?")
    assert len(desk.server.images) == 2
    assert desk.server.asked[0]["image"] != desk.server.asked[1]["image"]
    desk.ui.volumeSelector.setCurrentNode(desk.volume)
    assert "About the first?" in desk.shown and "About the second?" not in desk.shown


def test_several_volumes_are_views_of_one_study(desk):
    from PySide6.QtCore import Qt

    other = add_volume("MLO")
    desk.ui.viewsSelector.setCheckState(other, Qt.CheckState.Checked)

    desk.ask()

    assert len(desk.server.asked[-1]["images"]) == 2
    assert set(desk.server.asked[-1]["images"]) == set(desk.server.images)


def test_a_volume_is_described_once_it_has_voxels(desk):
    late = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "late")
    desk.ui.volumeSelector.setCurrentNode(late)
    assert desk.ui.volumeText.text == ""

    slicer.util.updateVolumeFromArray(late, np.zeros((3, 4, 5), np.int16))

    desk.until(lambda: desk.ui.volumeText.text.startswith("5 × 4 × 3 voxels"))


def test_a_slice_is_asked_about(desk):
    desk.ui.partBox.currentIndex = desk.ui.partBox.findData("slice:Red")
    from RadFoundLib.scene import scene

    scene.slice_node("Red").SetSliceOffset(6.0)

    desk.ask()

    plane = desk.server.asked[-1]["region"]["slice_mm"]
    assert plane["point"][2] == pytest.approx(6.0)
    assert "Red slice at 6.0 mm" in desk.shown


def test_a_region_is_asked_about(desk):
    desk.ui.partBox.currentIndex = desk.ui.partBox.findData("region")
    assert is_shown(desk.ui.roiSelector)
    desk.ui.captionButton.click()
    assert "Choose or create a region" in desk.ui.askMessage.text
    roi = desk.ui.roiSelector.addNode()
    assert min(roi.GetSize()) > 0
    roi.SetName("lesion")
    roi.SetCenter(1, 2, 3)
    roi.SetSize(4, 4, 4)

    desk.ask()

    assert desk.server.asked[-1]["region"] == {"box_mm": [[-1, 0, 1], [3, 4, 5]]}
    assert "in lesion" in desk.shown


def test_the_part_to_read_is_saved_with_the_scene(desk):
    desk.ui.partBox.currentIndex = desk.ui.partBox.findData("slice:Green")
    node = desk.widget._parameters.parameterNode

    assert node.GetParameter("part") == "slice:Green"
    assert node.GetNodeReference("volume") is desk.volume

    node.SetParameter("part", "slice:Yellow")
    assert desk.panel.study_section.part == "slice:Yellow"


# Ask


def test_an_answer_comes_with_its_confidence_and_its_model(desk):
    desk.ask("Is there a lesion?")

    assert "Is there a lesion?" in desk.shown
    assert "Yes, a small one on the left." in desk.shown
    assert "fairly sure (83 %) · radfound-stub" in desk.shown
    assert desk.ui.questionEdit.text == ""


def test_text_is_shown_as_it_comes(desk):
    desk.server.pause_s = 0.2
    desk.ui.questionEdit.text = "Is there a lesion?"
    desk.ui.askButton.click()

    desk.until(lambda: "Yes, a" in desk.shown)
    assert "left" not in desk.shown
    assert is_shown(desk.ui.stopButton) and not is_shown(desk.ui.askButton)
    desk.until(lambda: "on the left." in desk.shown)
    desk.settle()
    assert is_shown(desk.ui.askButton) and not is_shown(desk.ui.stopButton)


def test_enter_asks(desk):
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    edit = pythonqt.unwrap(desk.ui.questionEdit)
    QTest.keyClicks(edit, "Where?")
    QTest.keyClick(edit, Qt.Key.Key_Return)

    desk.until(lambda: len(desk.panel.conversation.answered()) == 1)
    assert desk.server.asked[0]["question"] == "Where?"


def stop_by_button(desk):
    desk.ui.stopButton.click()


def stop_by_escape(desk):
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    window = pythonqt.unwrap(desk.widget.parent)
    window.activateWindow()
    QTest.keyClick(window, Qt.Key.Key_Escape)


@pytest.mark.parametrize("stop", [stop_by_button, stop_by_escape])
def test_an_answer_can_be_stopped_and_what_had_come_stays(desk, stop):
    desk.server.pause_s = 0.3
    desk.ui.reportButton.click()
    turn = desk.panel.conversation.turns[-1]
    desk.until(lambda: turn.text)

    stop(desk)
    desk.until(lambda: not turn.is_open)

    assert turn.state == "stopped" and turn.answer is None
    assert turn.text in desk.shown and "stopped" in desk.shown
    desk.until(desk.server.cancelled.is_set)
    desk.server.pause_s = 0.0
    desk.ask()


def test_an_empty_question_is_not_asked(desk):
    desk.ui.questionEdit.text = "   "

    assert not desk.ui.askButton.enabled


def test_earlier_turns_are_context_unless_the_reader_says_no(desk):
    desk.ask("Is there a lesion?")
    desk.ask("How large is it?")
    assert desk.server.asked[-1]["history"] == [
        {"question": "Is there a lesion?", "answer": "Yes, a small one on the left."}
    ]

    desk.ui.contextBox.checked = False
    desk.ask("Which side?")

    assert "history" not in desk.server.asked[-1]


def test_context_holds_what_the_reader_wrote_instead(desk):
    desk.ask("Is there a lesion?")
    desk.ui.correctionEdit.plainText = "Two lesions."
    desk.ui.editButton.click()
    desk.settle()

    desk.ask("How large?")

    assert desk.server.asked[-1]["history"][0]["answer"] == "Two lesions."


def test_a_caption_and_a_report_with_its_parts(desk):
    desk.ui.captionButton.click()
    desk.settle()
    desk.ui.reportButton.click()
    desk.settle()

    assert [asked["task"] for asked in desk.server.asked] == ["caption", "report"]
    assert "Axial CT of the chest" in desk.shown
    assert "Findings" in desk.shown and "Impression" in desk.shown


def test_what_a_model_writes_is_never_taken_for_html(desk):
    desk.server.texts["vqa"] = (
        "<b>bold</b><img src='http://127.0.0.1:1/x.png'> & <script>x</script>"
    )

    desk.ask("<i>What?</i>")

    assert desk.server.texts["vqa"] in desk.shown
    assert "<i>What?</i>" in desk.shown
    html = desk.ui.chatView.html
    assert "<img" not in html and "<script" not in html


def test_html_is_not_taken_for_html_while_it_streams(desk):
    desk.server.texts["vqa"] = "<b>one</b> <img src=x> three"
    desk.server.pause_s = 0.2
    desk.ui.captionButton.enabled = True
    desk.ui.questionEdit.text = "What?"
    desk.ui.askButton.click()

    desk.until(lambda: "<img" in desk.shown)
    desk.settle()

    assert "<b>one</b> <img src=x> three" in desk.shown


def test_a_quick_question_is_asked_at_once(desk):
    box = desk.ui.promptsBox
    index = box.findText("Which imaging modality is this?")
    pythonqt.unwrap(box).activated.emit(index)
    desk.settle()

    assert desk.server.asked[-1]["question"] == "Which imaging modality is this?"
    assert box.currentIndex == 0


def test_quick_questions_can_be_edited_and_are_remembered(desk):
    desk.ui.editPromptsButton.click()
    assert is_shown(desk.ui.promptsPanel)
    desk.ui.promptsEdit.plainText = "Mine?\n\n  Another?  "
    desk.ui.editPromptsButton.click()

    from RadFoundLib.session.settings import Settings, default_prompts

    assert Settings().prompts() == ["Mine?", "Another?"]
    assert desk.ui.promptsBox.count == 3
    desk.ui.editPromptsButton.click()
    desk.ui.defaultPromptsButton.click()
    desk.ui.editPromptsButton.click()
    assert Settings().prompts() == default_prompts()


def test_nothing_is_kept_in_the_scene_until_the_reader_saves_it(desk):
    desk.ask("Is there a lesion?")
    assert not slicer.util.getNodesByClass("vtkMRMLTextNode")

    desk.ui.saveButton.click()

    [node] = slicer.util.getNodesByClass("vtkMRMLTextNode")
    assert node.GetName() == "RadFound: Is there a lesion?"
    assert "Yes, a small one on the left." in node.GetText()
    assert "not for diagnosis" in node.GetText()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
    assert parent == hierarchy.GetItemByDataNode(desk.volume)


def test_a_report_is_copied_as_text(desk):
    desk.ui.reportButton.click()
    desk.settle()

    desk.ui.copyButton.click()

    copied = pythonqt.application().clipboard().text()
    assert copied.startswith("Report\n") and "Impression\nLesion" in copied


def test_a_conversation_is_exported_as_text(desk, tmp_path, monkeypatch):
    import qt

    desk.ask()
    asked = []

    def choose(*arguments):
        asked.append(arguments)
        return str(tmp_path / "out.txt")

    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", choose)
    desk.ui.exportButton.click()

    assert "Is there a lesion?" in (tmp_path / "out.txt").read_text(encoding="utf-8")
    assert asked[0][2] == "CT_radfound.pdf"


def test_an_export_that_fails_is_explained_and_one_that_is_given_up_is_not(
    desk, tmp_path, monkeypatch
):
    import qt

    desk.ask()
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / "no" / "x"))
    desk.ui.exportButton.click()
    assert "cannot be written" in desk.ui.askMessage.text

    desk.ui.askMessage.text = ""
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: "")
    desk.ui.exportButton.click()
    assert desk.ui.askMessage.text == ""


def test_a_conversation_that_was_cleared_by_mistake_is_brought_back(desk):
    turn = desk.ask()
    desk.ui.clearButton.click()
    assert not desk.panel.conversation.turns and desk.ui.clearButton.text == "Bring back"

    desk.ui.clearButton.click()

    assert desk.panel.conversation.turns == [turn] and desk.panel.turn is turn
    assert desk.ui.clearButton.text == "Start over"

    desk.ui.clearButton.click()
    slicer.mrmlScene.Clear()
    add_volume()  # with the id of the first
    assert desk.ui.clearButton.text == "Start over" and not desk.ui.clearButton.enabled


def test_a_conversation_can_be_started_over(desk):
    desk.ask("First?")

    desk.ui.clearButton.click()

    assert "First?" not in desk.shown
    assert not desk.ui.acceptButton.enabled
    desk.ask("Second?")
    assert "history" not in desk.server.asked[-1]


# Evidence


def test_evidence_is_laid_over_the_volume_and_taken_away(desk):
    from RadFoundLib.scene import scene

    desk.ask()
    assert not is_shown(desk.ui.removeEvidenceButton)
    desk.ui.evidenceButton.click()
    desk.settle()

    assert scene.evidence_node() is not None
    assert is_shown(desk.ui.removeEvidenceButton) and is_shown(desk.ui.opacitySlider)
    desk.ui.opacitySlider.value = 0.3
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    assert composite.GetForegroundOpacity() == pytest.approx(0.3)
    desk.ui.jumpButton.click()
    assert scene.slice_node("Red").GetSliceOffset() == pytest.approx(9.0, abs=3.0)
    desk.ui.removeEvidenceButton.click()
    assert scene.evidence_node() is None
    assert not is_shown(desk.ui.removeEvidenceButton)


def test_a_server_without_evidence_says_so(desk):
    desk.server.evidence = False
    desk.ask()

    desk.ui.evidenceButton.click()
    desk.settle()

    assert "has no evidence maps" in desk.ui.evidenceText.text


def test_there_is_no_evidence_before_an_answer(desk):
    assert not desk.ui.evidenceButton.enabled
    assert "Ask something first" in desk.ui.evidenceText.text


# Correct


def test_an_answer_is_accepted(desk):
    turn = desk.ask()

    desk.ui.acceptButton.click()
    desk.settle()

    [sent] = desk.server.corrections
    assert sent["verdict"] == "accepted" and sent["text"] == turn.text
    assert sent["author"] == "A. Reader" and sent["answer_id"] == turn.answer["id"]
    assert "accepted" in desk.shown
    assert not desk.ui.acceptButton.enabled
    assert not desk.session.outbox.waiting()


def test_an_answer_is_edited(desk):
    desk.ask()
    assert not desk.ui.editButton.enabled

    desk.ui.correctionEdit.plainText = "A lesion of 18 mm."
    desk.ui.editButton.click()
    desk.settle()

    [sent] = desk.server.corrections
    assert sent["verdict"] == "edited" and sent["text"] == "A lesion of 18 mm."
    assert sent["model_text"] == "Yes, a small one on the left."
    assert "A lesion of 18 mm." in desk.shown and "edited" in desk.shown
    assert "Yes, a small one on the left." not in desk.shown
    assert not desk.ui.editButton.enabled


def test_an_answer_is_rejected(desk):
    desk.ask()

    desk.ui.rejectButton.click()
    desk.settle()

    [sent] = desk.server.corrections
    assert sent["verdict"] == "rejected" and sent["text"] == ""
    assert "rejected" in desk.shown


def test_a_verdict_can_be_changed_by_a_new_one(desk):
    desk.ask()
    desk.ui.acceptButton.click()
    desk.settle()

    desk.ui.rejectButton.click()
    desk.settle()

    assert [row["verdict"] for row in desk.server.corrections] == ["accepted", "rejected"]
    assert len({row["id"] for row in desk.server.corrections}) == 2


@pytest.mark.parametrize("action", ["accept", "reject"])
def test_the_links_under_an_answer_judge_it(desk, action):
    first = desk.ask("First?")
    desk.ask("Second?")

    click_link(desk, f"{action}:{first.id}")
    desk.settle()

    [sent] = desk.server.corrections
    assert sent["question"] == "First?" and sent["verdict"] == action + "ed"


def test_the_link_to_edit_chooses_its_answer(desk):
    first = desk.ask("First?")
    desk.ask("Second?")
    click_link(desk, f"edit:{first.id}")

    assert is_shown(desk.ui.answerPanel) and is_shown(desk.ui.correctionEdit)
    assert desk.ui.answerBox.currentText == "First?"
    assert not desk.server.corrections


def click_link(desk, link):
    from PySide6.QtCore import QUrl

    assert f'href="{link}"' in desk.ui.chatView.html
    pythonqt.unwrap(desk.ui.chatView).anchorClicked.emit(QUrl(link))


def test_a_link_that_a_model_wrote_does_nothing(desk):
    from PySide6.QtCore import QUrl

    desk.ask()
    for link in ("accept:nobody", "file:///etc/passwd", "http://127.0.0.1:1/"):
        pythonqt.unwrap(desk.ui.chatView).anchorClicked.emit(QUrl(link))

    desk.settle()
    assert not desk.server.corrections


def test_an_earlier_answer_can_be_chosen_to_be_judged(desk):
    desk.ask("First?")
    desk.ask("Second?")
    assert desk.ui.answerBox.currentText == "Second?"

    desk.ui.answerBox.currentIndex = 1
    desk.ui.rejectButton.click()
    desk.settle()

    assert desk.server.corrections[0]["question"] == "First?"


def test_a_correction_needs_an_author_who_is_remembered(desk):
    from RadFoundLib.session.settings import Settings

    desk.ask()
    desk.ui.authorEdit.text = " "
    desk.ui.acceptButton.click()
    assert "Who corrects?" in desk.ui.correctMessage.text
    assert not desk.server.corrections

    desk.ui.authorEdit.text = "B. Reader"
    desk.ui.acceptButton.click()
    desk.settle()

    assert desk.server.corrections[0]["author"] == "B. Reader"
    assert Settings().author() == "B. Reader"


def test_a_region_marks_where_and_stays_with_the_volume(desk):
    desk.ask()
    roi = desk.ui.whereSelector.addNode()
    roi.SetCenter(1, 2, 3)
    roi.SetSize(4, 4, 4)

    desk.ui.rejectButton.click()
    desk.settle()

    assert desk.server.corrections[0]["region"] == {"box_mm": [[-1, 0, 1], [3, 4, 5]]}
    assert roi.GetAttribute("RadFound.Correction") == desk.server.corrections[0]["id"]
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(roi))
    assert parent == hierarchy.GetItemByDataNode(desk.volume)
    assert desk.ui.whereSelector.currentNode() is None
    assert "stays in this scene" in desk.ui.correctMessage.text


def test_a_correction_is_about_the_part_that_the_question_was_about(desk):
    desk.ui.partBox.currentIndex = desk.ui.partBox.findData("slice:Red")
    desk.ask()
    desk.ui.partBox.currentIndex = desk.ui.partBox.findData("whole")

    desk.ui.acceptButton.click()
    desk.settle()

    assert desk.server.corrections[0]["region"] == desk.server.asked[0]["region"]


def test_a_correction_of_the_whole_study_names_no_region(desk):
    desk.ask()
    desk.ui.acceptButton.click()
    desk.settle()

    assert "region" not in desk.server.corrections[0]


def test_this_studys_earlier_corrections_are_listed(desk):
    turn = desk.ask()
    desk.server.corrections.append(
        {
            "id": "earlier",
            "images": turn.answer["images"],
            "task": "caption",
            "question": None,
            "model_text": "x",
            "verdict": "edited",
            "text": "A chest.",
            "author": "C. Reader",
            "created": "2026-01-01T00:00:00Z",
        }
    )
    desk.server.corrections.append({"id": "other", "images": ["elsewhere"], "verdict": "accepted"})

    desk.ui.acceptButton.click()
    desk.settle()

    table = desk.ui.correctionsTable
    assert table.rowCount == 2
    assert table.item(1, 1).text() == "Caption → A chest."
    assert table.item(1, 2).text() == "C. Reader"
    assert "2" in desk.ui.correctionsLabel.text


# Teach


def teach(desk):
    desk.ask()
    desk.ui.acceptButton.click()
    desk.settle()
    desk.ui.trainButton.click()
    desk.until(lambda: desk.session.training.is_over and not desk.session.errands.is_busy)
    desk.settle()


def test_there_is_nothing_to_learn_without_corrections(desk):
    assert not desk.ui.trainButton.enabled
    assert desk.ui.newText.text == "Corrections to learn from: 0."


def test_learning_shows_its_progress_and_ends_with_a_new_adapter(desk):
    desk.server.steps, desk.server.step_s = 6, 0.4
    desk.ask()
    desk.ui.acceptButton.click()
    desk.settle()
    assert desk.ui.newText.text == "Corrections to learn from: 1."
    desk.ui.trainButton.click()

    desk.until(lambda: desk.ui.trainingBar.value > 0)
    assert is_shown(desk.ui.trainingBar) and desk.ui.trainingBar.value < 100
    assert "Learning from 1 correction. Now: training on all corrections." in (
        desk.ui.trainingText.text
    )
    assert "left" in desk.ui.trainingText.text
    assert not desk.ui.trainButton.enabled and desk.ui.stopTrainingButton.enabled
    desk.until(lambda: desk.session.adapters["active"] == "a-0001")
    desk.settle()

    assert (
        "Passed its checks: the model answers with a-0001 from now on." in desk.ui.trainingText.text
    )
    assert "\n" not in desk.ui.trainingText.text
    desk.ui.checksButton.click()
    assert desk.ui.trainingText.text.splitlines()[1:] == [
        "✓ corrections: 100% of 4 reproduced, at least 90% expected",
        "✓ answers end: 100% of 32 end by themselves",
        "– held-out corrections: not done",
    ]
    assert desk.ui.newText.text == ("Corrections to learn from: 1, 0 new since the last training.")
    assert desk.ui.stateLabel.text == "connected: radfound-stub, adapter a-0001"


def test_a_refused_training_says_why_and_changes_nothing(desk):
    desk.server.gate = "answers to other questions got worse"

    teach(desk)

    assert "Did not pass its checks, so nothing changed" in desk.ui.trainingText.text
    failed = "✗ FAILED regression: answers to other questions got worse"
    assert desk.ui.trainingText.text.splitlines()[1:] == [failed]
    desk.ui.checksButton.click()
    assert desk.ui.trainingText.text.splitlines()[1] == failed
    passed = desk.ui.trainingText.text.splitlines()[2]
    assert passed.startswith("✓ corrections: ")
    assert desk.session.adapters["active"] is None


def test_learning_can_be_stopped(desk):
    desk.server.steps, desk.server.step_s = 1000, 0.2
    desk.ask()
    desk.ui.acceptButton.click()
    desk.settle()
    desk.ui.trainButton.click()
    desk.until(lambda: desk.session.training is not None and desk.session.training.step > 0)

    desk.ui.stopTrainingButton.click()
    desk.until(lambda: desk.session.training.state == "stopped")

    desk.settle()
    assert desk.ui.trainingText.text == "The training was stopped; nothing changed."
    assert desk.ui.trainButton.enabled


def test_learning_goes_on_while_an_answer_streams_and_can_be_stopped_then(desk):
    desk.ask()
    desk.ui.acceptButton.click()
    desk.settle()
    desk.server.steps, desk.server.step_s, desk.server.pause_s = 1000, 0.2, 0.3
    desk.ui.reportButton.click()
    desk.until(lambda: desk.panel.conversation.turns[-1].text)

    desk.ui.trainButton.click()
    desk.until(lambda: desk.session.training.step > 0)
    desk.ui.stopTrainingButton.click()
    desk.until(lambda: desk.session.training.state == "stopped")

    assert desk.session.is_busy
    desk.ui.stopButton.click()


def test_an_adapter_is_rolled_back_and_activated_again(desk):
    teach(desk)
    desk.ui.rollBackButton.click()
    desk.until(lambda: desk.session.adapters["active"] is None)
    desk.settle()
    assert "Base model — active" in desk.ui.adapterBox.currentText

    desk.ui.adapterBox.currentIndex = desk.ui.adapterBox.findData("a-0001")
    desk.ui.activateButton.click()
    desk.until(lambda: desk.session.adapters["active"] == "a-0001")

    desk.settle()
    assert "— active" in desk.ui.adapterBox.currentText
    assert not desk.ui.activateButton.enabled
    turn = desk.ask()
    assert turn.answer["model"]["adapter"] == "a-0001"


def test_a_roll_back_to_nothing_is_explained(desk):
    teach(desk)
    desk.server.history.clear()

    desk.ui.rollBackButton.click()
    desk.settle()

    assert "nothing was active before" in desk.ui.teachMessage.text


# All of them


def test_every_button_is_driven_by_a_test(module):
    """A button that no test names would break unseen."""
    from pathlib import Path

    from PySide6 import QtWidgets

    root = module.parent._object
    names = {button.objectName() for button in root.findChildren(QtWidgets.QPushButton)}
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py"))

    assert {name for name in names if f"{name}.click()" not in text} == set()
