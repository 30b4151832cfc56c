"""Manners of the panel in Slicer: messages that stay, colours, errors, certificates, translations."""

import ast
import string
from pathlib import Path

import pytest
import slicer
import slicer.util

from ..standin import pythonqt
from .desk import Desk, add_volume, is_shown

# Messages about the server


def test_a_message_about_a_wrong_address_outlives_the_heartbeat(desk, monkeypatch):
    from RadFoundLib.session import connection

    monkeypatch.setattr(connection, "HEARTBEAT_S", 0.05)
    desk.ui.addressBox.setEditText("ht tp:/nowhere")
    assert desk.ui.connectButton.text == "Connect"
    desk.ui.connectButton.click()
    desk.run(0.3)
    desk.panel.tell("server")

    assert "expected one such as" in desk.ui.stateLabel.text
    assert desk.session.state == "connected"

    desk.ui.addressBox.setEditText(desk.server.address)
    assert desk.ui.stateLabel.text.startswith("connected")


def test_a_lost_server_can_be_disconnected(desk):
    desk.server.close()
    desk.ui.captionButton.click()
    desk.until(lambda: desk.session.state == "lost")
    assert desk.ui.connectButton.text == "Disconnect"

    desk.ui.connectButton.click()

    assert desk.session.state == "away"
    assert desk.ui.connectButton.text == "Connect"
    desk.run(0.1)
    assert desk.session.state == "away"


def test_the_section_folds_once_connected_and_opens_when_the_server_is_lost(desk):
    desk.ui.connectButton.click()
    assert not desk.ui.serverSection.collapsed
    desk.connect()
    assert desk.ui.serverSection.collapsed
    assert desk.ui.serverSection.text == "Server: radfound-stub"

    desk.server.close()
    desk.ui.captionButton.click()
    desk.until(lambda: desk.session.state == "lost")

    assert not desk.ui.serverSection.collapsed


# Corrections to learn from


def test_the_number_of_corrections_to_learn_from_is_that_which_the_server_reads(desk):
    desk.ask("First?")
    desk.ui.acceptButton.click()
    desk.settle()
    desk.ui.rejectButton.click()  # the newest counts, and it says nothing to learn
    desk.settle()
    assert desk.ui.newText.text == "Corrections to learn from: 0."
    assert not desk.ui.trainButton.enabled

    desk.ask("Second?")
    desk.ui.acceptButton.click()
    desk.settle()

    assert desk.ui.newText.text == "Corrections to learn from: 1."


# Colours


def test_colours_follow_a_change_of_the_theme(desk, monkeypatch):
    from PySide6.QtGui import QColor, QPalette
    from RadFoundLib.panel.render import Palette

    desk.ask()
    assert Palette().question in desk.ui.chatView.html
    dark = QPalette()
    dark.setColor(QPalette.ColorRole.Window, QColor("#202020"))
    monkeypatch.setattr(slicer.app, "palette", lambda: dark)

    desk.until(lambda: Palette.dark().question in desk.ui.chatView.html)

    assert Palette().question not in desk.ui.chatView.html


# Unexpected errors


def test_an_unexpected_error_is_shown_to_the_reader(desk, monkeypatch):
    shown = []
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)
    monkeypatch.setattr(
        slicer.util, "errorDisplay", lambda text, **_how: shown.append(text), raising=False
    )
    monkeypatch.setattr(desk.session, "ask", lambda *_: 1 / 0)

    desk.ui.captionButton.click()

    assert shown == ["Unexpected error in RadFound.\n\ndivision by zero"]
    assert "ZeroDivisionError" in pythonqt.errors.pop()


# Certificates


def test_a_hospitals_certificate_is_chosen_and_remembered(module, server, monkeypatch, tmp_path):
    import qt
    from RadFoundLib.net.errors import ClientError
    from RadFoundLib.net.transport import NOT_TRUSTED
    from RadFoundLib.session import connection
    from RadFoundLib.session.settings import Settings

    used = []
    real = connection.Client

    def client(address, token=None, ca_file=""):
        used.append(ca_file)
        return real(address, token, ca_file=ca_file)

    monkeypatch.setattr(connection, "Client", client)
    path = str(tmp_path / "hospital.pem")
    desk = Desk(module, server)
    desk.connect()
    assert not is_shown(desk.ui.certificateButton)
    desk.session.note(ClientError("not trusted", "unreachable", NOT_TRUSTED))
    assert is_shown(desk.ui.certificateButton)
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: path)

    desk.ui.certificateButton.click()
    desk.until(lambda: desk.session.state == "connected")

    assert used[-1] == path
    assert Settings().ca_files() == {server.address: path}


