"""Keep answers and reports: in the scene, on the clipboard, as a file, in the archive."""

from typing import Any

import qt
import slicer

from ..controls.widgets import guarded
from ..net.errors import ClientError
from ..scene import scene
from ..session.conversation import Conversation
from ..translation import _
from .render import conversation_text, print_html, task_words, turn_text


class KeepSection:
    """Save, keep, copy, export and send what was written about the study."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        ui = self._ui
        ui.saveButton.connect("clicked()", guarded(self._save))
        ui.keepButton.connect("clicked()", guarded(self._keep))
        ui.copyButton.connect("clicked()", guarded(self._copy))
        ui.exportButton.connect("clicked()", guarded(self._export))
        ui.archiveButton.connect("clicked()", guarded(self._send))
        ui.saveButton.setIcon(panel.icon("save"))

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic == "study":
            self._restore()
        if topic in ("turn", "study", "server", "chosen"):
            self._enable()

    def _enable(self) -> None:
        ui = self._ui
        has_answer = bool(self._panel.conversation.answered())
        ui.saveButton.enabled = ui.copyButton.enabled = ui.exportButton.enabled = has_answer
        ui.keepButton.enabled = has_answer
        ui.archiveButton.visible = self._session.can_write_archive
        turn = self._panel.turn
        ui.archiveButton.enabled = (
            turn is not None and turn.task == "report" and self._session.state == "connected"
        )

    def _say(self, text: str) -> None:
        self._panel.ask_section.say(text)

    def _save(self) -> None:
        turn = self._panel.turn
        if turn is None:
            return
        title = turn.question or task_words(turn.task)
        scene.save_text(
            self._panel.volume, f"RadFound: {title}", turn_text(turn), turn.answer["id"]
        )
        self._say(_("Saved under the volume in the module Data: {title}").format(title=title))

    def _keep(self) -> None:
        scene.save_conversation(self._panel.volume, self._panel.conversation.to_text())
        self._say(_("The conversation is kept with the scene: save the scene to a file."))

    def _restore(self) -> None:
        """Show the conversation that was kept with a scene, unless there is one already."""
        volume = self._panel.volume
        node = scene.conversation_node(volume) if volume is not None else None
        if node is None or self._panel.conversation.turns:
            return
        try:
            kept = Conversation.from_text(node.GetText() or "")
        except ValueError:
            self._say(_("The conversation of this scene was kept by another version."))
            return
        self._session.restore(self._panel.key, kept)

    def _copy(self) -> None:
        turn = self._panel.turn
        if turn is not None:
            slicer.app.clipboard().setText(turn_text(turn))
            self._say(_("Copied."))

    def _export(self) -> None:
        name = scene.file_name_for(self._panel.volume, "radfound.pdf")
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(),
            _("Export the conversation"),
            name,
            _("PDF (*.pdf);;Text (*.txt)"),
        )
        if not path:
            return
        turns = self._panel.conversation.answered()
        try:
            if path.lower().endswith(".pdf"):
                _check_writable(path)
                _print(print_html(turns, self._panel.volume.GetName()), path)
            else:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(conversation_text(turns))
        except OSError as error:
            self._say(_("This file cannot be written ({why}).").format(why=error.strerror))
        else:
            self._say(_("Exported."))

    def _send(self) -> None:
        turn = self._panel.turn
        if turn is None:
            return
        try:
            self._session.send_to_archive(turn, self._say)
        except ClientError as error:
            self._say(error.message)


def _check_writable(path: str) -> None:
    """Raise OSError if a file cannot be written; Qt would not say so."""
    with open(path, "wb"):
        pass


def _print(html: str, path: str) -> None:
    """Write HTML as a PDF by Qt."""
    printer = qt.QPrinter()
    printer.setOutputFormat(qt.QPrinter.PdfFormat)
    printer.setOutputFileName(path)
    document = qt.QTextDocument()
    document.setHtml(html)
    document.print_(printer)
