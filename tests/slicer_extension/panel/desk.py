import time

import numpy as np
import slicer
import slicer.util

PATIENCE_S = 60.0


class Desk:
    """What a test does with a panel."""

    def __init__(self, widget, server):
        self.widget, self.panel, self.ui, self.server = widget, widget.panel, widget.ui, server
        self.session = widget.panel.session
        self.volume = None

    @property
    def address(self):
        return getattr(self.server, "url", None) or self.server.address

    def connect(self):
        self.ui.addressBox.setEditText(self.address)
        self.ui.connectButton.click()
        self.until(lambda: self.session.state == "connected")
        self.settle()

    def ask(self, question="Is there a lesion?"):
        count = len(self.panel.conversation.turns)
        self.ui.questionEdit.text = question
        self.ui.askButton.click()
        assert len(self.panel.conversation.turns) == count + 1, self.ui.askMessage.text
        turn = self.panel.conversation.turns[-1]
        self.until(lambda: not turn.is_open)
        self.settle()
        return turn

    @property
    def shown(self):
        """What the conversation shows, as text."""
        return self.ui.chatView.plainText

    def settle(self):
        """Let everything that is under way come to its end."""
        self.until(lambda: not self.session.errands.is_busy and not self.session.is_busy)

    def until(self, condition, patience_s=PATIENCE_S):
        deadline = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < deadline, (self.session.state, self.session.trouble)
            run_events()

    def run(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            run_events()


def run_events():
    slicer.app.processEvents()
    time.sleep(0.002)


def is_shown(widget):
    """Whether it would be seen in a section that is open."""
    return not widget.isHidden()


def add_volume(name="CT", shape=(6, 16, 20), affine=None):
    voxels = np.random.default_rng(len(name)).integers(-1000, 500, shape).astype(np.int16)
    affine = np.diag([-2.0, -2, 3, 1]) if affine is None else affine
    return slicer.util.addVolumeFromArray(voxels, affine, name)
