"""The day's work: the list of studies, going on, keys, and all volumes at once."""

import time

import numpy as np
import pytest
import slicer

from ..standin import pythonqt
from .desk import Desk, add_volume, is_shown


@pytest.fixture
def studies(server):
    from RadFoundLib.scene.volumefile import VolumeContent

    for name in ("study-7", "study-8", "volume-" + "0123456789abcdef" * 2 + "01234567"):
        content = VolumeContent(np.zeros((3, 4, 5), np.int16), np.diag([1.0, 1, 2, 1]))
        with content.open() as file:
            server.studies[name] = file.read()


def cells(table):
    return [
        [table.item(row, column).text() for column in range(table.columnCount)]
        for row in range(table.rowCount)
    ]


def test_the_servers_studies_are_listed_with_their_state(studies, desk):
    why = "The model is less sure here than in most studies: Is there an effusion?"
    assert cells(desk.ui.studiesTable)[0] == ["study-7", "new", why]
    assert cells(desk.ui.studiesTable)[2][0] == "volume-01234567"
    assert desk.ui.dayText.text == "3 studies on the server, 3 not read yet."

    desk.server.corrections.append({"id": "x", "images": ["study-7"], "verdict": "accepted"})
    desk.ui.refreshStudiesButton.click()
    desk.settle()

    assert cells(desk.ui.studiesTable)[0] == ["study-7", "read", ""]


def test_the_chosen_study_stays_chosen_when_the_list_changes(studies, desk):
    desk.ui.studiesTable.selectRow(1)
    desk.server.studies = {"a-new-study": b"", **desk.server.studies}
    desk.ui.refreshStudiesButton.click()
    desk.settle()

    desk.ui.openStudyButton.click()
    desk.settle()

    assert desk.panel.volume.GetName() == "study-8"


def test_of_thousands_of_studies_the_first_are_listed_without_a_pause(desk):
    desk.server.studies = {f"study-{number:05}": b"" for number in range(5000)}

    desk.ui.refreshStudiesButton.click()
    began = time.thread_time()
    desk.settle()

    assert time.thread_time() - began < 0.5
    assert desk.ui.studiesTable.rowCount == 200
    assert desk.ui.dayText.text.endswith("5000 not read yet. The first 200 are listed.")


def test_a_study_of_the_list_is_opened(studies, desk):
    desk.ui.studiesTable.selectRow(1)
    desk.ui.openStudyButton.click()
    desk.settle()

    assert desk.panel.volume.GetName() == "study-8"
    desk.ask()
    assert desk.server.asked[-1]["image"] == "study-8" and not desk.server.images


def test_a_study_that_is_loaded_is_chosen_and_not_loaded_twice(studies, desk):
    desk.ui.nextButton.click()
    desk.settle()
    first = desk.panel.volume
    desk.ask()
    for again in ("list", "next"):
        desk.ui.volumeSelector.setCurrentNode(desk.volume)
        if again == "list":
            desk.ui.studiesTable.selectRow(0)
            desk.ui.openStudyButton.click()
        else:
            desk.ui.nextButton.click()
        desk.settle()
        assert desk.panel.volume is first
        assert len(desk.panel.conversation.turns) == 1

    slicer.util.arrayFromVolume(first)[:] += 1
    slicer.util.arrayFromVolumeModified(first)
    desk.ui.openStudyButton.click()
    desk.settle()
    assert desk.panel.volume is not first  # the server's study is another one now


def test_the_volume_that_was_sent_is_the_study_of_the_list(desk):
    desk.ask()
    [image] = desk.server.images
    desk.server.studies[image] = b""
    desk.ui.refreshStudiesButton.click()
    desk.settle()
    desk.ui.volumeSelector.setCurrentNode(add_volume("other"))

    desk.ui.studiesTable.selectRow(0)
    desk.ui.openStudyButton.click()
    desk.settle()

    assert desk.panel.volume is desk.volume


def test_the_server_can_tell_readers_apart_without_a_name(studies, desk):
    from RadFoundLib.session.settings import Settings

    desk.ui.nextButton.click()
    desk.settle()

    reader = Settings().reader()
    assert len(reader) == 32 and desk.server.readers_of_next == [reader]


def test_the_strategy_is_remembered(studies, desk, running):
    pythonqt.unwrap(desk.ui.strategyBox).setCurrentIndex(1)
    pythonqt.unwrap(desk.ui.strategyBox).activated.emit(1)
    chosen = desk.ui.strategyBox.currentText

    later = Desk(running.open_module(), desk.server)
    later.connect()

    assert later.ui.strategyBox.currentText == chosen


def test_a_study_is_named_readably_and_not_by_its_hash(studies, desk):
    desk.ui.studiesTable.selectRow(2)
    desk.ui.openStudyButton.click()
    desk.settle()

    assert desk.panel.volume.GetName() == "volume-01234567"


def test_accept_and_next_goes_on_with_the_day(studies, desk):
    desk.ask()
    desk.ui.acceptNextButton.click()
    desk.settle()

    assert [row["verdict"] for row in desk.server.corrections] == ["accepted"]
    assert desk.panel.volume.GetName() == "study-7"


