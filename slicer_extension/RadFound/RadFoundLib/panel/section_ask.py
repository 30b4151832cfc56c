"""The conversation about the study."""

from dataclasses import replace
from typing import Any, Optional

import qt
import slicer

from ..controls.widgets import chosen_in, fill, guarded, limit_lines, show
from ..net.errors import ClientError
from ..scene.known import known_about
from ..session.conversation import Conversation, Turn
from ..session.settings import default_prompts
from ..session.template import Template
from ..translation import _
from .render import (
    EARLIER,
    Palette,
    conversation_html,
    hint_html,
    short_name,
    size_words,
    title_words,
)

_FOLD_PERCENT = (30, 40, 50, 60, 70, 80, 90)
# The tick for each thing that may be sent with a question.
_TICKS = {
    "modality": "modalityKnownBox",
    "bodyPart": "bodyPartKnownBox",
    "age": "ageKnownBox",
    "sex": "sexKnownBox",
    "window": "windowKnownBox",
}


class AskSection:
    """Questions, captions and reports, with streamed answers."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        self._waiting: Optional[tuple] = None  # for consent: the server, the study, the request
        self._cleared: Optional[tuple] = None  # a study and its conversation, to bring back
        self._left: Optional[Conversation] = None  # about the study that was chosen before
        self._shown = 0  # characters of the open turn
        self._is_whole = False  # whether also the earliest answers are shown
        self._about = self._name = ""  # id and name of the volume that questions are about
        ui = self._ui
        self._palette = Palette.dark() if _is_dark() else Palette()
        self._templates: list = []
        self._templates_of = ""
        self._known: dict = {}
        self._known_of: Optional[str] = None
        ui.askButton.connect("clicked()", guarded(self._ask))
        ui.questionEdit.connect("returnPressed()", guarded(self._ask))
        ui.questionEdit.connect("textChanged(QString)", guarded(lambda _text: self._enable()))
        ui.stopButton.connect("clicked()", guarded(self._stop))
        ui.captionButton.connect("clicked()", guarded(lambda: self._begin("caption")))
        ui.reportButton.connect("clicked()", guarded(lambda: self._begin("report")))
        ui.agreeButton.connect("clicked()", guarded(self._agree))
        ui.notNowButton.connect("clicked()", guarded(self._not_now))
        ui.chatView.connect("anchorClicked(QUrl)", guarded(self._on_link))
        ui.promptsBox.connect("activated(int)", guarded(self._on_prompt))
        ui.editPromptsButton.connect("toggled(bool)", guarded(self._on_edit_prompts))
        ui.defaultPromptsButton.connect("clicked()", guarded(self._reset_prompts))
        ui.clearButton.connect("clicked()", guarded(self._clear))
        ui.secondButton.connect("clicked()", guarded(self._second_opinion))
        ui.templateBox.connect("activated(int)", guarded(self._on_template))
        ui.askButton.setIcon(panel.icon("ask"))
        ui.stopButton.setIcon(panel.icon("stop"))
        self._escape = qt.QShortcut(qt.QKeySequence("Esc"), ui.askSection)
        self._escape.connect("activated()", guarded(self._stop))
        self._fill_prompts()
        self._fill_templates([])
        levels = [(_("never"), 0.0)]
        levels += [(_("below {percent} %").format(percent=p), p / 100) for p in _FOLD_PERCENT]
        fill(ui.foldBox, levels, panel.settings.fold_below())
        limit_lines(ui.promptsEdit, 3, 6)
        limit_lines(ui.shortcutsEdit, 3, 6)
        ui.foldBox.connect("currentIndexChanged(int)", guarded(self._on_fold))
        show(False, ui.promptsPanel, ui.consentBanner, ui.progressRow, ui.askMessage)

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic in ("server", "study"):
            self._withdraw_request()
        if topic == "study":
            self._is_whole = False
            self._name_study()
            self.show_known()
        if topic == "server":
            self._look_for_templates()
        if topic in ("turn", "study") or (topic == "server" and not self._has_turns):
            self._show_conversation()
        if topic in ("turn", "study", "server", "transfer", "chosen"):
            self._show_progress()
            self._enable()

    def _name_study(self) -> None:
        """Say which volume questions are about; a message if it has changed."""
        volume, left = self._panel.volume, self._left
        before, self._about = self._about, volume.GetID() if volume is not None else ""
        self._left = self._panel.conversation
        if volume is None:
            self._cleared = None  # the next scene may give the same id to another volume
            self._ui.askSection.text = _("Ask")
            return
        name_before, self._name = self._name, short_name(volume.GetName())
        title = _("Ask about {volume}").format(volume=self._name)
        self._ui.askSection.text = title_words(title)
        if before and before != self._about:
            words = _("Questions are now about {volume}.").format(volume=self._name)
            if left is not None and left.has_unsaved:
                words += " " + _("An edit of {volume} is not saved; it is kept there.").format(
                    volume=name_before
                )
            self.say(words)

    @property
    def _has_turns(self) -> bool:
        return bool(self._panel.conversation.turns)

    # Asking -----------------------------------------------------------------------------------

    def _ask(self) -> None:
        question = self._ui.questionEdit.text.strip()
        if question and self._ui.askButton.enabled:
            self._begin("vqa", question)

    def _begin(
        self, task: str, question: Optional[str] = None, template: Optional[Template] = None
    ) -> None:
        session = self._session
        self.say("")
        try:
            study = self._panel.study()
            if study.must_be_sent and not session.has_consent and session.address:
                self._ask_for_consent(task, question, template)
                return
            model = self._panel.server.model
            if template is not None:
                session.fill_template(study, template, model)
            else:
                with_history = self._ui.contextBox.checked
                session.ask(study, task, question, with_history, model, self._allowed())
        except ClientError as error:
            self.say(error.message)
            return
        if task == "vqa":
            self._ui.questionEdit.clear()

    def _ask_itself(self, turn: Turn) -> None:
        """Ask the model the question of an answer that is a reader's earlier text."""
        model = str(turn.answer["model"]["name"]) if turn.answer and self._session.models else None
        self._ask_again(turn, model, recall=False)

    def _replace(self, failed: Turn) -> None:
        """Ask the question of a failed or stopped answer once more, in its place."""
        turns = self._panel.conversation.turns
        count = len(turns)
        self._begin(failed.task, failed.question)
        if len(turns) > count:
            turns.remove(failed)
            self._panel.tell("turn")

    def _ask_again(self, turn: Turn, model: Optional[str], recall: bool = True) -> None:
        self.say("")
        try:
            study = replace(
                self._panel.whole_study(), region=turn.region, where=turn.where, prior=turn.prior
            )
            self._session.ask(
                study, turn.task, turn.question, with_history=False, model=model, recall=recall
            )
        except ClientError as error:
            self.say(error.message)

    def _second_opinion(self) -> None:
        """Ask the server's next model the question of the chosen answer."""
        turn, models = self._panel.turn, self._session.models
        if turn is None or not models:
            return
        used = str(turn.answer["model"]["name"])
        other = models[(models.index(used) + 1) % len(models)] if used in models else models[0]
        self._ask_again(turn, other, recall=False)

    def _stop(self) -> None:
        self._session.stop()

    def _ask_for_consent(
        self, task: str, question: Optional[str], template: Optional[Template]
    ) -> None:
        session = self._session
        self._waiting = (session.address, self._panel.key, (task, question, template))
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
            self._begin(*waiting[-1])

    def _not_now(self) -> None:
        self._waiting = None
        show(False, self._ui.consentBanner)
        self.say(_("Nothing was sent."))

    def _withdraw_request(self) -> None:
        """Ask for consent no longer once it would be given to another server, or for another study."""
        asked_for = (self._session.address, self._panel.key)
        if self._waiting is not None and self._waiting[:2] != asked_for:
            self._not_now()

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
        ui.templateBox.enabled = is_possible
        turn = self._panel.turn
        show(bool(session.models), ui.secondButton)
        ui.secondButton.enabled = is_possible and turn is not None and not turn.template
        show(is_asking, ui.stopButton)
        show(not is_asking, ui.askButton)
        self._escape.enabled = is_asking
        can_bring_back = self._cleared is not None and self._cleared[0] == self._panel.key
        can_bring_back = can_bring_back and not self._has_turns
        ui.clearButton.text = _("Bring back") if can_bring_back else _("Start over")
        ui.clearButton.enabled = (self._has_turns or can_bring_back) and not is_asking

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
            conversation_html(
                turns, self._palette, self._panel.settings.fold_below(), self._is_whole
            )
            if turns
            else hint_html(self._hint(), self._palette)
        )
        bar = view.verticalScrollBar()
        bar.value = bar.maximum

    def _show_progress(self) -> None:
        ui, session = self._ui, self._session
        transfer, turn = session.transfer, session.turn
        show(session.is_busy, ui.progressRow)
        ui.progressBar.maximum = 0
        if transfer is not None and transfer.total > 0:
            ui.progressBar.maximum = 1000
            ui.progressBar.value = 1000 * transfer.done // transfer.total
            words = _("Sending {done} of {total}")
            if not transfer.is_upload:
                words = _("Fetching {done} of {total}")
            ui.progressText.text = words.format(
                done=size_words(transfer.done), total=size_words(transfer.total)
            )
        elif transfer is not None:
            is_upload = transfer.is_upload
            ui.progressText.text = _("Preparing the volume") if is_upload else _("Fetching")
        elif turn is not None and turn.state == "answering":
            ui.progressText.text = _("Answering")
        else:
            ui.progressText.text = _("Waiting for the server")

    def _on_link(self, url: Any) -> None:
        self.follow_link(url.toString())

    def follow_link(self, link: str) -> None:
        """Do what a link of the conversation says."""
        if link == EARLIER:
            self._is_whole = True
            self._show_conversation()
            return
        action, _colon, turn_id = link.partition(":")
        turn = self._panel.conversation.find(turn_id)
        if turn is not None and action == "again" and turn.can_be_asked_again:
            self._replace(turn)
        if turn is None or turn.answer is None:
            return
        self._panel.choose(turn)
        if action == "unfold":
            self._panel.unfold(turn)
        elif action == "slices":
            turn.has_open_slices = True
            self._show_conversation()
        elif action == "itself":
            self._ask_itself(turn)
        else:
            self._panel.correct.act(action)

    def _clear(self) -> None:
        key = self._panel.key
        if self._has_turns:
            self._cleared = key, self._panel.conversation
            self._session.forget(key)
        elif self._cleared is not None and self._cleared[0] == key:
            self._session.restore(*self._cleared)
        self.say("")

    def follow_theme(self) -> None:
        """Take the colours of Slicer's style after the reader has changed it."""
        palette = Palette.dark() if _is_dark() else Palette()
        if palette != self._palette:
            self._palette = palette
            self._show_conversation()

    def say(self, text: str) -> None:
        """Show a message under the conversation."""
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
        ui.editPromptsButton.text = _("Done") if is_open else _("Options")
        if is_open:
            ui.promptsEdit.plainText = "\n".join(settings.prompts())
            ui.shortcutsEdit.plainText = self._panel.keys.text()
        else:
            lines = [line.strip() for line in ui.promptsEdit.plainText.split("\n")]
            settings.set_prompts([line for line in lines if line])
            self._fill_prompts()
            self.say(self._panel.keys.set_text(ui.shortcutsEdit.plainText))

    def _reset_prompts(self) -> None:
        self._ui.promptsEdit.plainText = "\n".join(default_prompts())

    def _on_fold(self, _index: int) -> None:
        self._panel.settings.set_fold_below(chosen_in(self._ui.foldBox) or 0.0)
        self._panel.tell("turn", "chosen")

    # Templates --------------------------------------------------------------------------------

    def _look_for_templates(self) -> None:
        """Fetch the templates once for each connection."""
        session = self._session
        address = session.address if session.state == "connected" else ""
        if address and address != self._templates_of:
            session.fetch_templates(self._fill_templates)
        elif not address:
            self._fill_templates([])
        self._templates_of = address

    def _fill_templates(self, rows: list) -> None:
        self._templates = [Template(row["name"], str(row.get("text", ""))) for row in rows]
        items = [(_("Template"), -1)]
        items += [(template.name, index) for index, template in enumerate(self._templates)]
        fill(self._ui.templateBox, items, -1)
        show(bool(self._templates), self._ui.templateBox)

    def _on_template(self, _index: int) -> None:
        index = chosen_in(self._ui.templateBox)
        self._ui.templateBox.currentIndex = 0
        if index is not None and index >= 0:
            self._begin("report", None, self._templates[index])

    # What is known ----------------------------------------------------------------------------

    def show_known(self) -> None:
        """Offer what Slicer knows about the volume; nothing is ticked for a new volume."""
        volume = self._panel.volume
        known = known_about(volume)
        is_new = self._known_of != (volume.GetID() if volume is not None else "")
        if known == self._known and not is_new:
            return
        self._known, self._known_of = known, volume.GetID() if volume is not None else ""
        for name, box_name in _TICKS.items():
            box = getattr(self._ui, box_name)
            if is_new or name not in known:
                box.checked = False
            box.text = known.get(name, "")
            show(name in known, box)
        show(bool(known), self._ui.contextRow)

    def _allowed(self) -> str:
        """Return what the reader has ticked, in words."""
        ticked = [name for name, box in _TICKS.items() if getattr(self._ui, box).checked]
        return "; ".join(self._known[name] for name in ticked if name in self._known)


def _is_dark() -> bool:
    return bool(slicer.app.palette().color(qt.QPalette.Window).lightness() < 128)
