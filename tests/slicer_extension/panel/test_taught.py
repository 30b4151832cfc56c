import pytest
from RadFoundLib.net.protocol import WORDING

from ..standin import pythonqt
from .desk import add_volume, is_shown
from .test_origins import follow


def corrected(desk, text="No lesion."):
    return correct(desk, desk.ask(), text)


def correct(desk, turn, text="No lesion."):
    desk.ui.correctionEdit.plainText = text
    desk.ui.editButton.click()
    desk.settle()
    return turn


def test_a_correction_tells_what_it_changes(desk):
    desk.server.effect = 14
    corrected(desk)
    desk.until(lambda: "14" in desk.ui.correctMessage.text)

    assert desk.ui.correctMessage.text == (
        "Noted: edited. Changes the answer on 14 unread studies."
    )


def test_a_correction_without_effect_says_so(desk):
    corrected(desk)
    desk.until(lambda: "no other study yet" in desk.ui.correctMessage.text)
    assert "unread studies" not in desk.ui.correctMessage.text


def test_a_correction_is_taken_back_under_its_answer(desk):
    turn = corrected(desk)
    assert "Take back" in desk.shown
    number = turn.correction_id

    follow(desk, turn, "takeback")

    assert desk.server.withdrawn == [(number, "A. Reader")] and not desk.server.corrections
    assert turn.verdict is None and desk.server.texts["vqa"] in desk.shown
    assert "Taken back" in desk.ui.askMessage.text
    assert desk.ui.acceptButton.enabled


def test_a_correction_of_the_list_is_taken_back(desk):
    desk.ui.correctSection.collapsed = False
    corrected(desk)
    table = desk.ui.correctionsTable
    assert is_shown(desk.ui.takeBackButton) and not desk.ui.takeBackButton.enabled
    table.selectRow(0)

    desk.ui.takeBackButton.click()
    desk.settle()

    assert len(desk.server.withdrawn) == 1 and table.rowCount == 0
    assert not is_shown(desk.ui.takeBackButton)


def test_the_correction_that_was_chosen_is_taken_back_after_others_were_added(desk):
    number = corrected(desk).correction_id
    table = desk.ui.correctionsTable
    table.selectRow(0)
    desk.ask("And this?")
    desk.ui.acceptButton.click()
    desk.settle()
    assert table.rowCount == 2

    desk.ui.takeBackButton.click()
    desk.settle()

    assert desk.server.withdrawn == [(number, "A. Reader")]


def test_a_correction_that_is_not_sent_yet_is_taken_back_here(desk):
    turn = desk.ask()
    desk.server.fault = (500, {"detail": "down"})
    correct(desk, turn)
    assert len(desk.session.outbox.waiting()) == 1

    follow(desk, turn, "takeback")

    assert not desk.session.outbox.waiting() and turn.verdict is None


def test_nothing_is_taken_back_without_a_name(desk):
    turn = corrected(desk)
    desk.ui.authorEdit.text = ""

    follow(desk, turn, "takeback")

    assert "Who takes it back?" in desk.ui.askMessage.text
    assert not desk.server.withdrawn and turn.verdict == "edited"


def proposed(desk):
    desk.server.wordings = [WORDING]
    corrected(desk)
    assert is_shown(desk.ui.wordingsTable)
    assert desk.ui.wordingsTable.item(0, 1).text() == "What is shown? → {modality} of the {region}"


def test_a_proposed_wording_is_accepted(desk):
    proposed(desk)
    assert "1 proposed" in desk.ui.wordingsLabel.text

    desk.ui.acceptWordingButton.click()
    desk.settle()

    assert desk.server.wordings[0]["state"] == "accepted"
    assert desk.server.wordings[0]["author"] == "A. Reader"
    assert desk.ui.wordingsTable.item(0, 0).text() == "in use"
    assert not desk.ui.acceptWordingButton.enabled and desk.ui.refuseWordingButton.enabled
    assert "use this wording" in desk.ui.wordingsMessage.text


def test_rows_fit_their_words_although_the_section_was_folded_at_first(desk):
    desk.ui.teachSection.collapsed = True
    desk.widget.parent.resize(480, 900)
    desk.server.wordings = [WORDING]
    corrected(desk)

    desk.ui.teachSection.collapsed = False
    desk.run(0.1)

    lines = desk.ui.wordingsTable.rowHeight(0) / desk.ui.wordingsTable.fontMetrics().height()
    assert lines < 2


def test_a_proposed_wording_is_refused(desk):
    proposed(desk)

    desk.ui.refuseWordingButton.click()
    desk.settle()

    assert desk.server.wordings[0]["state"] == "refused"
    assert not is_shown(desk.ui.wordingsTable) and not is_shown(desk.ui.acceptWordingButton)


def test_a_wording_needs_the_name_of_who_decides(desk):
    proposed(desk)
    desk.ui.authorEdit.text = ""

    desk.ui.acceptWordingButton.click()
    desk.settle()

    assert "Who decides?" in desk.ui.wordingsMessage.text
    assert desk.server.wordings[0]["state"] == "proposed"


# A prior study


def with_studies(desk):
    desk.server.studies = {"study-7": nrrd_of(desk), "study-8": nrrd_of(desk)}
    desk.ui.refreshStudiesButton.click()
    desk.settle()


def nrrd_of(desk):
    from RadFoundLib.scene import scene

    with scene.content_of(desk.volume).open() as file:
        return file.read()


