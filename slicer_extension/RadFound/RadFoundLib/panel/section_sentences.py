"""The sentences of a report or long caption: each accepted, edited, struck or explained with one key."""

from typing import Any, Optional

import qt

from ..controls.widgets import guarded, limit_lines, show
from ..translation import _
from .render import section_words

_WIDGET_SHORTCUT = 0  # Qt::WidgetShortcut: the list itself has the focus
_MARKS = {"accepted": "✓", "edited": "✎", "struck": "✗", "added": "+", "measured": "⌖"}


class SentencesSection:
    """Edit the draft of the chosen report, findings and impression apart."""

    def __init__(self, panel: Any):
        self._panel, self._ui = panel, panel.ui
        self._rows: list = []  # index of the sentence in each row; None for a heading
        # The sentence that is typed in: its draft, itself, its text and state before.
        self._edited: Optional[tuple] = None
        ui = self._ui
        ui.acceptSentenceButton.connect("clicked()", guarded(self._accept))
        ui.editSentenceButton.connect("clicked()", guarded(self._edit))
        ui.strikeSentenceButton.connect("clicked()", guarded(self._strike))
        ui.whereSentenceButton.connect("clicked()", guarded(self._where))
        ui.addSentenceButton.connect("clicked()", guarded(self._add))
        ui.sentenceEdit.connect("textChanged(QString)", guarded(lambda _text: self._type()))
        ui.sentenceEdit.connect("returnPressed()", guarded(self.take))
        ui.sentenceList.connect("currentRowChanged(int)", guarded(lambda _row: self._enable()))
        ui.sentenceList.connect(
            "itemDoubleClicked(QListWidgetItem*)", guarded(lambda _item: self._edit())
        )
        self._escape = qt.QShortcut(qt.QKeySequence("Esc"), ui.sentenceEdit)
        self._escape.context = _WIDGET_SHORTCUT
        self._escape.connect("activated()", guarded(self._leave))
        limit_lines(ui.sentenceList, 5, 7)
        show(False, ui.sentenceEdit)

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic in ("chosen", "study") and self._edited and self._edited[0] is not self._draft:
            self._close()
        if topic in ("chosen", "study", "draft", "turn"):
            self._show()
        elif topic in ("server", "transfer"):
            self._enable()

    @property
    def _draft(self) -> Any:
        turn = self._panel.turn
        return turn.draft if turn is not None and not self._panel.is_folded(turn) else None

    @property
    def chosen(self) -> Optional[int]:
        """Index of the chosen sentence, or None."""
        row = self._ui.sentenceList.currentRow
        return self._rows[row] if 0 <= row < len(self._rows) else None

    def add_measured(self, text: str) -> bool:
        """Add a measured value to the report; False if no report is chosen."""
        if self._draft is None:
            return False
        self._change(self._draft.add(text, state="measured"))
        return True

    def _show(self) -> None:
        ui, draft = self._ui, self._draft
        show(draft is not None, ui.sentenceList, ui.sentenceRow)
        chosen, box = self.chosen, ui.sentenceList
        texts: list = []
        self._rows = []
        section = None
        for index, sentence in enumerate(draft.sentences if draft is not None else ()):
            if sentence.section != section and sentence.section:
                texts.append(section_words(sentence.section))
                self._rows.append(None)
            section = sentence.section
            texts.append(f"{_MARKS.get(sentence.state, '·')}  {sentence.text}")
            self._rows.append(index)
        blocked = box.blockSignals(True)
        box.clear()
        box.addItems(texts)
        self._choose(chosen)
        box.blockSignals(blocked)
        self._enable()

    def _choose(self, index: Optional[int]) -> None:
        if index in self._rows and index is not None:
            self._ui.sentenceList.currentRow = self._rows.index(index)
        elif self._rows:
            self._ui.sentenceList.currentRow = 1 if self._rows[0] is None else 0

    def _enable(self) -> None:
        ui, has_one = self._ui, self.chosen is not None and self._draft is not None
        ui.acceptSentenceButton.enabled = ui.editSentenceButton.enabled = has_one
        ui.strikeSentenceButton.enabled = has_one
        ui.whereSentenceButton.enabled = has_one and self._panel.evidence.can_explain
        if has_one:
            is_struck = self._draft.sentences[self.chosen].state == "struck"
            self._panel.keys.name("strike-sentence", _("Take back") if is_struck else _("Strike"))

    def _where(self) -> None:
        if self.chosen is not None:
            self._panel.evidence.explain(self._draft.sentences[self.chosen])

    def _accept(self) -> None:
        index = self._settled()
        if index is not None:
            self._draft.accept(index)
            self._change(min(index + 1, len(self._draft.sentences) - 1))

    def _strike(self) -> None:
        index = self._settled()
        if index is not None:
            self._draft.strike(index)
            self._change(min(index + 1, len(self._draft.sentences) - 1))

    def _edit(self) -> None:
        index = self._settled()
        if index is not None:
            self._choose(index)
            self._open(index)

    def _add(self) -> None:
        if self._draft is not None:
            index = self._draft.add("", after=self._settled())
            self._change(index)
            self._open(index)

    def _settled(self) -> Optional[int]:
        """Close the line that is typed in, and return the index of the chosen sentence, which that may move."""
        if self.chosen is None or self._draft is None:
            return None
        draft, sentence = self._draft, self._draft.sentences[self.chosen]
        self._close()
        return draft.sentences.index(sentence) if sentence in draft.sentences else None

    def _open(self, index: int) -> None:
        edit, sentence = self._ui.sentenceEdit, self._draft.sentences[index]
        self._edited = self._draft, sentence, sentence.text, sentence.state
        blocked = edit.blockSignals(True)
        edit.text = sentence.text
        edit.blockSignals(blocked)
        show(True, edit)
        edit.setFocus()

    def _type(self) -> None:
        """Put what is typed into the report at once: a click elsewhere must not lose it."""
        if self._edited is not None:
            draft, sentence, *_before = self._edited
            draft.edit(draft.sentences.index(sentence), self._ui.sentenceEdit.text)
            self._panel.tell("draft")

    def take(self) -> None:
        """Close the line that a sentence was typed in."""
        self._close()
        self._ui.sentenceList.setFocus()

    def _leave(self) -> None:
        """Leave the sentence as it was."""
        if self._edited is not None:
            _draft, sentence, sentence.text, sentence.state = self._edited
        self.take()

    def _close(self) -> None:
        edited, self._edited = self._edited, None
        show(False, self._ui.sentenceEdit)
        if edited is not None:
            draft, sentence, *_before = edited
            if not sentence.text and sentence in draft.sentences:
                draft.sentences.remove(sentence)  # one that was added without words
            self._panel.tell("draft")

    def _change(self, index: int) -> None:
        self._panel.tell("draft")
        self._choose(index)
        self._enable()