def test_accept_and_next_keeps_what_the_reader_edited(studies, desk):
    desk.ask()
    desk.ui.correctionEdit.plainText = "No lesion."
    desk.ui.acceptNextButton.click()
    desk.settle()

    assert [row["text"] for row in desk.server.corrections] == ["No lesion."]
    assert desk.panel.volume.GetName() == "study-7"


def test_without_an_author_nothing_is_accepted_and_the_study_stays(studies, desk):
    desk.ui.authorEdit.text = ""
    desk.ask()
    desk.ui.acceptNextButton.click()
    desk.settle()

    assert "Who corrects?" in desk.ui.correctMessage.text
    assert desk.panel.volume is desk.volume and not desk.server.corrections


def test_a_server_without_a_list_says_so(module, server, monkeypatch):
    monkeypatch.setattr(server, "listed_studies", lambda: None)
    desk = Desk(module, server)
    desk.connect()

    assert not is_shown(desk.ui.studiesTable)
    assert desk.ui.dayText.text


# Keys


def press(desk, keys):
    from PySide6.QtGui import QKeySequence
    from PySide6.QtTest import QTest

    window = pythonqt.unwrap(desk.widget.parent)
    window.activateWindow()
    slicer.app.processEvents()
    QTest.keySequence(window, QKeySequence(keys))


def test_a_reader_needs_no_mouse(studies, desk):
    press(desk, "Alt+6")
    desk.settle()
    press(desk, "Alt+5")
    desk.settle()
    assert [body["task"] for body in desk.server.asked] == ["report", "caption"]

    press(desk, "Alt+1")
    desk.settle()
    press(desk, "Alt+3")
    desk.settle()
    press(desk, "Alt+4")
    desk.settle()

    assert [row["verdict"] for row in desk.server.corrections] == ["accepted", "rejected"]
    assert desk.panel.volume.GetName() == "study-7"


def test_keys_are_shown_in_tooltips_and_can_be_changed(desk):
    from RadFoundLib.session.settings import Settings

    assert desk.ui.acceptButton.toolTip == "The answer is correct (Alt+1)"
    desk.ui.editPromptsButton.click()
    assert "accept = Alt+1" in desk.ui.shortcutsEdit.plainText
    text = desk.ui.shortcutsEdit.plainText.replace("accept = Alt+1", "accept = Ctrl+Return")
    desk.ui.shortcutsEdit.plainText = text + "\nfly = F1"
    desk.ui.editPromptsButton.click()

    assert desk.ui.acceptButton.toolTip == "The answer is correct (Ctrl+Return)"
    assert Settings().shortcuts()["accept"] == "Ctrl+Return"
    assert "found fly" in desk.ui.askMessage.text
    desk.ask()
    press(desk, "Ctrl+Return")
    desk.settle()
    assert len(desk.server.corrections) == 1


def test_keys_of_sentences_can_be_changed_and_no_key_is_given_twice(desk):
    from RadFoundLib.session.settings import Settings

    assert desk.ui.whereSentenceButton.text == "Where? (W)"
    desk.ui.editPromptsButton.click()
    before = desk.ui.shortcutsEdit.plainText
    desk.ui.shortcutsEdit.plainText = before.replace("where-sentence = W", "where-sentence = A")
    desk.ui.editPromptsButton.click()
    assert "A is there twice" in desk.ui.askMessage.text
    assert Settings().shortcuts()["where-sentence"] == "W"

    desk.ui.editPromptsButton.click()
    desk.ui.shortcutsEdit.plainText = before.replace("where-sentence = W", "where-sentence = Q")
    desk.ui.editPromptsButton.click()
    assert desk.ui.whereSentenceButton.text == "Where? (Q)"
    assert desk.ui.strikeSentenceButton.text == "Strike (X)"


def test_keys_belong_to_other_modules_while_the_module_is_closed(desk):
    desk.widget.exit()
    press(desk, "Alt+5")
    desk.settle()

    assert not desk.server.asked


# All volumes at once


def test_all_volumes_of_the_scene_are_asked_at_once(desk):
    add_volume("second")
    desk.ui.questionEdit.text = "Is there a lesion?"

    desk.ui.askAllButton.click()
    desk.until(lambda: len(desk.server.asked) == 2)
    desk.settle()

    assert [row[0] for row in cells(desk.ui.allTable)] == ["CT", "second"]
    assert {row[1] for row in cells(desk.ui.allTable)} == {"Yes, a small one on the left."}
    assert {row[2] for row in cells(desk.ui.allTable)} == {"fairly sure (83 %)"}
    assert len(desk.server.images) == 2
    assert "Is there a lesion?" in desk.shown


def test_asking_about_all_can_be_stopped(desk):
    add_volume("second")
    desk.server.pause_s = 0.3
    desk.ui.askAllButton.click()
    desk.until(lambda: desk.session.turn is not None and desk.session.turn.text)

    desk.ui.stopButton.click()
    desk.settle()
    desk.run(0.2)

    assert len(desk.server.asked) == 1 and not desk.session.is_busy


def test_nothing_is_sent_for_all_without_consent(desk):
    add_volume("second")
    desk.ui.consentBox.checked = False

    desk.ui.askAllButton.click()
    desk.run(0.1)

    assert "Agree to send" in cells(desk.ui.allTable)[0][1]
    assert not desk.server.images