def test_a_prior_study_is_sent_with_the_question(desk):
    with_studies(desk)
    assert is_shown(desk.ui.priorBox) and desk.ui.priorBox.currentText == "None"
    desk.ask()
    desk.ui.priorBox.currentIndex = desk.ui.priorBox.findData("study-8")
    desk.ask("Has it grown?")

    assert [body.get("prior") for body in desk.server.asked] == [None, "study-8"]
    assert "compared with study-8" in desk.shown


def offset_of(view):
    from RadFoundLib.scene import scene

    return scene.slice_node(view).GetSliceOffset()


def test_another_volume_has_no_prior_until_one_is_chosen(desk):
    with_studies(desk)
    desk.ui.priorBox.currentIndex = desk.ui.priorBox.findData("study-8")

    desk.ui.volumeSelector.setCurrentNode(add_volume("another"))
    desk.ask()

    assert "prior" not in desk.server.asked[-1]


def test_another_volume_of_the_scene_can_be_the_prior(desk):
    import slicer.util

    earlier = add_volume("earlier")
    desk.panel.tell("study")
    assert is_shown(desk.ui.priorBox)
    desk.ui.priorBox.currentIndex = desk.ui.priorBox.findText("earlier")
    desk.ask("Has it grown?")

    prior = desk.server.asked[-1]["prior"]
    assert prior in desk.server.images and prior not in desk.server.asked[-1].get("images", [])
    assert len(desk.server.images) == 2 and "compared with earlier" in desk.shown
    desk.ui.evidenceButton.click()
    desk.settle()
    assert desk.server.explained[-1]["prior"] == prior

    desk.ui.compareButton.click()
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    shown = {node.GetLayoutName(): node.GetBackgroundVolumeID() for node in composites}
    assert (shown["Red"], shown["Yellow"]) == (desk.volume.GetID(), earlier.GetID())
    slicer.mrmlScene.RemoveNode(earlier)
    desk.panel.tell("study")
    assert desk.ui.priorBox.count == 1


def test_a_prior_study_is_shown_beside_the_current_one_with_linked_views(desk):
    import slicer.util

    with_studies(desk)
    assert not desk.ui.compareButton.enabled
    desk.ui.priorBox.currentIndex = desk.ui.priorBox.findData("study-8")
    desk.ui.compareButton.click()
    desk.settle()

    assert desk.panel.volume is desk.volume
    views = {
        node.GetLayoutName(): node
        for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    }
    prior = slicer.util.getNode("study-8")
    assert views["Red"].GetBackgroundVolumeID() == desk.volume.GetID()
    assert views["Yellow"].GetBackgroundVolumeID() == prior.GetID()
    assert views["Red"].GetLinkedControl() and views["Yellow"].GetLinkedControl()
    planes = [
        node.GetOrientation()
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")
        if node.GetLayoutName() in ("Red", "Yellow")
    ]
    assert planes == ["Axial", "Axial"]
    assert offset_of("Yellow") == pytest.approx(offset_of("Red"))
    assert desk.ui.nextText.text == "study-8 is shown in the second view."


# Which model learns


@pytest.fixture
def several(desk):
    """A server with three models, one of which cannot learn."""
    desk.server.models = ("radfound-stub", "other", "remote")
    desk.server.cannot_learn = {"remote": "runs on a server of models, which has no training"}
    desk.session.disconnect()
    desk.connect()
    return desk


def is_offered(box, index):
    return bool(pythonqt.unwrap(box).model().item(index).isEnabled())


def test_the_model_that_answers_is_taught_unless_the_reader_chooses_another(several):
    desk, box = several, several.ui.learnerBox
    assert is_shown(box) and box.currentText == "radfound-stub"
    assert [is_offered(box, index) for index in range(3)] == [True, True, False]
    assert "cannot learn: runs on a server of models" in box.itemText(2)

    desk.ui.modelBox.currentIndex = desk.ui.modelBox.findData("other")
    desk.settle()
    assert box.currentText == "other"
    desk.ui.modelBox.currentIndex = desk.ui.modelBox.findData("remote")
    desk.settle()
    assert box.currentText == "radfound-stub"

    box.currentIndex = box.findData("other")
    pythonqt.unwrap(box).activated.emit(box.currentIndex)
    desk.ask()
    desk.ui.acceptButton.click()
    desk.settle()
    assert desk.server.adapters_of[-1] == "other"
    desk.ui.trainButton.click()
    desk.until(lambda: desk.session.adapters["active"] is not None)
    assert desk.server.trained == [{"base": "other"}]
    desk.settle()
    assert desk.server.adapters_of[-1] == "other" and box.currentText == "other"


def test_a_server_with_one_model_trains_it_without_naming_it(desk):
    desk.ask()
    desk.ui.acceptButton.click()
    desk.settle()
    assert not is_shown(desk.ui.learnerBox)
    desk.ui.trainButton.click()
    desk.until(lambda: desk.session.adapters["active"] is not None)
    assert desk.server.trained == [{}]


def test_a_model_that_cannot_learn_says_why(desk):
    desk.server.models = ("radfound-stub",)
    desk.server.cannot_learn = {
        "radfound-stub": "runs on a server of models, which has no training"
    }
    desk.session.disconnect()
    desk.connect()
    desk.ask()
    desk.ui.acceptButton.click()
    desk.settle()

    assert desk.ui.newText.text.startswith("radfound-stub cannot learn here: it runs on")
    assert not desk.ui.trainButton.enabled
