"""Take screenshots of the Slicer module's panel for docs/slicer.md; see `make screenshots`.

Panel, data library, server and model are real; the window around the panel is the tests' stand-in for
Slicer. The steps are those of the tutorial; for each, the time on the clock and the processor time of
panel, server and training are printed. On a busy machine the first says little, the second much.

`--scale 1.25` draws the panel as on a screen with 125 % scaling, `--font-dpi 120` with larger text alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QT_LOGGING_RULES", "qt.qpa.*=false")

import psutil  # noqa: E402
import requests  # noqa: E402
from PIL import Image  # noqa: E402

from scripts.serve import BRAIN, HOST, put_samples  # noqa: E402

_WIDTH = 480
_SCALE = 1.5
_VIEW_MM = 215.0
_MOST_CHAT_PIXELS = 420  # of the conversation; a longer one is scrolled to its end
_PATIENCE_S = 1800.0  # for fine-tuning; all other steps take seconds
_SECTIONS = ("server", "study", "ask", "evidence", "day", "correct", "teach")
# The same weights under a second name: no other model can be had without a network.
_TWO_MODELS = """\
models:
  - name: second-reader
    backend: radfound
    place: radfound-mini
"""
_SCORED = ("Which body region is shown?", "Is there a mass?")
_VIEWS = ("Red", "Yellow", "Green")
_EARLIER = "brain_mr_earlier"
_ALLOWED_S = 180.0
"""How long learning from ten corrections may take."""
_MORE = (
    ("Is there a mass?", "No mass."),
    ("Is there a haemorrhage?", "No haemorrhage."),
    ("Is the midline shifted?", "The midline is central."),
    ("Are the ventricles enlarged?", "No, of normal size."),
    ("Is there oedema?", "No oedema."),
    ("Was contrast medium given?", "No contrast medium."),
    ("Is there an infarct?", "No infarct."),
    ("What is shown?", "A healthy brain."),
)
"""Questions and a reader's answers, for learning from more than the tutorial's two corrections."""


def main() -> int:
    """Write docs/images/slicer-*.png; return 1 if a state is not reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--port", type=int, default=8000, help="for a server of its own")
    parser.add_argument(
        "--corrections", type=int, default=2, help=f"to learn from, 2 to {2 + len(_MORE)}"
    )
    parser.add_argument("--no-training", action="store_true", help="leave the pictures of it out")
    parser.add_argument("--scale", type=float, default=_SCALE, help="of the screen, such as 2")
    parser.add_argument("--font-dpi", type=int, default=96, help="96 is normal text, 120 is larger")
    args = parser.parse_args()
    os.environ.update(QT_SCALE_FACTOR=str(args.scale), QT_FONT_DPI=str(args.font_dpi))
    args.out.mkdir(parents=True, exist_ok=True)

    from tests.slicer_extension.standin import pythonqt
    from tests.slicer_extension.standin.application import running_slicer

    with tempfile.TemporaryDirectory() as name:
        studies = Path(name) / "studies"
        studies.mkdir()
        put_samples(studies)
        _put_earlier(studies)
        with _served(studies, args.port) as server, running_slicer(Path(name)) as running:
            photographer = Photographer(running.open_module(), args.out, server, args.corrections)
            photographer.has_training = not args.no_training
            try:
                _score(f"http://{HOST}:{args.port}")
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


def _put_earlier(studies: Path) -> None:
    """Make an earlier study of the same head, a little turned aside: none comes with the packages."""
    import nibabel
    import numpy as np

    brain = nibabel.load(studies / f"{BRAIN}.nii.gz")
    moved = np.roll(np.asarray(brain.dataobj), (3, 2), axis=(0, 1))
    nibabel.save(nibabel.Nifti1Image(moved, brain.affine), studies / f"{_EARLIER}.nii.gz")


