"""Take screenshots of the Slicer module's panel for docs/slicer.md; see `make screenshots`.

Panel, data library, server and model are real; the window around the panel is the tests' stand-in for
Slicer.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QT_SCALE_FACTOR", "1.5")
os.environ.setdefault("QT_LOGGING_RULES", "qt.qpa.*=false")

from PIL import Image  # noqa: E402

from scripts.serve import BRAIN, HOST, put_samples  # noqa: E402

_WIDTH = 480
_VIEW_MM = 215.0
_PATIENCE_S = 1800.0  # for fine-tuning; all other steps take seconds
_SECTIONS = ("server", "study", "ask", "evidence", "day", "correct", "teach")
# The same weights under a second name: no other model can be had without a network.
_TWO_MODELS = """\
models:
  - name: second-reader
    backend: radfound
    place: radfound-mini
"""
_VIEWS = ("Red", "Yellow", "Green")


def main() -> int:
    """Write docs/images/slicer-*.png; return 1 if a state is not reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--port", type=int, default=8000, help="for a server of its own")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    from tests.slicer_extension.standin import pythonqt
    from tests.slicer_extension.standin.application import running_slicer

    with tempfile.TemporaryDirectory() as name:
        studies = Path(name) / "studies"
        studies.mkdir()
        put_samples(studies)
        with _served(studies, args.port) as server, running_slicer(Path(name)) as running:
            photographer = Photographer(running.open_module(), args.out, server)
            try:
                photographer.take_all(f"http://{HOST}:{args.port}", studies / f"{BRAIN}.nii.gz")
                _stop(server)
                models = Path(name) / "models.yaml"
                models.write_text(_TWO_MODELS, encoding="utf-8")
                with _served(studies, args.port, "--conf", "models", str(models)):
                    photographer.take_second_opinion()
            except TimeoutError as error:
                print(f"screenshots: {error}", file=sys.stderr)
                return 1
    if pythonqt.errors:
        print("\n".join(pythonqt.errors), file=sys.stderr)
        return 1
    return 0


