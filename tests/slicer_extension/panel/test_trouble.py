import struct
import time

import numpy as np
import pytest
import slicer
import slicer.util

from .desk import Desk, add_volume, is_shown

# A server that misbehaves


def streams(*pieces, kind="text/event-stream", status=200):
    """Answer every question with these bytes and hang up."""

    def stream(handler, body):
        handler.stub.asked.append(body)
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.end_headers()
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()

    return stream


def redirects(handler, body):
    handler.send_response(307)
    handler.send_header("Location", "http://elsewhere.example/radfound/ask")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def resets(handler, body):
    import socket

    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def fails(handler, body):
    handler._reply(500, {"detail": {"code": "internal_error", "message": "see the log"}})


def lacks_the_study(handler, body):
    handler._reply(404, {"detail": {"code": "not_found", "message": "image: not there"}})


TOKEN = b'event: token\ndata: {"text": "Half an ans"}\n\n'
ERROR = b'event: error\ndata: {"code": "x", "message": "the model stumbled"}\n\n'


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (streams(b"<html>hello</html>"), "Try again"),
        (streams(b"\x00\xff\xfe garbage", kind="application/octet-stream"), "RadFound server"),
        (streams(TOKEN), "broke in the middle"),
        (streams(TOKEN, b'event: answer\ndata: {"text": 1}\n\n'), "RadFound server"),
        (streams(TOKEN, ERROR), "the model stumbled"),
        (streams(), "broke in the middle"),
        (redirects, "elsewhere.example"),
        (fails, "see the log"),
        (lacks_the_study, "not there"),
        (resets, ""),
    ],
    ids=[
        "html", "garbage", "half a stream", "no answer", "error", "nothing", "redirect", "500",
        "404", "reset",
    ],
)  # fmt: skip
def test_an_answer_that_fails_is_explained_and_nothing_is_lost(desk, monkeypatch, stream, expected):
    desk.ask("Before?")
    handler = desk.server._server.RequestHandlerClass
    monkeypatch.setattr(handler, "_stream", stream)

    turn = desk.ask("Now?")

    assert turn.state == "failed"
    assert turn.error and turn.error in desk.shown
    assert expected in turn.error
    assert "Before?" in desk.shown and "Now?" in desk.shown
    monkeypatch.undo()
    desk.until(lambda: desk.session.state == "connected")
    assert desk.ask("After?").state == "answered"


def test_a_question_that_failed_is_asked_again_with_one_click(desk, monkeypatch):
    monkeypatch.setattr(desk.server._server.RequestHandlerClass, "_stream", streams(TOKEN))
    failed = desk.ask("Is there a nodule in the right upper lobe?")
    assert "Ask again" in desk.shown
    monkeypatch.undo()

    desk.panel.ask_section.follow_link(f"again:{failed.id}")
    desk.settle()

    [turn] = desk.panel.conversation.turns
    assert turn.question == failed.question and turn.state == "answered"
    desk.panel.ask_section.follow_link(f"again:{turn.id}")
    assert len(desk.panel.conversation.turns) == 1


def test_a_failed_question_stays_where_it_cannot_be_asked_again(desk, monkeypatch):
    monkeypatch.setattr(desk.server._server.RequestHandlerClass, "_stream", streams(TOKEN))
    failed = desk.ask()
    desk.ui.connectButton.click()

    desk.panel.ask_section.follow_link(f"again:{failed.id}")

    assert desk.panel.conversation.turns == [failed]
    assert "Connect to a server first" in desk.ui.askMessage.text


def test_what_had_come_before_a_stream_broke_is_shown(desk, monkeypatch):
    monkeypatch.setattr(desk.server._server.RequestHandlerClass, "_stream", streams(TOKEN))

    desk.ask()

    assert "Half an ans" in desk.shown


def test_a_study_that_the_server_has_lost_is_sent_again(desk, monkeypatch):
    desk.ask()
    desk.server.images.clear()
    handler = desk.server._server.RequestHandlerClass
    monkeypatch.setattr(handler, "_stream", lacks_the_study)
    desk.ask("Once more?")
    monkeypatch.undo()

    assert desk.ask("And now?").state == "answered"
    assert len(desk.server.images) == 1


