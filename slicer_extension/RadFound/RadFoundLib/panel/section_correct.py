"""The section Correct: the reader's verdict on an answer."""

from typing import Any

import qt
import slicer

from ..net.errors import ClientError
from ..scene import scene
from ..translation import _
from .render import task_words, verdict_words
from .widgets import chosen_in, fill, show

_TITLE_CHARS = 60
_TABLE_PIXELS = 150  # maximum height; a longer table scrolls


class CorrectSection:
    """Accept, edit or reject an answer; list earlier and unsent corrections."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        ui = self._ui
        ui.whereSelector.setMRMLScene(slicer.mrmlScene)
        ui.authorEdit.text = panel.settings.author()
        ui.answerBox.connect("currentIndexChanged(int)", self._on_answer)
        ui.authorEdit.connect("editingFinished()", self._on_author)
        ui.correctionEdit.connect("textChanged()", self._enable)
        for name in ("accept", "edit", "reject"):
            button = getattr(ui, name + "Button")
            button.connect("clicked()", lambda name=name: self._judge(name))
            button.setIcon(panel.icon(name))
        ui.whereSelector.connect("nodeAddedByUser(vtkMRMLNode*)", panel.place_roi)
        ui.sendButton.connect("clicked()", lambda: self._session.flush(again=True))
        table = ui.correctionsTable
        table.columnCount = 3
        table.setHorizontalHeaderLabels([_("Verdict"), _("Question and text"), _("Author")])
        table.verticalHeader().hide()
        table.horizontalHeader().setStretchLastSection(False)
        table.horizontalHeader().setSectionResizeMode(1, qt.QHeaderView.Stretch)
        self._say("")

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic in ("turn", "study"):
            self._fill_answers()
        if topic in ("chosen", "study"):
            self._show_chosen()
        if topic in ("corrections", "server"):
            self._show_waiting()
        if topic in ("corrections", "study"):
            self._show_earlier()
        if topic in ("turn", "chosen", "server", "study"):
            self._enable()

    def act(self, action: str) -> None:
        """Accept, edit or reject the chosen answer; called by the links under an answer."""
        if action == "edit" or not self._ui.authorEdit.text.strip():
            self._ui.correctSection.collapsed = False
        if action == "edit":
            self._ui.correctionEdit.setFocus()
            self._ui.correctionEdit.selectAll()
        elif action in ("accept", "reject"):
            self._judge(action)

    # The chosen answer ------------------------------------------------------------------------

    def _fill_answers(self) -> None:
        items = [(_title(turn), turn.id) for turn in reversed(self._panel.conversation.answered())]
        chosen = self._panel.turn.id if self._panel.turn is not None else ""
        fill(self._ui.answerBox, items, chosen)
        show(bool(items), self._ui.answerLabel, self._ui.answerBox)

    def _on_answer(self, _index: int) -> None:
        self._panel.choose(self._panel.conversation.find(chosen_in(self._ui.answerBox) or ""))

    def _show_chosen(self) -> None:
        ui, turn = self._ui, self._panel.turn
        ui.correctionEdit.plainText = turn.final_text if turn is not None else ""
        if turn is not None:
            index = ui.answerBox.findData(turn.id)
            if index >= 0:
                blocked = ui.answerBox.blockSignals(True)
                ui.answerBox.currentIndex = index
                ui.answerBox.blockSignals(blocked)
        self._say("")

    def _enable(self) -> None:
        ui, turn = self._ui, self._panel.turn
        is_open = turn is not None
        text = ui.correctionEdit.plainText.strip()
        is_edited = is_open and text not in ("", turn.text.strip())
        is_saved = is_open and turn.verdict == "edited" and text == turn.correction
        ui.correctionEdit.enabled = ui.whereSelector.enabled = is_open
        # Do not offer the verdict that the answer already has.
        ui.acceptButton.enabled = (
            is_open and bool(turn.text.strip()) and not is_edited and turn.verdict != "accepted"
        )
        ui.editButton.enabled = is_edited and not is_saved
        ui.rejectButton.enabled = is_open and turn.verdict != "rejected"
        show(is_open, ui.whereLabel, ui.whereSelector)

    def _judge(self, action: str) -> None:
        ui, turn = self._ui, self._panel.turn
        if turn is None:
            return
        verdict = {"accept": "accepted", "edit": "edited", "reject": "rejected"}[action]
        text = ui.correctionEdit.plainText.strip()
        if verdict == "rejected" and text == turn.text.strip():
            text = ""
        roi, volume = ui.whereSelector.currentNode(), self._panel.volume
        try:
            region = scene.roi_region(volume, roi) if roi is not None else None
            correction = self._session.judge(turn, verdict, ui.authorEdit.text, text, region)
        except ClientError as error:
            ui.correctSection.collapsed = False
            self._say(error.message)
            if not ui.authorEdit.text.strip():
                ui.authorEdit.setFocus()
            return
        self._on_author()
        message = _("Noted: {verdict}.").format(verdict=verdict_words(verdict))
        if roi is not None:
            scene.mark_correction(volume, roi, correction)
            ui.whereSelector.setCurrentNode(None)
            message += " " + _("{region} stays in this scene, under the volume.").format(
                region=roi.GetName()
            )
        self._say(message)

    def _on_author(self) -> None:
        self._panel.settings.set_author(self._ui.authorEdit.text.strip())

    def _say(self, text: str) -> None:
        self._ui.correctMessage.text = text
        show(bool(text), self._ui.correctMessage)

    # Recorded and unsent corrections ----------------------------------------------------------

    def _show_waiting(self) -> None:
        ui, session = self._ui, self._session
        waiting = session.outbox.waiting()
        here = [row for row in waiting if row.server == session.address]
        refused = [row for row in here if row.refusal is not None]
        texts = []
        if refused:
            texts.append(
                _("The server refuses {count}: {why}").format(
                    count=len(refused), why=refused[-1].refusal
                )
            )
        if len(here) > len(refused):
            texts.append(
                _("{count} not sent yet; kept on this computer until the server is back.").format(
                    count=len(here) - len(refused)
                )
            )
        if len(waiting) > len(here):
            texts.append(
                _("{count} wait for another server.").format(count=len(waiting) - len(here))
            )
        ui.waitingText.text = " ".join(texts)
        show(bool(texts), ui.waitingText)
        show(bool(here) and session.state == "connected", ui.sendButton)

    def _show_earlier(self) -> None:
        ui, rows = self._ui, self._session.corrections_here()
        if self._panel.volume is None:
            text = _("Choose a volume to see its earlier corrections.")
        elif rows:
            text = _("Earlier corrections of this study: {count}").format(count=len(rows))
        else:
            text = _("Earlier corrections of this study: none known.")
        ui.correctionsLabel.text = text
        table = ui.correctionsTable
        show(bool(rows), table)
        table.rowCount = len(rows)
        for index, row in enumerate(rows):
            asked = row.get("question") or task_words(str(row.get("task")))
            answer = row.get("text") or row.get("model_text") or ""
            words = verdict_words(str(row.get("verdict", "")))
            for column, text in enumerate(
                (words, f"{asked} → {answer}", str(row.get("author", "")))
            ):
                table.setItem(index, column, qt.QTableWidgetItem(text))
        table.resizeColumnToContents(0)
        table.resizeColumnToContents(2)
        table.resizeRowsToContents()
        rows_height = table.horizontalHeader().height + table.verticalHeader().length()
        table.maximumHeight = min(_TABLE_PIXELS, rows_height + 2 * table.frameWidth)


def _title(turn: Any) -> str:
    title = turn.question or task_words(turn.task)
    if len(title) > _TITLE_CHARS:
        title = title[: _TITLE_CHARS - 1] + "…"
    return f"{title} ({verdict_words(turn.verdict)})" if turn.verdict else title
