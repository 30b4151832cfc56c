"""The self test of "Reload and Test" in Slicer: the whole workflow against a stub server."""

import time
from typing import Any, Callable

import slicer

from ..net.protocol import CANNOT_TELL, STUDY, WORDING
from ..scene import scene
from .pretended_server import StubServer

_PATIENCE_S = 30.0


def run(widget: Any, make_volume: Callable[[], Any]) -> None:
    """Test the way of a day's work, from connecting to a lost server.

    Consent, asking, a report sentence by sentence, a folded answer, evidence of an answer and of a sentence, correcting, keeping,
    the list of studies, all volumes at once, what comes from a reader or is not answered, taking a
    correction back, the department's wording, and teaching.

    Parameters
    ----------
    widget : RadFoundWidget
        Slicer's widget of the module; the user's settings are restored.
    make_volume : callable
        Adds a volume to the scene and returns its node.

    Raises
    ------
    AssertionError
        Names the condition that was not met.
    """
    panel = widget.panel
    remembered = _Remembered(panel)
    stub = StubServer()
    try:
        volume = make_volume()
        panel.ui.volumeSelector.setCurrentNode(volume)
        _connect(panel, stub)
        _ask(panel, stub)
        _see_evidence(panel)
        _see_where(panel, stub)
        _edit_a_report(panel, stub)
        _correct(panel, stub)
        _fold(panel, stub)
        _tell_sources_apart(panel, stub)
        _take_back(panel, stub)
        _keep(panel)
        _work_through_the_day(panel, stub)
        _decide_on_wording(panel, stub)
        _teach(panel, stub)
        stub.close()
        _lose_the_server(panel)
    finally:
        stub.close()
        panel.session.disconnect()
        remembered.put_back(stub.address)


class _Remembered:
    """The user's settings, restored after the test."""

    def __init__(self, panel: Any):
        self._panel, settings = panel, panel.settings
        self._addresses = settings.addresses()
        self._consents = settings.consents()
        self._author = settings.author()
        self._fold_below = settings.fold_below()
        settings.set_fold_below(0.4)

    def put_back(self, stub_address: str) -> None:
        panel, settings = self._panel, self._panel.settings
        for waiting in panel.session.outbox.waiting(stub_address):
            panel.session.outbox.discard(waiting.id)
        settings.set_addresses(self._addresses)
        settings.set_consents(self._consents)
        settings.set_author(self._author)
        settings.set_fold_below(self._fold_below)
        panel.session.consents = self._consents
        panel.ui.authorEdit.text = self._author
        panel.server.fill_addresses()


def _connect(panel: Any, stub: StubServer) -> None:
    panel.session.disconnect()
    panel.ui.addressBox.setEditText(stub.address)
    panel.ui.connectButton.click()
    _until(lambda: panel.session.state == "connected", "the server to answer")


def _ask(panel: Any, stub: StubServer) -> None:
    ui = panel.ui
    ui.questionEdit.text = "Is there a lesion?"
    ui.askButton.click()
    _check(not stub.images, "nothing to be sent before the reader agrees")
    ui.agreeButton.click()
    _until(lambda: len(panel.conversation.answered()) == 1, "an answer")
    _check(stub.texts["vqa"] in ui.chatView.plainText, "the answer to be shown")
    _check(len(stub.images) == 1, "one upload")
    ui.reportButton.click()
    _until(lambda: len(panel.conversation.answered()) == 2, "a report")
    _check(len(stub.images) == 1, "the volume to be sent once only")
    ui.saveButton.click()
    _check(bool(slicer.util.getNodesByClass("vtkMRMLTextNode")), "the report in the scene")
    _check("not for diagnosis" in ui.safetyLabel.text, "safety in sight")


def _see_evidence(panel: Any) -> None:
    panel.ui.evidenceButton.click()
    _until(lambda: scene.evidence_node() is not None, "an evidence map")
    panel.ui.jumpButton.click()
    panel.ui.removeEvidenceButton.click()
    _check(scene.evidence_node() is None, "the evidence map to be gone")


def _see_where(panel: Any, stub: StubServer) -> None:
    ui = panel.ui
    ui.whereSentenceButton.click()
    _until(lambda: scene.evidence_node() is not None, "the map of a sentence")
    _check(ui.mapOfText.text == stub.explained[-1]["text"], "the sentence in the legend")
    ui.removeEvidenceButton.click()
    _until(lambda: not panel.session.is_busy, "the end of the request")


def _edit_a_report(panel: Any, stub: StubServer) -> None:
    ui = panel.ui
    ui.authorEdit.text = "self test"
    ui.strikeSentenceButton.click()
    ui.addSentenceButton.click()
    ui.sentenceEdit.text = "No rib fracture."
    panel.sentences.take()
    _check(panel.turn.draft.is_changed, "a changed report")
    ui.editButton.click()
    _until(lambda: len(stub.corrections) == 1, "the report to arrive")
    _check("No rib fracture." in stub.corrections[0]["text"], "the reader's sentence")
    panel.choose(panel.conversation.answered()[0])