@pytest.mark.parametrize("fault", [(500, {}), (200, b"<html>"), (200, {"models": []}), (302, {})])
def test_a_server_that_is_none_cannot_be_connected_to(module, server, fault):
    server.fault = fault
    desk = Desk(module, server)
    desk.ui.addressBox.setEditText(server.address)
    desk.ui.connectButton.click()

    desk.until(lambda: desk.session.state == "lost")

    assert desk.session.trouble and desk.session.trouble in desk.ui.stateLabel.text
    assert not desk.ui.captionButton.enabled or desk.panel.volume is None


def test_a_server_that_is_not_there_is_named_with_advice(module, server):
    address = server.address
    server.close()
    module.ui.addressBox.setEditText(address)
    module.ui.connectButton.click()
    Desk(module, server).until(lambda: module.panel.session.state == "lost")

    assert module.ui.stateLabel.text.startswith(
        f"No server at {address[7:]}: is the server running?"
    )


# A server that vanishes


def test_corrections_outlive_the_server_and_are_sent_when_it_is_back(desk, monkeypatch):
    from RadFoundLib.session import connection

    monkeypatch.setattr(connection, "HEARTBEAT_S", 0.1)
    desk.ask()
    fault = (503, {})
    desk.server.fault = fault
    desk.ui.correctionEdit.plainText = "Two lesions."
    desk.ui.editButton.click()
    desk.settle()

    assert "1 not sent yet; kept on this computer" in desk.ui.waitingText.text
    assert desk.ui.correctMessage.text == "Noted: edited."
    assert not desk.server.corrections

    desk.server.fault = None
    assert is_shown_in_open(desk, desk.ui.sendButton)
    desk.ui.sendButton.click()
    desk.settle()

    assert [row["text"] for row in desk.server.corrections] == ["Two lesions."]
    assert desk.ui.waitingText.text == ""


def is_shown_in_open(desk, widget):
    desk.ui.correctSection.collapsed = False
    return is_shown(widget)


def test_a_server_that_comes_back_is_greeted_and_gets_what_waited(desk, monkeypatch):
    from RadFoundLib.selftest.pretended_server import StubServer
    from RadFoundLib.session import connection

    monkeypatch.setattr(connection, "HEARTBEAT_S", 0.2)
    desk.ask()
    port = desk.server.port
    desk.server.close()
    desk.until(lambda: desk.session.state == "lost")
    assert "Trying again" in desk.ui.stateLabel.text
    desk.ui.rejectButton.click()
    assert len(desk.session.outbox.waiting()) == 1

    returned = StubServer(port)
    try:
        desk.until(lambda: desk.session.state == "connected" and returned.corrections)
        desk.settle()
        assert not desk.session.outbox.waiting()
        assert desk.ask("Still there?").state == "answered"
    finally:
        returned.close()


def test_unsent_corrections_are_found_again_after_a_restart(running, server, tmp_path):
    desk = Desk(running.open_module(), server)
    add_volume()
    desk.connect()
    desk.ui.consentBox.checked = True
    desk.ui.authorEdit.text = "A. Reader"
    desk.ask()
    server.fault = (503, {})
    desk.ui.rejectButton.click()
    desk.settle()
    desk.widget.cleanup()

    server.fault = None
    later = Desk(running.open_module(), server)
    later.connect()
    later.settle()

    assert [row["verdict"] for row in server.corrections] == ["rejected"]


def test_a_correction_that_the_server_refuses_stands_in_nobodys_way(desk, monkeypatch):
    desk.ask("First?")
    handler = desk.server._server.RequestHandlerClass
    keep = handler._record

    def refuse(self, correction):
        if correction["question"] == "First?":
            self._reply(422, {"detail": {"code": "correction", "message": "text: too long"}})
        else:
            keep(self, correction)

    monkeypatch.setattr(handler, "_record", refuse)
    desk.ui.acceptButton.click()
    desk.settle()
    desk.ask("Second?")
    desk.ui.acceptButton.click()
    desk.settle()

    assert [row["question"] for row in desk.server.corrections] == ["Second?"]
    assert "refuses 1: text: too long" in desk.ui.waitingText.text
    monkeypatch.undo()
    desk.ui.sendButton.click()
    desk.settle()
    assert len(desk.server.corrections) == 2


def test_a_slow_network_is_not_taken_for_a_lost_server_while_it_is_used(desk, monkeypatch):
    from RadFoundLib.session import connection

    monkeypatch.setattr(connection, "HEARTBEAT_S", 0.02)
    desk.server.pause_s = 0.1
    desk.ui.captionButton.click()
    turn = desk.panel.conversation.turns[-1]
    desk.until(lambda: bool(turn.text))
    desk.until(lambda: not desk.session.errands.is_busy)
    count = len(desk.server.requests)

    desk.run(0.3)

    assert turn.is_open and len(desk.server.requests) == count
    desk.until(lambda: len(desk.server.requests) > count)  # and again once it is free
    assert not turn.is_open


