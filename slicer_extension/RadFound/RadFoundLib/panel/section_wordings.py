"""The department's wording, in the section Teach: templates that a person accepts or refuses."""

from typing import Any

from ..controls.tables import Table
from ..controls.widgets import guarded, show
from ..translation import _
from .render import task_words

_TABLE_LINES = 7  # maximum height; a longer table scrolls


class WordingsSection:
    """List the templates that the corrections suggest; accept or refuse the chosen one."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        ui = self._ui
        self._table = Table(
            ui.wordingsTable, [_("State"), _("Question and wording")], (1,), _TABLE_LINES
        )
        ui.acceptWordingButton.connect("clicked()", guarded(lambda: self._decide(True)))
        ui.refuseWordingButton.connect("clicked()", guarded(lambda: self._decide(False)))
        ui.wordingsTable.connect("itemSelectionChanged()", guarded(self._enable))
        self._say("")

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic == "wordings":
            self._show_wordings()
        if topic in ("wordings", "server"):
            self._enable()

    def _show_wordings(self) -> None:
        ui, rows = self._ui, self._session.wordings
        self._table.fill([(str(row["id"]), _cells(row)) for row in rows])
        if rows and self._table.chosen is None:
            self._table.choose(str(rows[0]["id"]))
        proposed = sum(row.get("state") == "proposed" for row in rows)
        ui.wordingsLabel.text = _(
            "Wording of this department, from its corrections: {count} proposed."
        ).format(count=proposed)
        buttons = (ui.acceptWordingButton, ui.refuseWordingButton)
        show(bool(rows), ui.wordingsLabel, ui.wordingsTable, *buttons)
        if not rows:
            self._say("")

    def _chosen(self) -> dict:
        rows, chosen = self._session.wordings, self._table.chosen
        return next((row for row in rows if str(row["id"]) == chosen), {})

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


def _cells(row: dict) -> tuple:
    state = _("in use") if row.get("state") == "accepted" else _("proposed")
    asked = row.get("question") or task_words(str(row.get("task")))
    return state, f"{asked} → {row.get('text')}"