# Words


def test_no_word_of_developers_is_shown_to_readers():
    root = Path(__file__).parents[3] / "slicer_extension" / "RadFound"
    files = [*root.rglob("*.py"), *root.rglob("*.ui")]
    found = [path.name for path in files if "make serve" in path.read_text(encoding="utf-8")]

    assert found == []


def placeholders(text):
    return {name for _text, name, _spec, _how in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parents[3] / "slicer_extension").rglob("RadFoundLib/**/*.py")),
    ids=lambda path: path.name,
)
def test_every_placeholder_of_a_text_is_named_and_can_be_translated(path):
    """A translator sees the whole sentence, and may put its named parts in another order."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
            [argument] = node.args
            assert isinstance(argument, ast.Constant), f"{path.name}:{node.lineno}: not one text"
            assert "" not in placeholders(argument.value), argument.value


def test_a_translation_with_other_placeholders_does_not_break_the_panel():
    from RadFoundLib import translation

    translation.use_translator(lambda _context, text: text.replace("{count}", "{anzahl}"))
    try:
        assert translation._("{count} not sent yet") == "{count} not sent yet"
        assert translation._("Connect") == "Connect"
    finally:
        translation._translators.clear()


# Mouse and keys


def test_the_wheel_scrolls_the_panel_and_neither_asks_nor_chooses(desk):
    from PySide6 import QtCore, QtGui, QtWidgets

    window = pythonqt.unwrap(desk.widget.parent)
    boxes = [box for box in window.findChildren(QtWidgets.QComboBox) if box.objectName()]
    chosen = [box.currentIndex() for box in boxes]
    assert len(boxes) > 10

    for box in boxes:
        nowhere, down = QtCore.QPoint(), QtCore.QPoint(0, -120)
        place = QtCore.QPointF(5, 5)
        buttons, keys = QtCore.Qt.MouseButton.NoButton, QtCore.Qt.KeyboardModifier.NoModifier
        phase = QtCore.Qt.ScrollPhase.NoScrollPhase
        turned = QtGui.QWheelEvent(place, place, nowhere, down, buttons, keys, phase, False)
        QtWidgets.QApplication.sendEvent(box, turned)
    desk.settle()

    assert [box.currentIndex() for box in boxes] == chosen
    assert not desk.panel.conversation.turns


def test_keys_for_sentences_go_nowhere_else_after_accept_and_next(desk):
    """A letter in "Quick questions" would ask one."""
    from PySide6.QtWidgets import QApplication

    desk.server.studies = {"study-7": b""}
    desk.ui.reportButton.click()
    desk.settle()
    pythonqt.unwrap(desk.widget.parent).activateWindow()
    desk.ui.sentenceList.setFocus()

    desk.ui.acceptNextButton.click()
    desk.settle()

    assert QApplication.focusWidget() is pythonqt.unwrap(desk.ui.questionEdit)


# Room on the screen


def test_answer_and_correction_are_seen_together_in_a_narrow_panel(desk):
    all_is_offered(desk)
    desk.run(0.6)
    window = pythonqt.unwrap(desk.widget.parent)
    for name in ("server", "study", "evidence", "teach", "day", "correct"):
        getattr(desk.ui, name + "Section").collapsed = True
    desk.run(0.1)
    window.resize(480, window.minimumSizeHint().height())
    desk.run(0.1)

    assert window.minimumSizeHint().width() <= 500
    chat, accept = (pythonqt.unwrap(w) for w in (desk.ui.chatView, desk.ui.acceptButton))
    top = chat.mapTo(window, chat.rect().topLeft()).y()
    bottom = accept.mapTo(window, accept.rect().bottomLeft()).y()
    assert bottom - top < 560
    assert window.minimumSizeHint().height() < 900  # of 1080 lines, Slicer's bars need some


def test_the_conversation_takes_the_room_that_a_tall_panel_leaves(desk):
    window = pythonqt.unwrap(desk.widget.parent)
    for name in ("server", "study", "evidence", "teach", "day", "correct"):
        getattr(desk.ui, name + "Section").collapsed = True
    window.resize(480, window.minimumSizeHint().height())
    desk.run(0.1)
    before = desk.ui.chatView.height, desk.ui.teachSection.height

    window.resize(480, window.height() + 300)
    desk.run(0.1)

    assert desk.ui.chatView.height == before[0] + 300
    desk.ui.askSection.collapsed = True
    desk.run(0.1)
    assert desk.ui.teachSection.height == before[1]  # what is folded stays together, at the top


def test_a_long_or_foreign_name_is_shown_as_it_is_and_does_not_widen_the_panel(desk):
    window = pythonqt.unwrap(desk.widget.parent)
    everything_is_shown(desk)
    width = window.minimumSizeHint().width()
    name = "R&D <b>Schädel</b> 頭部 " + "1.2.826." * 20 + "post KM"

    add_volume("another")
    desk.ui.volumeSelector.setCurrentNode(add_volume(name))
    desk.run(0.1)

    assert window.minimumSizeHint().width() == width
    assert desk.ui.askSection.text.startswith("Ask about R&&D <b>Schädel</b> 頭部 1.2")
    assert desk.ui.askSection.text.endswith("….826.post KM")
    turn = desk.ask("Größe der Läsion, 何ですか?")
    desk.ui.correctionEdit.plainText = "Ø 18 mm, näher am Hilus — 左"
    desk.ui.authorEdit.text = "Dr. Zoë Ångström"
    desk.ui.editButton.click()
    desk.settle()
    [correction] = desk.server.corrections[-1:]
    assert (correction["question"], correction["author"]) == (turn.question, "Dr. Zoë Ångström")
    assert correction["text"] == "Ø 18 mm, näher am Hilus — 左"
    assert window.minimumSizeHint().width() == width


SMALLEST_PANEL = 480  # pixels at 100 %, as wide as Slicer's own modules need


@pytest.mark.parametrize("percent", [100, 125, 200])
@pytest.mark.parametrize("is_dark", [False, True])
def test_no_word_is_cut_off_with_larger_text(running, desk, monkeypatch, percent, is_dark):
    """The panel may need more width with larger text, but shows its buttons and labels whole."""
    from PySide6 import QtGui, QtWidgets

    application = QtWidgets.QApplication.instance()
    before = application.font(), application.palette()
    larger = QtGui.QFont(before[0])
    larger.setPointSizeF(before[0].pointSizeF() * percent / 100)
    if is_dark:
        application.setPalette(QtGui.QPalette(QtGui.QColor("#323232")))
    application.setFont(larger)
    try:
        everything_is_shown(desk)
        window = pythonqt.unwrap(desk.widget.parent)
        window.resize(SMALLEST_PANEL * percent // 100, window.minimumSizeHint().height())
        desk.run(0.2)

        assert window.width() <= SMALLEST_PANEL * percent / 100 + 20
        assert cut_off(window) == {}
        if is_dark:
            assert "#26384a" in desk.ui.chatView.html
    finally:
        application.setFont(before[0])
        application.setPalette(before[1])


def all_is_offered(desk):
    """Connect to a server with templates, an archive and two models, and ask for a report."""
    desk.server.templates, desk.server.archive = [{"name": "Chest", "text": ""}], "reader"
    desk.server.models = ("radfound-mini", "medgemma")
    desk.ui.connectButton.click()
    desk.connect()
    desk.ui.reportButton.click()
    desk.settle()


def everything_is_shown(desk):
    """Open every section, with all that a server may offer."""
    all_is_offered(desk)
    desk.ui.acceptButton.click()
    desk.ui.evidenceButton.click()
    desk.settle()
    desk.ui.editPromptsButton.click()
    for name in ("server", "study", "ask", "evidence", "day", "correct", "teach"):
        getattr(desk.ui, name + "Section").collapsed = False
    desk.run(0.6)


def cut_off(window):
    """Return buttons, ticks and labels that have less room than their words need."""
    from PySide6 import QtWidgets

    found = {}
    for kind in (QtWidgets.QPushButton, QtWidgets.QCheckBox, QtWidgets.QLabel):
        for widget in window.findChildren(kind):
            wraps = isinstance(widget, QtWidgets.QLabel) and widget.wordWrap()
            needed = widget.minimumSizeHint()
            is_cut = not wraps and widget.width() < needed.width()
            if wraps:
                is_cut = widget.height() < widget.heightForWidth(widget.width())
            if widget.isVisible() and widget.objectName() and is_cut:
                found[widget.objectName()] = (widget.width(), needed.width())
    return found