def test_a_correction_for_one_server_is_never_sent_to_another(desk):
    from RadFoundLib.selftest.pretended_server import StubServer

    desk.ask()
    desk.server.fault = (503, {})
    desk.ui.rejectButton.click()
    desk.settle()
    other = StubServer()
    try:
        desk.ui.connectButton.click()
        desk.server = other
        desk.connect()
        desk.settle()
        assert not other.corrections
        assert desk.ui.waitingText.text == "1 wait for another server."
    finally:
        other.close()


def test_a_training_that_cannot_start_says_why(desk, monkeypatch):
    desk.ask()
    desk.ui.acceptButton.click()
    desk.settle()
    desk.server.fault = (500, {"detail": {"code": "x", "message": "no disk left"}})

    desk.ui.trainButton.click()
    desk.settle()

    assert "no disk left" in desk.ui.teachMessage.text


# Slicer goes on meanwhile


@pytest.fixture
def slow(desk):
    """A panel in the midst of an answer."""
    desk.server.pause_s = 0.2
    desk.ui.reportButton.click()
    turn = desk.panel.conversation.turns[-1]
    desk.until(lambda: turn.text)
    desk.turn = turn
    return desk


def test_closing_the_scene_during_an_answer_is_safe(slow):
    slicer.mrmlScene.Clear()
    slow.until(lambda: not slow.session.is_busy)

    assert slow.panel.volume is None
    assert slow.turn.text not in slow.shown
    slow.until(slow.server.cancelled.is_set)
    slow.server.pause_s = 0.0
    add_volume("another")
    slow.until(lambda: slow.panel.volume is not None)
    assert slow.ask().state == "answered"
    assert slow.widget._parameters.volume is slow.panel.volume


def test_removing_the_volume_during_an_answer_is_safe(slow):
    slicer.mrmlScene.RemoveNode(slow.volume)
    slow.settle()

    assert slow.panel.volume is None
    assert slow.turn.state == "answered"


def test_removing_the_volume_before_it_is_sent_is_safe(module, server, monkeypatch):
    desk = Desk(module, server)
    volume = add_volume(shape=(40, 128, 128))
    desk.connect()
    desk.ui.consentBox.checked = True
    desk.ui.captionButton.click()
    slicer.mrmlScene.RemoveNode(volume)
    del volume

    desk.settle()

    assert len(server.images) == 1


def test_evidence_for_a_volume_that_is_gone_is_not_laid(desk):
    from RadFoundLib.scene import scene

    desk.ask()
    desk.ui.evidenceButton.click()
    slicer.mrmlScene.RemoveNode(desk.volume)

    desk.settle()

    assert scene.evidence_node() is None


def test_switching_to_another_module_lets_the_answer_come(slow):
    slow.widget.exit()
    slow.settle()
    slow.widget.enter()

    assert slow.turn.state == "answered"
    assert "Lesion of the left lung" in slow.shown


@pytest.mark.parametrize("is_streaming", [True, False])
def test_quitting_during_a_request_is_quick_and_calls_nothing_back(desk, is_streaming):
    desk.server.pause_s = 0.5
    desk.ui.reportButton.click()
    turn = desk.panel.conversation.turns[-1]
    if is_streaming:
        desk.until(lambda: turn.text)
    shown = desk.shown

    began = time.monotonic()
    desk.widget.cleanup()

    assert time.monotonic() - began < 3.0
    desk.run(0.3)
    assert desk.shown == shown and turn.answer is None


def test_a_question_that_is_asked_twice_at_once_is_asked_once(slow):
    from RadFoundLib.net.errors import ClientError

    with pytest.raises(ClientError, match="stop it first"):
        slow.session.ask(slow.panel.study(), "caption")
    slow.ui.questionEdit.text = "Another?"
    slow.ui.questionEdit.setFocus()
    slow.ui.askButton.click()

    assert len(slow.panel.conversation.turns) == 1


def test_choosing_another_volume_during_an_answer_shows_its_own_conversation(slow):
    other = add_volume("other")
    slow.ui.volumeSelector.setCurrentNode(other)
    assert "Report" not in slow.shown
    slow.settle()
    assert "Report" not in slow.shown

    slow.ui.volumeSelector.setCurrentNode(slow.volume)

    assert "Lesion of the left lung" in slow.shown