def _score(address: str) -> None:
    """Have the server look at its studies, as it does at night, so that it can say why to read one next."""
    requests.post(f"{address}/scoring/radfound", json={"questions": _SCORED}, timeout=60)
    deadline = time.monotonic() + _PATIENCE_S
    while requests.get(f"{address}/scoring/", timeout=60).json()["status"] != "DONE":
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain for the scores")
        time.sleep(1.0)


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
    corrections : int
        Number of corrections to learn from.
    """

    def __init__(self, widget: Any, out: Path, server: subprocess.Popen[bytes], corrections: int):
        self.panel, self.ui = widget.panel, widget.ui
        self.session = widget.panel.session
        self.window = widget.parent
        self.out = out
        self.server = server
        self.corrections = corrections
        self.has_training = True
        self._used_s = 0.0
        self._volume: Any = None

    def take_all(self, address: str, study: Path) -> None:
        """Take every screenshot of the tutorial.

        Parameters
        ----------
        address : str
            The server's.
        study : Path
            Study to load into Slicer.
        """
        steps = [
            ("start", lambda: self._take("start", "server", "study", "ask")),
            ("connect and choose a study", lambda: self._connected(address, study)),
            ("show a prior study beside it", self._beside),
            ("ask, a report", self._answering),
            ("see evidence", self._answered),
            ("correct", self._corrected),
            ("list the studies", self._listed),
            ("ask again", self._from_elsewhere),
            ("dark", self._dark),
        ]
        if self.has_training:
            steps.append(("teach", self._training))
        steps += [("accept a wording", self._wordings), ("lose the server", self._gone)]
        began = self._now()
        for name, step in steps:
            step_began = self._now()
            step()
            self._print(name, step_began)
        self._print("the whole tutorial", began)

    def _now(self) -> tuple[float, float]:
        """Return the time on the clock, and the processor time of this process and the server's, in seconds."""
        used_s = sum(psutil.Process().cpu_times()[:2])
        if self.server.poll() is None:
            own = psutil.Process(self.server.pid)
            for process in (own, *own.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):  # a training that has just ended
                    used_s += sum(process.cpu_times()[:4])  # with that of children that have ended
        self._used_s = max(self._used_s, used_s)
        return time.monotonic(), self._used_s

    def _print(self, what: str, since: tuple[float, float]) -> tuple[float, float]:
        passed, used = (now - before for now, before in zip(self._now(), since, strict=True))
        load, cores = os.getloadavg()[0], os.cpu_count()
        busy = f"load {load:.1f} on {cores} cores"
        print(f"{what}: {passed:.0f} s, {used:.0f} s of processor time ({busy})", flush=True)
        return passed, used

    def _connected(self, address: str, study: Path) -> None:
        import slicer

        volume = slicer.util.loadVolume(str(study), {"name": "MR brain", "show": True})
        slicer.util.getNode("Red").JumpSliceByCentering(0.0, 0.0, 18.0)
        self._volume = volume
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
        self._take("evidence", "evidence", views=_VIEWS)

    def _beside(self) -> None:
        """Show a prior study in a second view, then put the views back."""
        import slicer
        from RadFoundLib.scene import scene

        box, volume = self.ui.priorBox, self.panel.volume
        self._wait(lambda: box.findData(_EARLIER) >= 0, "the list of studies")
        box.currentIndex = box.findData(_EARLIER)
        self.ui.compareButton.click()
        self._wait_until_idle()
        self._take("beside", "study", views=scene.view_names()[:2])
        box.currentIndex = 0
        for view, orientation in zip(_VIEWS, ("Axial", "Sagittal", "Coronal"), strict=True):
            scene.slice_node(view).SetOrientation(orientation)
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            composite.SetLinkedControl(False)
        slicer.util.setSliceViewerLayers(background=volume)

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
        self.ui.whereSentenceButton.click()
        self._wait_until_idle()
        self._take("where", "ask", "evidence", views=_VIEWS)
        self.ui.removeEvidenceButton.click()
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
        self.ui.reportButton.click()
        self._wait(lambda: len(self.panel.conversation.answered()) == 1, "the reader's report")
        self._wait_until_idle()
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
        roles, groups, dark = QtGui.QPalette.ColorRole, QtGui.QPalette.ColorGroup, QtGui.QPalette()
        for role, colour in (
            (roles.Window, "#323232"),
            (roles.Base, "#1e1e1e"),
            (roles.Button, "#464646"),
            (roles.WindowText, "#e8e8e8"),
            (roles.Text, "#e8e8e8"),
            (roles.ButtonText, "#e8e8e8"),
            (roles.PlaceholderText, "#9a9a9a"),
            (roles.ToolTipBase, "#2b2b2b"),
        ):
            dark.setColor(role, QtGui.QColor(colour))
        for role in (roles.WindowText, roles.Text, roles.ButtonText):
            dark.setColor(groups.Disabled, role, QtGui.QColor("#7d7d7d"))
        application.setPalette(dark)
        self.panel.ask_section.follow_theme()
        self._take("dark", "ask")
        application.setPalette(before)
        self.panel.ask_section.follow_theme()

    def _training(self) -> None:
        for question, answer in _MORE[: self.corrections - 2]:
            self._correct(self._ask(question), answer)
        began = self._now()
        self.ui.trainButton.click()
        self._wait(lambda: self.session.is_training, "learning")
        self._wait(lambda: self._is_under_way(), "the first steps")
        self._take("training", "teach")
        self._wait(lambda: not self.session.is_training, "the end of learning")
        seconds, _used_s = self._print(f"learning from {self.corrections} corrections", began)
        print(f"that is {seconds / _ALLOWED_S:.2f} of the {_ALLOWED_S:.0f} s for ten", flush=True)
        self._wait_until_idle()
        self._take("taught", "teach")

    def _correct(self, turn: Any, text: str) -> None:
        self.panel.choose(turn)
        if turn.draft is None:
            self.ui.correctionEdit.plainText = text
        else:
            turn.draft.edit(0, text)
            for index in range(1, len(turn.draft.sentences)):
                turn.draft.strike(index)
            self.panel.tell("draft")
        self.ui.editButton.click()
        self._wait_until_idle()

    def _wordings(self) -> None:
        """Write the captions of two studies in one style, and show the wording that they suggest."""
        for study, text in ((_EARLIER, "MRI, axial"), ("sample_ct_slice", "CT, axial")):
            self._open(study)
            self.ui.captionButton.click()
            turn = self.panel.conversation.turns[-1]
            self._wait(lambda turn=turn: turn.state == "answered", "a caption")
            self._wait_until_idle()
            self._correct(turn, text)
        self._wait(lambda: self.ui.wordingsTable.rowCount > 0, "a proposed wording")
        self._take("wordings", "teach")
        self.ui.acceptWordingButton.click()
        table = self.ui.wordingsTable
        self._wait(
            lambda: any(table.item(row, 0).text() == "in use" for row in range(table.rowCount)),
            "the wording",
        )
        self._wait_until_idle()

    def _open(self, study: str) -> None:
        """Open a study of the day's list."""
        table = self.ui.studiesTable
        rows = [row for row in range(table.rowCount) if table.item(row, 0).text() == study]
        table.selectRow(rows[0])
        self.ui.openStudyButton.click()
        self._wait_until_idle()

    def _is_under_way(self) -> bool:
        status = self.session.training
        return status is not None and (status.step > 0 or status.is_over)

    def _gone(self) -> None:
        self.ui.volumeSelector.setCurrentNode(self._volume)
        self._wait_until_idle()
        _stop(self.server)
        self.ui.captionButton.click()
        self._wait(lambda: self.session.state == "lost", "the loss")
        self._wait(lambda: not self.session.is_busy, "the loss")
        self._correct(self.panel.conversation.answered()[0], "MRI, T1-weighted")
        self._take("gone", "server", "ask", "correct")

    def _take(self, name: str, *sections: str, views: Sequence[str] = ()) -> None:
        """Open only these sections, and save a screenshot of the window, with slice views under the panel."""
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
        for _round in range(2):  # without its scroll bar, the text is laid out anew
            room = _MOST_CHAT_PIXELS - self.ui.chatView.height
            if "ask" in sections and bar.maximum > 0 and room > 0:
                window.resize(_WIDTH, window.height() + min(bar.maximum, room))
                self._settle()
        bar.value = bar.maximum
        self._settle()
        picture = window.grab()
        if views:
            picture = _above_views(picture, views)
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


def _above_views(panel: Any, views: Sequence[str]) -> Any:
    """Return the panel's screenshot with slice views below."""
    from PySide6 import QtGui

    from tests.slicer_extension.standin.mrml import slice_picture

    panel.setDevicePixelRatio(1.0)
    edge = panel.width() // len(views)
    whole = QtGui.QPixmap(panel.width(), panel.height() + edge)
    painter = QtGui.QPainter(whole)
    painter.drawPixmap(0, 0, panel)
    for index, name in enumerate(views):
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
