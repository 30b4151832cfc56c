import os
import time

import pytest

from ..standin import pythonqt
from .desk import add_volume

LONGEST_PAUSE_S = 0.05
ANSWER_S = 5.0
WORDS = 100
ROUNDS = 4


class Heart:
    """Beats as often as the event loop lets it, and notes the longest pause between two beats."""

    def __init__(self):
        from PySide6.QtCore import QTimer

        self._last, self.pauses = None, []
        self._timer = QTimer()
        self._timer.setInterval(1)
        self._timer.timeout.connect(self._beat)

    def _beat(self):
        now = time.perf_counter()
        if self._last is not None:
            self.pauses.append(now - self._last)
        self._last = now

    def watch(self, begin):
        """Run the event loop, as Slicer does, until what `begin()` returns is true.

        Returns the longest pause, that of `begin` among them.
        """
        self._last, self.pauses = None, []
        application = pythonqt.application()
        self._timer.start()
        while not self.pauses:
            application.processEvents()
        is_over = begin()
        while not is_over():
            application.processEvents()
            time.sleep(0.0005)
        self._timer.stop()
        return max(self.pauses)


def idles(seconds=1.0):
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline


def assert_no_long_pause(desk, begin):
    """No pause of the event loop over 50 ms until the question that `begin()` asks is answered.

    Other programs stop this one, too. So the same loop is measured with nothing to do, and the
    measurement is repeated; where the machine has more to do than processors, none counts.
    """
    heart, measured = Heart(), []

    def asks():
        begin()
        return lambda: not desk.panel.conversation.turns[-1].is_open

    for _round in range(ROUNDS):
        working = heart.watch(asks)
        assert desk.panel.conversation.turns[-1].state == "answered"
        alone = heart.watch(idles)
        measured.append((working, alone))
        if working < LONGEST_PAUSE_S or working - alone < LONGEST_PAUSE_S:
            return
    if os.getloadavg()[0] > os.cpu_count():
        pytest.skip(f"the machine is too busy to measure pauses: found {measured}")
    raise AssertionError(measured)


def asks(desk, question):
    desk.ui.questionEdit.text = question
    desk.ui.askButton.click()


def test_slicer_goes_on_while_an_answer_streams(desk):
    desk.server.texts["vqa"] = "word " * WORDS
    desk.server.pause_s = ANSWER_S / WORDS

    assert_no_long_pause(desk, lambda: asks(desk, "What is this?"))

    assert desk.panel.conversation.turns[-1].text.count("word") == WORDS


def test_slicer_goes_on_while_a_large_volume_is_sent(desk):
    large = add_volume("large", shape=(128, 256, 256))
    desk.ui.volumeSelector.setCurrentNode(large)

    def sends():
        desk.server.images.clear()
        desk.session._images.clear()
        desk.ui.captionButton.click()

    assert_no_long_pause(desk, sends)


def test_a_long_conversation_does_not_slow_the_next_answer(desk):
    for number in range(40):
        desk.ask(f"Question {number}?")
    desk.server.texts["vqa"] = "word " * 40
    desk.server.pause_s = 0.02

    assert_no_long_pause(desk, lambda: asks(desk, "And this?"))
