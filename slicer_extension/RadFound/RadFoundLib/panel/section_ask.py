"""The conversation about the study."""

from typing import Any, Optional

import qt
import slicer

from ..net.errors import ClientError
from ..scene import scene
from ..session.settings import default_prompts
from ..translation import _
from .render import (
    Palette,
    conversation_html,
    conversation_text,
    hint_html,
    size_words,
    task_words,
    turn_text,
)
from .widgets import show


class AskSection:
    """Questions, captions and reports, with streamed answers."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        self._waiting: Optional[tuple] = None  # for consent
        self._shown = 0  # characters of the open turn
        ui = self._ui
        self._palette = Palette.dark() if _is_dark() else Palette()
        ui.askButton.connect("clicked()", self._ask)
        ui.questionEdit.connect("returnPressed()", self._ask)
        ui.questionEdit.connect("textChanged(QString)", lambda _text: self._enable())
        ui.stopButton.connect("clicked()", self._stop)
        ui.captionButton.connect("clicked()", lambda: self._begin("caption"))
        ui.reportButton.connect("clicked()", lambda: self._begin("report"))
        ui.agreeButton.connect("clicked()", self._agree)
        ui.notNowButton.connect("clicked()", self._not_now)
        ui.chatView.connect("anchorClicked(QUrl)", self._on_link)
        ui.promptsBox.connect("activated(int)", self._on_prompt)
        ui.editPromptsButton.connect("toggled(bool)", self._on_edit_prompts)
        ui.defaultPromptsButton.connect("clicked()", self._reset_prompts)
        ui.saveButton.connect("clicked()", self._save)
        ui.copyButton.connect("clicked()", self._copy)
        ui.exportButton.connect("clicked()", self._export)
        ui.clearButton.connect("clicked()", self._clear)
        for button, icon in (("askButton", "ask"), ("stopButton", "stop"), ("saveButton", "save")):
            getattr(ui, button).setIcon(panel.icon(icon))
        self._escape = qt.QShortcut(qt.QKeySequence("Esc"), ui.askSection)
        self._escape.connect("activated()", self._stop)
        self._fill_prompts()
        show(False, ui.promptsPanel, ui.consentBanner, ui.progressRow, ui.askMessage)

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic in ("turn", "study") or (topic == "server" and not self._has_turns):
            self._show_conversation()
        if topic in ("turn", "study", "server", "sending"):
            self._show_progress()
            self._enable()

    @property
    def _has_turns(self) -> bool:
        return bool(self._panel.conversation.turns)

    # Asking -----------------------------------------------------------------------------------

    def _ask(self) -> None:
        question = self._ui.questionEdit.text.strip()
        if question and self._ui.askButton.enabled:
            self._begin("vqa", question)

    def _begin(self, task: str, question: Optional[str] = None) -> None:
        session = self._session
        self._say("")
        try:
            study = self._panel.study()
            if study.must_be_sent and not session.has_consent and session.address:
                self._ask_for_consent(task, question)
                return
            session.ask(study, task, question, self._ui.contextBox.checked)
        except ClientError as error:
            self._say(error.message)
            return
        if task == "vqa":
            self._ui.questionEdit.clear()

    def _stop(self) -> None:
        self._session.stop()

    def _ask_for_consent(self, task: str, question: Optional[str]) -> None:
        self._waiting = (task, question)
        session = self._session
        text = _(
            "To answer, {address} needs the image. Its voxels and geometry are sent and kept "
            "there; its name and the DICOM header stay here. Send images to this server, now and "
            "later?"
        ).format(address=session.address)
        if not session.client.is_private:
            text += " " + _("The connection is not encrypted.")
        self._ui.consentText.text = text
        show(True, self._ui.consentBanner)
        self._ui.agreeButton.setFocus()

    def _agree(self) -> None:
        waiting, self._waiting = self._waiting, None
        show(False, self._ui.consentBanner)
        self._panel.server.give_consent()
        if waiting is not None:
            self._begin(*waiting)

    def _not_now(self) -> None:
        self._waiting = None
        show(False, self._ui.consentBanner)
        self._say(_("Nothing was sent."))

    def _enable(self) -> None:
        ui, session = self._ui, self._session
        is_asking = session.is_busy
        is_possible = (
            session.state not in ("away", "connecting", "refused")
            and self._panel.volume is not None
            and not is_asking
        )
        ui.askButton.enabled = is_possible and bool(ui.questionEdit.text.strip())
        ui.captionButton.enabled = ui.reportButton.enabled = is_possible
        ui.promptsBox.enabled = is_possible
        show(is_asking, ui.stopButton)
        show(not is_asking, ui.askButton)
        self._escape.enabled = is_asking
        has_answer = bool(self._panel.conversation.answered())
        ui.saveButton.enabled = ui.copyButton.enabled = ui.exportButton.enabled = has_answer
        ui.clearButton.enabled = self._has_turns and not is_asking

    def _hint(self) -> str:
        if self._session.state in ("away", "connecting", "refused"):
            return _("Connect to a server, in the section Server above.")
        if self._panel.volume is None:
            return _(
                "Load a volume, or let the server choose the next study, in the section Study."
            )
        return _("Ask about the volume, or let RadFound write a caption or a report.")

    # The conversation -------------------------------------------------------------------------

    def show_new_text(self) -> None:
        """Append the new text of the open answer; the cost does not depend on its length."""
        turn = self._session.turn
        if turn is None or turn.state != "answering" or turn not in self._panel.conversation.turns:
            return
        if not self._shown:
            self._shown = len(turn.text)
            self._show_conversation()
            self._show_progress()
        elif len(turn.text) > self._shown:
            view = self._ui.chatView
            bar = view.verticalScrollBar()
            is_at_end = bar.value >= bar.maximum - 8
            place = bar.value
            view.moveCursor(qt.QTextCursor.End)
            view.insertPlainText(turn.text[self._shown :])
            self._shown = len(turn.text)
            bar.value = bar.maximum if is_at_end else place

    def _show_conversation(self) -> None:
        turns = self._panel.conversation.turns
        is_answering = any(turn.state == "answering" for turn in turns)
        if not is_answering:
            self._shown = 0
        view = self._ui.chatView
        view.html = (
            conversation_html(turns, self._palette)
            if turns
            else hint_html(self._hint(), self._palette)
        )
        bar = view.verticalScrollBar()
        bar.value = bar.maximum

    def _show_progress(self) -> None:
        ui, session = self._ui, self._session
        sending, turn = session.sending, session.turn
        show(session.is_busy, ui.progressRow)
        ui.progressBar.maximum = 0
        if sending is not None and sending.total > 0:
            ui.progressBar.maximum = 1000
            ui.progressBar.value = 1000 * sending.done // sending.total
            ui.progressText.text = _("Sending {done} of {total}").format(
                done=size_words(sending.done), total=size_words(sending.total)
            )
        elif sending is not None:
            ui.progressText.text = _("Preparing the volume")
        elif turn is not None and turn.state == "answering":
            ui.progressText.text = _("Answering")
        else:
            ui.progressText.text = _("Waiting for the server")

    def _on_link(self, url: Any) -> None:
        action, _colon, turn_id = url.toString().partition(":")
        turn = self._panel.conversation.find(turn_id)
        if turn is not None and turn.answer is not None:
            self._panel.choose(turn)
            self._panel.correct.act(action)

    def _clear(self) -> None:
        self._session.forget(self._panel.key)
        self._say("")

    def _say(self, text: str) -> None:
        self._ui.askMessage.text = text
        show(bool(text), self._ui.askMessage)

    # Quick prompts ----------------------------------------------------------------------------

    def _fill_prompts(self) -> None:
        box = self._ui.promptsBox
        box.clear()
        box.addItem(_("Quick questions"))
        box.addItems(self._panel.settings.prompts())

    def _on_prompt(self, index: int) -> None:
        question = self._ui.promptsBox.itemText(index)
        self._ui.promptsBox.currentIndex = 0
        if index > 0:
            self._begin("vqa", question)

    def _on_edit_prompts(self, is_open: bool) -> None:
        ui, settings = self._ui, self._panel.settings
        show(is_open, ui.promptsPanel)
        ui.editPromptsButton.text = _("Done") if is_open else _("Edit list")
        if is_open:
            ui.promptsEdit.plainText = "\n".join(settings.prompts())
        else:
            lines = [line.strip() for line in ui.promptsEdit.plainText.split("\n")]
            settings.set_prompts([line for line in lines if line])
            self._fill_prompts()

    def _reset_prompts(self) -> None:
        self._ui.promptsEdit.plainText = "\n".join(default_prompts())

    # Keeping ----------------------------------------------------------------------------------

    def _save(self) -> None:
        turn = self._panel.turn
        if turn is None:
            return
        title = turn.question or task_words(turn.task)
        scene.save_text(
            self._panel.volume, f"RadFound: {title}", turn_text(turn), turn.answer["id"]
        )
        self._say(_("Saved under the volume in the module Data: {title}").format(title=title))

    def _copy(self) -> None:
        turn = self._panel.turn
        if turn is not None:
            slicer.app.clipboard().setText(turn_text(turn))
            self._say(_("Copied."))

    def _export(self) -> None:
        name = scene.file_name_for(self._panel.volume, "radfound.txt")
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Export the conversation"), name, _("Text (*.txt)")
        )
        if not path:
            return
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(conversation_text(self._panel.conversation.answered()))
        except OSError as error:
            self._say(_("This file cannot be written ({why}).").format(why=error.strerror))
        else:
            self._say(_("Exported."))


def _is_dark() -> bool:
    return bool(slicer.app.palette().color(qt.QPalette.Window).lightness() < 128)