@contextmanager
def _served(studies: Path, port: int, *settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server as `make serve` does; yield when the model is loaded."""
    serve = str(ROOT / "scripts" / "serve.py")
    command = [sys.executable, serve, "--port", str(port), *settings]
    server = subprocess.Popen([*command, "--studies", str(studies)], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        if not any(line.startswith(b"Ctrl-C") for line in server.stdout):
            raise SystemExit("screenshots: the server did not start")
        yield server
    finally:
        _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    server.wait()


class Photographer:
    """Drives the panel from state to state and saves screenshots.

    Parameters
    ----------
    widget : RadFoundWidget
    out : Path
        Folder of the screenshots.
    server : Popen
        Stopped for the last screenshot.
    """

    def __init__(self, widget: Any, out: Path, server: subprocess.Popen[bytes]):
        self.panel, self.ui = widget.panel, widget.ui
        self.session = widget.panel.session
        self.window = widget.parent
        self.out = out
        self.server = server

    def take_all(self, address: str, study: Path) -> None:
        """Take every screenshot of the tutorial.

        Parameters
        ----------
        address : str
            The server's.
        study : Path
            Study to load into Slicer.
        """
        began = time.monotonic()
        for step in (
            lambda: self._take("start", "server", "study", "ask"),
            lambda: self._connected(address, study),
            self._answering,
            self._answered,
            self._listed,
            self._corrected,
            self._from_elsewhere,
            self._dark,
            self._training,
            self._gone,
        ):
            step_began = time.monotonic()
            step()
            name = getattr(step, "__name__", "").strip("_")
            if name in ("answering", "answered", "training"):
                print(f"{name}: {time.monotonic() - step_began:.0f} s", flush=True)
        print(f"the tutorial: {(time.monotonic() - began) / 60:.1f} min", flush=True)

    def _connected(self, address: str, study: Path) -> None:
        import slicer

        volume = slicer.util.loadVolume(str(study), {"name": "MR brain", "show": True})
        slicer.util.getNode("Red").JumpSliceByCentering(0.0, 0.0, 18.0)
        self.ui.volumeSelector.setCurrentNode(volume)
        self.ui.addressBox.setEditText(address)
        self.ui.connectButton.click()
        self._wait(lambda: self.session.state == "connected", "a connection")
        self._wait_until_idle()
        self._wait(lambda: bool(self.ui.volumeText.text), "the voxels")
        self._take("connected", "server", "study", "ask")

    def _answering(self) -> None:
        self.ui.questionEdit.text = "Which imaging modality is this?"
        self.ui.askButton.click()
        self._take("consent", "ask")
        self.ui.agreeButton.click()
        self._take("answering", "ask")
        self._wait(lambda: len(self.panel.conversation.answered()) == 1, "an answer")
        self.ui.reportButton.click()
        turn = self.panel.conversation.turns[-1]
        self._wait(lambda: turn.state == "answered", "the report")

    def _answered(self) -> None:
        from RadFoundLib.scene import scene

        self._take("answered", "study", "ask")
        self.ui.evidenceButton.click()
        self._wait_until_idle()
        if scene.evidence_node() is not None:
            self.ui.jumpButton.click()
        self._take("evidence", "evidence", with_views=True)

    def _listed(self) -> None:
        self.ui.refreshStudiesButton.click()
        self._wait_until_idle()
        self.ui.studiesTable.selectRow(0)
        self._take("day", "day")

    def _corrected(self) -> None:
        ui = self.ui
        ui.authorEdit.text = "Dr. A. Reader"
        first, report = self.panel.conversation.answered()
        self.panel.choose(first)
        ui.acceptButton.click()
        self.panel.choose(report)
        wanted = {
            "findings": [
                "No mass, no haemorrhage, no midline shift.",
                "Ventricles of normal size.",
            ],
            "impression": ["Normal MRI of the brain."],
        }
        draft = report.draft
        for index, sentence in enumerate(list(draft.sentences)):
            texts = wanted.get(sentence.section or "findings", [])
            if texts:
                draft.edit(index, texts.pop(0))
            else:
                draft.strike(index)
        for text in wanted["findings"] + wanted["impression"]:
            draft.add(text)
        self.panel.tell("draft")
        self._take("sentences", "ask")
        ui.editButton.click()
        self._wait(lambda: ui.correctionsTable.rowCount == 2, "the corrections")
        self._wait(lambda: "Changes" in ui.correctMessage.text, "the effect")
        self._take("corrected", "ask", "correct")

    def _from_elsewhere(self) -> None:
        """Show a reader's text, and a question that the model cannot answer."""
        self.ui.clearButton.click()
        self._ask("Which imaging modality is this?")
        self.panel.unfold(self._ask("Is there a glioma?"))
        self._take("sources", "ask")

    def take_second_opinion(self) -> None:
        """Take the screenshot of a server with two models."""
        # The panel looks for its server by itself.
        self._wait(lambda: self.session.state == "connected", "the server's return")
        self._wait_until_idle()
        self.ui.clearButton.click()
        self._ask("In which plane is this image?")
        self.ui.secondButton.click()
        self._wait(lambda: len(self.panel.conversation.answered()) == 2, "a second opinion")
        self._wait_until_idle()
        self._take("second", "server", "ask")

    def _ask(self, question: str) -> Any:
        self.ui.questionEdit.text = question
        self.ui.askButton.click()
        turn = self.panel.conversation.turns[-1]
        self._wait(lambda: turn.state == "answered", "an answer")
        self._wait_until_idle()
        return turn

    def _dark(self) -> None:
        from PySide6 import QtGui, QtWidgets

        application = QtWidgets.QApplication.instance()
        before = application.palette()
        roles, dark = QtGui.QPalette.ColorRole, QtGui.QPalette()
        for role, colour in (
            (roles.Window, "#2b2b2b"),
            (roles.Base, "#1e1e1e"),
            (roles.Button, "#3a3a3a"),
            (roles.WindowText, "#e8e8e8"),
            (roles.Text, "#e8e8e8"),
            (roles.ButtonText, "#e8e8e8"),
            (roles.PlaceholderText, "#9a9a9a"),
            (roles.ToolTipBase, "#2b2b2b"),
        ):
            dark.setColor(role, QtGui.QColor(colour))
        application.setPalette(dark)
        self.panel.ask_section.follow_theme()
        self._take("dark", "ask")
        application.setPalette(before)
        self.panel.ask_section.follow_theme()

    def _training(self) -> None:
        self.ui.trainButton.click()
        self._wait(lambda: self.session.is_training, "learning")
        self._wait(lambda: self._is_under_way(), "the first steps")
        self._take("training", "teach")
        self._wait(lambda: not self.session.is_training, "the end of learning")
        self._wait_until_idle()
        self._take("taught", "teach")

    def _is_under_way(self) -> bool:
        status = self.session.training
        return status is not None and (status.step > 0 or status.is_over)

    def _gone(self) -> None:
        _stop(self.server)
        self.ui.captionButton.click()
        self._wait(lambda: self.session.state == "lost", "the loss")
        self._wait(lambda: not self.session.is_busy, "the loss")
        self.panel.choose(self.panel.conversation.answered()[0])
        self.ui.correctionEdit.plainText = "MRI, T1-weighted"
        self.ui.editButton.click()
        self._take("gone", "server", "correct")

    def _take(self, name: str, *sections: str, with_views: bool = False) -> None:
        """Open only these sections, and save a screenshot of the window.

        With `with_views`, the three slice views are drawn under the panel.
        """
        self.panel._timer.stop()  # freezes the state until the screenshot is taken
        for section in _SECTIONS:
            getattr(self.ui, section + "Section").collapsed = section not in sections
        self._settle()
        window = self.window._object
        window.resize(_WIDTH, window.minimumSizeHint().height())
        self._settle()
        window.resize(_WIDTH, window.layout().heightForWidth(_WIDTH))
        self._settle()
        bar = self.ui.chatView.verticalScrollBar()
        bar.value = bar.maximum
        self._settle()
        picture = window.grab()
        if with_views:
            picture = _above_views(picture)
        path = self.out / f"slicer-{name}.png"
        picture.save(str(path))
        with Image.open(path) as drawn:
            fewer = drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        fewer.save(path, optimize=True)
        self.panel._timer.start()

    def _wait_until_idle(self) -> None:
        session = self.session
        self._wait(lambda: not (session.is_busy or session.errands.is_busy), "rest")

    def _settle(self, seconds: float = 0.1) -> None:
        import slicer

        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            slicer.app.processEvents()
            time.sleep(0.005)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain for {what}")
            self._settle(0.02)


def _above_views(panel: Any) -> Any:
    """Return the panel's screenshot with the three slice views below."""
    from PySide6 import QtGui

    from tests.slicer_extension.standin.mrml import slice_picture

    panel.setDevicePixelRatio(1.0)
    edge = panel.width() // len(_VIEWS)
    whole = QtGui.QPixmap(panel.width(), panel.height() + edge)
    painter = QtGui.QPainter(whole)
    painter.drawPixmap(0, 0, panel)
    for index, name in enumerate(_VIEWS):
        shown = slice_picture(name, (edge, edge), _VIEW_MM)
        height, width, _colours = shown.shape
        view = QtGui.QImage(
            shown.tobytes(), width, height, 3 * width, QtGui.QImage.Format.Format_RGB888
        )
        painter.drawImage(index * edge, panel.height(), view)
    painter.end()
    return whole


if __name__ == "__main__":
    sys.exit(main())