def _fold(panel: Any, stub: StubServer) -> None:
    ui, confidence = panel.ui, stub.confidence
    stub.confidence = 0.01
    ui.questionEdit.text = "Is this rare?"
    ui.askButton.click()
    _until(lambda: len(panel.conversation.answered()) == 3, "an unsure answer")
    turn = panel.conversation.answered()[-1]
    _check(panel.is_folded(turn), "an unsure answer to be folded")
    panel.unfold(turn)
    _check(not panel.is_folded(turn), "an unsure answer to be opened")
    stub.confidence = confidence


def _tell_sources_apart(panel: Any, stub: StubServer) -> None:
    ui = panel.ui
    stub.readers["Who knows?"] = {
        "source": "recall",
        "text": "A cyst.",
        "corrected_by": "Dr A",
        "corrected_on": "2026-08-01T09:30:00.000Z",
    }
    stub.readers["Who cannot know?"] = {"source": "field", "text": CANNOT_TELL}
    for question, words in (("Who knows?", "Dr A"), ("Who cannot know?", CANNOT_TELL)):
        ui.questionEdit.text = question
        ui.askButton.click()
        _until(lambda: not panel.session.is_busy, "an answer")
        _check(words in ui.chatView.plainText, f"{words} to be shown")
    _check(not ui.acceptButton.enabled, "an answer that is not given not to be accepted")


def _take_back(panel: Any, stub: StubServer) -> None:
    ui = panel.ui
    count = len(stub.corrections)
    ui.correctionEdit.plainText = "A reader's answer."
    ui.editButton.click()
    _until(lambda: len(stub.corrections) == count + 1, "the answer to arrive")
    _until(lambda: ui.correctionsTable.rowCount == count + 1, "the answer in the list")
    ui.correctionsTable.selectRow(0)
    ui.takeBackButton.click()
    _until(lambda: len(stub.corrections) == count, "the answer to be taken back")


def _decide_on_wording(panel: Any, stub: StubServer) -> None:
    ui = panel.ui
    stub.wordings = [WORDING]
    panel.session.refresh_wordings()
    _until(lambda: ui.acceptWordingButton.enabled, "a proposed wording")
    ui.acceptWordingButton.click()
    _until(lambda: stub.wordings[0]["state"] == "accepted", "the wording to be accepted")


def _keep(panel: Any) -> None:
    panel.ui.keepButton.click()
    kept = scene.conversation_node(panel.volume)
    _check(kept is not None and "No rib fracture." in kept.GetText(), "a kept conversation")


def _work_through_the_day(panel: Any, stub: StubServer) -> None:
    ui, volume, asked = panel.ui, panel.volume, len(stub.asked)
    stub.studies.update({**stub.images, "unread": b""})
    ui.refreshStudiesButton.click()
    table, count = ui.studiesTable, len(stub.studies)
    _until(lambda: table.rowCount == count, "the list of studies")
    why = [table.item(row, 2).text() for row in range(count)]
    _check(why[-1] == STUDY["why"], "why to read a study next")
    table.selectRow(0)
    ui.openStudyButton.click()
    _check(panel.volume is volume, "a loaded study to be chosen, and not loaded again")
    ui.askAllButton.click()
    _until(
        lambda: len(stub.asked) > asked and not panel.session.is_busy, "a caption of each volume"
    )
    _check(ui.allTable.rowCount >= 1, "a table of answers")
    panel.choose(panel.conversation.answered()[0])


def _correct(panel: Any, stub: StubServer) -> None:
    ui = panel.ui
    ui.authorEdit.text = "self test"
    ui.correctionEdit.plainText = "A round lesion in the left lung."
    ui.editButton.click()
    _until(lambda: len(stub.corrections) == 2, "the correction to arrive")
    _until(lambda: ui.correctionsTable.rowCount == 2, "the correction in the list")


def _teach(panel: Any, stub: StubServer) -> None:
    ui = panel.ui
    _until(lambda: ui.trainButton.enabled, "that learning can start")
    ui.trainButton.click()
    _until(lambda: panel.session.adapters.get("active") == "a-0001", "a new adapter")
    _until(lambda: ui.rollBackButton.enabled, "that it can be rolled back")
    ui.rollBackButton.click()
    _until(lambda: panel.session.adapters.get("active") is None, "the base model to be back")


def _lose_the_server(panel: Any) -> None:
    ui = panel.ui
    ui.rejectButton.click()
    _until(lambda: panel.session.state == "lost", "the loss to be noticed")
    _check(len(panel.session.outbox.waiting(panel.session.address)) == 1, "a correction to be kept")


def _until(condition: Callable[[], bool], what: str) -> None:
    """Process Slicer's events until a condition holds."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {_PATIENCE_S:.0f} s in vain for {what}")
        slicer.app.processEvents()
        time.sleep(0.005)


def _check(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(f"expected {what}")
