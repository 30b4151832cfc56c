"""The reader's verdict on an answer, in place under the conversation; and the list of corrections."""

from typing import Any, Optional

import slicer

from ..controls.tables import Table
from ..controls.widgets import chosen_in, fill, guarded, limit_lines, show
from ..net.errors import ClientError
from ..scene import places, scene
from ..translation import _
from .render import effect_words, task_words, verdict_words

_TITLE_CHARS = 60
_TABLE_LINES = 9  # maximum height; a longer table scrolls


class CorrectSection:
    """Accept, edit or reject an answer; list earlier and unsent corrections."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        self._noted = ""  # what was noted last about the chosen answer
        ui = self._ui
        ui.whereSelector.setMRMLScene(slicer.mrmlScene)
        ui.authorEdit.text = panel.settings.author()
        ui.answerBox.connect("currentIndexChanged(int)", guarded(self._on_answer))
        ui.authorEdit.connect("editingFinished()", guarded(self._on_author))
        ui.correctionEdit.connect("textChanged()", guarded(self._on_text))
        for name in ("accept", "edit", "reject"):
            button = getattr(ui, name + "Button")
            button.connect("clicked()", guarded(lambda name=name: self._judge(name)))
            button.setIcon(panel.icon(name))
        ui.acceptNextButton.connect("clicked()", guarded(self._judge_and_go_on))
        ui.whereSelector.connect("nodeAddedByUser(vtkMRMLNode*)", guarded(panel.place_roi))
        ui.whereSelector.connect("currentNodeChanged(vtkMRMLNode*)", guarded(self._on_where))
        ui.takeBackButton.connect("clicked()", guarded(self._take_back_chosen))
        ui.sendButton.connect("clicked()", guarded(lambda: self._session.flush(again=True)))
        titles = [_("Verdict"), _("Question and text"), _("Author")]
        self._table = Table(ui.correctionsTable, titles, (1,), _TABLE_LINES)
        ui.correctionsTable.connect("itemSelectionChanged()", guarded(self._enable))
        limit_lines(ui.correctionEdit, 3, 5)
        self._on_where()
        self._say("")

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic in ("turn", "study"):
            self._fill_answers()
        if topic in ("chosen", "study"):
            self._show_chosen()
        if topic == "study":
            self._on_where()
        if topic == "effect":
            self._show_effect()
        if topic in ("corrections", "server"):
            self._show_waiting()
        if topic in ("corrections", "study"):
            self._show_earlier()
        if topic in ("turn", "chosen", "server", "study", "draft"):
            self._enable()

    def act(self, action: str) -> None:
        """Accept, edit or reject the chosen answer; called by links and keys."""
        if action == "edit":
            edit = self._ui.sentenceList if self._has_draft else self._ui.correctionEdit
            edit.setFocus()
            if not self._has_draft:
                self._ui.correctionEdit.selectAll()
        elif action in ("accept", "reject"):
            self._judge(action)
        elif action == "takeback" and self._panel.turn is not None:
            self._take_back(self._panel.turn.correction_id)

    # The chosen answer ------------------------------------------------------------------------

    @property
    def _has_draft(self) -> bool:
        turn = self._panel.turn
        return turn is not None and turn.draft is not None

    def _text(self) -> str:
        """Return the reader's text of the chosen answer."""
        if self._has_draft:
            return str(self._panel.turn.draft.text())
        return str(self._ui.correctionEdit.plainText.strip())

    def _is_edited(self) -> bool:
        turn = self._panel.turn
        if turn is None or not self._text():
            return False
        return turn.draft.is_changed if self._has_draft else self._text() != turn.text.strip()

    def _fill_answers(self) -> None:
        items = [(_title(turn), turn.id) for turn in reversed(self._panel.conversation.answered())]
        chosen = self._panel.turn.id if self._panel.turn is not None else ""
        fill(self._ui.answerBox, items, chosen)
        show(len(items) > 1, self._ui.answerLabel, self._ui.answerBox)

    def _on_text(self) -> None:
        """Keep what is typed with its answer, which may stop being the chosen one at any time."""
        turn, text = self._panel.turn, self._text()
        if turn is not None and not self._has_draft:
            shown = "" if turn.is_silent else turn.final_text.strip()
            turn.typed = text if text and text != shown else None
        self._enable()

    def _on_answer(self, _index: int) -> None:
        self._panel.choose(self._panel.conversation.find(chosen_in(self._ui.answerBox) or ""))

    def _show_chosen(self) -> None:
        ui, turn = self._ui, self._panel.turn
        is_answered = turn is not None and not turn.is_silent
        text = turn.final_text if is_answered else ""
        if turn is not None and turn.typed is not None:
            text = turn.typed
        if ui.correctionEdit.plainText != text:
            blocked = ui.correctionEdit.blockSignals(True)
            ui.correctionEdit.plainText = text
            ui.correctionEdit.blockSignals(blocked)
        ui.correctionEdit.placeholderText = (
            _("Accept the answer, reject it, or edit its text here.")
            if is_answered
            else _("Write the answer here, if you can tell it.")
        )
        if turn is not None:
            index = ui.answerBox.findData(turn.id)
            if index >= 0:
                blocked = ui.answerBox.blockSignals(True)
                ui.answerBox.currentIndex = index
                ui.answerBox.blockSignals(blocked)
        self._noted = ""
        self._say("")

    def _enable(self) -> None:
        ui, turn = self._ui, self._panel.turn
        is_open = turn is not None
        is_folded = is_open and self._panel.is_folded(turn)
        is_edited = is_open and self._is_edited()
        is_saved = is_open and turn.verdict == "edited" and self._text() == turn.correction
        show(is_open, ui.answerPanel)
        show(is_open and not is_folded and not self._has_draft, ui.correctionEdit)
        ui.whereSelector.enabled = is_open
        # Do not offer the verdict that the answer already has, nor one on a text not yet read.
        can_accept = is_open and bool(turn.text.strip()) and not is_edited and not is_folded
        can_accept = can_accept and not turn.is_silent
        ui.acceptButton.enabled = can_accept and turn.verdict != "accepted"
        ui.editButton.enabled = is_edited and not is_saved and not is_folded
        ui.rejectButton.enabled = is_open and turn.verdict != "rejected" and not turn.is_silent
        ui.takeBackButton.enabled = self._table.chosen is not None
        can_go_on = self._session.state == "connected" and not self._session.is_busy
        ui.acceptNextButton.enabled = can_go_on and (can_accept or is_edited) and not is_folded
        if is_folded:
            self._say(_("The model is not sure: show its answer, then judge it."))

    def _judge_and_go_on(self) -> None:
        turn = self._panel.turn
        is_done = turn is not None and turn.verdict is not None
        if is_done and not self._ui.editButton.enabled:
            self._take_next()
        elif self._judge("edit" if self._is_edited() else "accept"):
            self._take_next()

    def _take_next(self) -> None:
        self._panel.study_section.take_next()
        # The focus would fall on the next widget, where a key for sentences might choose something.
        self._ui.questionEdit.setFocus()

    def _judge(self, action: str) -> bool:
        """Record a verdict; return False, with the reason shown, if it is not recorded."""
        ui, turn = self._ui, self._panel.turn
        if turn is None:
            return False
        verdict = {"accept": "accepted", "edit": "edited", "reject": "rejected"}[action]
        text = self._text()
        if verdict == "rejected" and not self._is_edited():
            text = ""
        node, volume = ui.whereSelector.currentNode(), self._panel.volume
        try:
            region = self._region(volume, node)
            correction = self._session.judge(turn, verdict, ui.authorEdit.text, text, region)
        except ClientError as error:
            self._say(error.message)
            if not ui.authorEdit.text.strip():
                ui.authorEdit.setFocus()
            return False
        self._on_author()
        message = _("Noted: {verdict}.").format(verdict=verdict_words(verdict))
        if node is not None:
            if not places.is_segmentation(node):
                scene.mark_correction(volume, node, correction)
                message += " " + _("{region} stays in this scene, under the volume.").format(
                    region=node.GetName()
                )
            ui.whereSelector.setCurrentNode(None)
        self._noted = message
        self._say(message)
        return True

    def _show_effect(self) -> None:
        """Add what the newest correction changes to the note about it."""
        turn, effect = self._panel.turn, self._session.effect
        if turn is not None and turn.correction_id and effect["correction"] == turn.correction_id:
            self._say(f"{self._noted} {effect_words(effect)}".strip())

    def _take_back_chosen(self) -> None:
        if self._table.chosen is not None:
            self._take_back(str(self._table.chosen))

    def _take_back(self, correction: str) -> None:
        def done(words: str) -> None:
            self._show_chosen()
            self._panel.ask_section.say(words)

        try:
            self._session.take_back(correction, self._ui.authorEdit.text, done)
        except ClientError as error:
            self._panel.ask_section.say(error.message)

    def _on_author(self) -> None:
        self._panel.settings.set_author(self._ui.authorEdit.text.strip())

    def _say(self, text: str) -> None:
        self._ui.correctMessage.text = text
        show(bool(text), self._ui.correctMessage)

    # Where ------------------------------------------------------------------------------------

    def _region(self, volume: Any, node: Any) -> Optional[dict]:
        if node is not None:
            return places.region_of(volume, node, chosen_in(self._ui.whereSegmentBox))
        view = chosen_in(self._ui.whereSliceBox)
        if not view:
            return None
        slice_node = scene.slice_node(view)
        if slice_node is None:
            raise ClientError(
                _("The {view} view is not open: choose another one.").format(view=view), "request"
            )
        return scene.slice_region(volume, slice_node)

    def _on_where(self, _node: Any = None) -> None:
        ui, node = self._ui, self._ui.whereSelector.currentNode()
        segments = places.segments_of(node)
        fill(ui.whereSegmentBox, segments, chosen_in(ui.whereSegmentBox))
        views = [(_("No slice"), "")]
        views += [
            (_("Current slice: {view}").format(view=view), view) for view in scene.view_names()
        ]
        fill(ui.whereSliceBox, views, chosen_in(ui.whereSliceBox) or "")
        show(bool(segments), ui.whereSegmentBox)
        show(node is None, ui.whereSliceBox)

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
        count = len(waiting)
        ui.correctSection.text = (
            _("Corrections: {count} not sent").format(count=count) if count else _("Corrections")
        )

    def _show_earlier(self) -> None:
        ui, rows = self._ui, self._session.corrections_here()
        if self._panel.volume is None:
            text = _("Choose a volume to see its earlier corrections.")
        elif rows:
            text = _("Earlier corrections of this study: {count}").format(count=len(rows))
        else:
            text = _("Earlier corrections of this study: none known.")
        ui.correctionsLabel.text = text
        show(bool(rows), ui.correctionsTable, ui.takeBackButton)
        self._table.fill([(str(row["id"]), _cells(row)) for row in rows])
        self._enable()


def _cells(row: dict) -> tuple:
    asked = row.get("question") or task_words(str(row.get("task")))
    answer = row.get("text") or row.get("model_text") or ""
    words = verdict_words(str(row.get("verdict", "")))
    return words, f"{asked} → {answer}", str(row.get("author", ""))


def _title(turn: Any) -> str:
    title = turn.question or task_words(turn.task)
    if len(title) > _TITLE_CHARS:
        title = title[: _TITLE_CHARS - 1] + "…"
    state = _("not saved") if turn.is_unsaved else verdict_words(turn.verdict or "")
    return f"{title} ({state})" if state else title
