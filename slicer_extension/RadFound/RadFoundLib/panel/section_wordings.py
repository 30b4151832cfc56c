"""The department's wording, in the section Teach: templates that a person accepts or refuses."""

from typing import Any

import qt

from ..controls.widgets import guarded, show
from ..translation import _
from .render import task_words

_TABLE_PIXELS = 130  # maximum height; a longer table scrolls


class WordingsSection:
    """List the templates that the corrections suggest; accept or refuse the chosen one."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        ui, table = self._ui, self._ui.wordingsTable
        ui.acceptWordingButton.connect("clicked()", guarded(lambda: self._decide(True)))
        ui.refuseWordingButton.connect("clicked()", guarded(lambda: self._decide(False)))
        table.connect("itemSelectionChanged()", guarded(self._enable))
        table.columnCount = 2
        table.setHorizontalHeaderLabels([_("State"), _("Question and wording")])
        table.verticalHeader().hide()
        table.horizontalHeader().setStretchLastSection(False)
        table.horizontalHeader().setSectionResizeMode(1, qt.QHeaderView.Stretch)
        self._say("")

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic == "wordings":
            self._show_wordings()
        if topic in ("wordings", "server"):
            self._enable()

    def _show_wordings(self) -> None:
        ui, table, rows = self._ui, self._ui.wordingsTable, self._session.wordings
        chosen = table.currentRow()
        table.rowCount = len(rows)
        for index, row in enumerate(rows):
            asked = row.get("question") or task_words(str(row.get("task")))
            for column, text in enumerate((_state_words(row), f"{asked} → {row.get('text')}")):
                table.setItem(index, column, qt.QTableWidgetItem(text))
        table.resizeColumnToContents(0)
        table.resizeRowsToContents()
        height = table.horizontalHeader().height + table.verticalHeader().length()
        table.maximumHeight = min(_TABLE_PIXELS, height + 2 * table.frameWidth)
        if rows:
            table.selectRow(min(max(chosen, 0), len(rows) - 1))
        proposed = sum(row.get("state") == "proposed" for row in rows)
        ui.wordingsLabel.text = _(
            "Wording of this department, from its corrections: {count} proposed."
        ).format(count=proposed)
        show(bool(rows), ui.wordingsLabel, table, ui.acceptWordingButton, ui.refuseWordingButton)
        if not rows:
            self._say("")

    def _chosen(self) -> dict:
        row = self._ui.wordingsTable.currentRow()
        return self._session.wordings[row] if 0 <= row < len(self._session.wordings) else {}

    def _enable(self) -> None:
        state = self._chosen().get("state") if self._session.state == "connected" else None
        self._ui.acceptWordingButton.enabled = state == "proposed"
        self._ui.refuseWordingButton.enabled = state is not None

    def _decide(self, accept: bool) -> None:
        template = self._chosen()
        if template:
            author = self._ui.authorEdit.text
            self._session.decide_wording(str(template["id"]), accept, author, self._say)

    def _say(self, text: str) -> None:
        self._ui.wordingsMessage.text = text
        show(bool(text), self._ui.wordingsMessage)


def _state_words(row: dict) -> str:
    return _("in use") if row.get("state") == "accepted" else _("proposed")
