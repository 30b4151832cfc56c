"""No callback of the panel keeps Slicer's main thread busy for 50 ms.

Counted is the processor time of the main thread, which does not depend on what else the machine does.
The time on the clock is printed beside it (`pytest -s`).
"""

import time
from dataclasses import replace

import numpy as np
import slicer.util

from ..standin import pythonqt

LONGEST_S = 0.05
ANSWER_S = 5.0
WORDS = 100
LARGE = (300, 512, 512)  # 157 MB


class Heart:
    """Beats as often as the event loop lets it; keeps the most that the main thread did between two beats."""

    def __init__(self):
        from PySide6.QtCore import QTimer

        self._last, self.steps = None, []
        self._timer = QTimer()
        self._timer.setInterval(1)
        self._timer.timeout.connect(self._beat)

    def _beat(self):
        now = time.thread_time(), time.perf_counter()
        if self._last is not None:
            self.steps.append((now[0] - self._last[0], now[1] - self._last[1]))
        self._last = now

    def watch(self, begin):
        """Run the event loop, as Slicer does, until what `begin()` returns is true.

        Returns the longest time between two beats, on the processor and on the clock.
        """
        self._last, self.steps = None, []
        application = pythonqt.application()
        self._timer.start()
        while not self.steps:
            application.processEvents()
        is_over = begin()
        while not is_over():
            application.processEvents()
            time.sleep(0.0005)
        application.processEvents()
        self._timer.stop()
        return tuple(map(max, zip(*self.steps, strict=True)))


def assert_no_long_pause(desk, what, begin, is_over=None):
    def begins():
        begin()
        return is_over or (lambda: not desk.panel.conversation.turns[-1].is_open)

    busy_s, passed_s = Heart().watch(begins)
    print(f"{what}: {1e3 * busy_s:.0f} ms on the processor, {1e3 * passed_s:.0f} ms on the clock")
    assert busy_s < LONGEST_S


def asks(desk, question):
    desk.ui.questionEdit.text = question
    desk.ui.askButton.click()


def choose_a_large_volume(desk):
    voxels = np.random.default_rng(0).integers(-1000, 500, LARGE, dtype=np.int16)
    large = slicer.util.addVolumeFromArray(voxels, np.diag([-0.7, -0.7, 1.0, 1.0]), "large")
    desk.ui.volumeSelector.setCurrentNode(large)


def test_slicer_goes_on_while_an_answer_streams(desk):
    desk.server.texts["vqa"] = "word " * WORDS
    desk.server.pause_s = ANSWER_S / WORDS

    assert_no_long_pause(desk, "streaming", lambda: asks(desk, "What is this?"))

    turn = desk.panel.conversation.turns[-1]
    assert turn.state == "answered" and turn.text.count("word") == WORDS


def test_slicer_goes_on_while_a_large_volume_is_sent_and_an_answer_streams(desk):
    choose_a_large_volume(desk)
    desk.server.texts["caption"] = "word " * WORDS
    desk.server.pause_s = 0.02

    assert_no_long_pause(desk, "sending 157 MB", desk.ui.captionButton.click)

    assert desk.panel.conversation.turns[-1].state == "answered"
    assert max(map(len, desk.server.images.values())) > 150 << 20


def test_slicer_goes_on_while_a_large_map_is_fetched_and_shown(desk):
    from RadFoundLib.scene import scene

    choose_a_large_volume(desk)
    desk.ui.captionButton.click()
    desk.settle()

    assert_no_long_pause(
        desk,
        "a map of 79 MB",
        desk.ui.evidenceButton.click,
        lambda: not desk.session.is_busy,
    )
    assert scene.evidence_node() is not None
    assert_no_long_pause(desk, "its strongest place", desk.ui.jumpButton.click, lambda: True)


def test_a_long_conversation_does_not_slow_the_next_answer(desk):
    first = desk.ask()
    desk.panel.conversation.turns += [
        replace(first, id=f"turn-{number}", question=f"Question {number}?") for number in range(300)
    ]
    desk.server.texts["vqa"] = "word " * 40
    desk.server.pause_s = 0.02

    assert_no_long_pause(desk, "after 300 answers", lambda: asks(desk, "And this?"))

    assert "And this?" in desk.shown and "Question 5?" not in desk.shown
    desk.panel.ask_section.follow_link("earlier:all")
    assert "Question 5?" in desk.shown