def test_a_loaded_scene_brings_its_choice(desk):
    desk.ui.partBox.currentIndex = desk.ui.partBox.findData("slice:Yellow")
    slicer.mrmlScene.SetSaveToXMLString(1)
    slicer.mrmlScene.Commit()
    saved = slicer.mrmlScene.GetSceneXMLString()
    desk.ui.partBox.currentIndex = desk.ui.partBox.findData("whole")
    slicer.mrmlScene.Clear()
    assert desk.panel.volume is None

    slicer.mrmlScene.SetLoadFromXMLString(1)
    slicer.mrmlScene.SetSceneXMLString(saved)
    slicer.mrmlScene.Import()

    assert desk.panel.volume is not None and desk.panel.volume.GetName() == "CT"
    assert desk.panel.study_section.part == "slice:Yellow"


# Large volumes


def test_a_large_volume_is_sent_with_progress(desk):
    large = add_volume("large", shape=(64, 256, 256))
    desk.ui.volumeSelector.setCurrentNode(large)
    texts, values = [], []
    desk.session.listen(
        lambda topic: (
            texts.append(desk.ui.progressText.text),
            values.append(desk.ui.progressBar.value),
        )
    )

    desk.ui.captionButton.click()
    desk.settle()

    assert "Sending 8 MB of 8 MB" in texts
    assert max(values) == 1000
    assert any(
        len(content) == 64 * 256 * 256 * 2 + header
        for content in desk.server.images.values()
        for header in [content.index(b"\n\n") + 2]
    )
    assert not is_shown(desk.ui.progressRow)


def test_a_study_that_is_fetched_is_not_said_to_be_sent(desk, monkeypatch):
    from RadFoundLib.scene.volumefile import VolumeContent

    content = VolumeContent(np.zeros((64, 256, 256), np.int16), np.diag([1.0, 1, 2, 1]))
    with content.open() as file:
        desk.server.studies["large"] = file.read()
    texts = []
    desk.session.listen(lambda topic: texts.append(desk.ui.progressText.text))

    desk.ui.nextButton.click()
    desk.settle()

    assert "Fetching 8 MB of 8 MB" in texts
    assert not any("Sending" in text or "Preparing" in text for text in texts)


def test_an_upload_can_be_stopped(desk, monkeypatch):
    handler = desk.server._server.RequestHandlerClass
    read = handler._serve

    def slowly(self):
        if self.command == "PUT":
            time.sleep(2.0)
        read(self)

    monkeypatch.setattr(handler, "_serve", slowly)
    large = add_volume("large", shape=(64, 256, 256))
    desk.ui.volumeSelector.setCurrentNode(large)
    desk.ui.captionButton.click()
    turn = desk.panel.conversation.turns[-1]
    desk.until(lambda: desk.session.transfer is not None)

    began = time.monotonic()
    desk.ui.stopButton.click()
    desk.until(lambda: not turn.is_open)

    assert time.monotonic() - began < 1.0
    assert turn.state == "stopped" and not desk.server.asked


def test_a_remote_server_gets_the_volume_compressed(desk, monkeypatch):
    from RadFoundLib.net.client import Client

    monkeypatch.setattr(Client, "is_local", property(lambda self: False))
    zeros = slicer.util.addVolumeFromArray(np.zeros((32, 64, 64), np.int16))
    desk.ui.volumeSelector.setCurrentNode(zeros)

    desk.ask()

    [content] = desk.server.images.values()
    assert b"encoding: gzip" in content and len(content) < 10_000


def test_a_way_that_is_not_encrypted_is_said_so(desk, monkeypatch):
    from RadFoundLib.net.client import Client

    monkeypatch.setattr(Client, "is_private", property(lambda self: False))
    desk.panel.tell("server")
    desk.ui.consentBox.checked = False
    desk.ui.captionButton.click()

    assert "not encrypted" in desk.ui.stateLabel.text
    assert "not encrypted" in desk.ui.consentText.text


def test_a_volume_that_cannot_be_sent_is_explained(desk):
    tensor = slicer.util.addVolumeFromArray(
        np.zeros((2, 3, 4, 2), np.float32), None, "two", "vtkMRMLVectorVolumeNode"
    )
    desk.ui.volumeSelector.setCurrentNode(tensor)

    desk.ui.captionButton.click()

    assert "This kind of volume cannot be sent" in desk.ui.askMessage.text
    assert not desk.panel.conversation.turns
