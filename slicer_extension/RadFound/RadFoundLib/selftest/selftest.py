"""The self test of "Reload and Test" in Slicer: the whole workflow against a stub server."""

import time
from typing import Any, Callable

import slicer

from ..scene import scene
from .pretended_server import StubServer

_PATIENCE_S = 30.0


def run(widget: Any, make_volume: Callable[[], Any]) -> None:
    """Test connecting, consent, asking, evidence, correcting, teaching, and a lost server.

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
        _correct(panel, stub)
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

    def put_back(self, stub_address: str) -> None:
        panel, settings = self._panel, self._panel.settings
        for waiting in panel.session.outbox.waiting(stub_address):
            panel.session.outbox.discard(waiting.id)
        settings.set_addresses(self._addresses)
        settings.set_consents(self._consents)
        settings.set_author(self._author)
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


def _see_evidence(panel: Any) -> None:
    panel.ui.evidenceButton.click()
    _until(lambda: scene.evidence_node() is not None, "an evidence map")
    panel.ui.jumpButton.click()
    panel.ui.removeEvidenceButton.click()
    _check(scene.evidence_node() is None, "the evidence map to be gone")


def _correct(panel: Any, stub: StubServer) -> None:
    ui = panel.ui
    ui.authorEdit.text = "self test"
    ui.correctionEdit.plainText = "A round lesion in the left lung."
    ui.editButton.click()
    _until(lambda: len(stub.corrections) == 1, "the correction to arrive")
    _until(lambda: ui.correctionsTable.rowCount == 1, "the correction in the list")


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
