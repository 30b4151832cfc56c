"""The day's work: the server's studies, and one question about all volumes of the scene."""

from typing import Any, Optional

from ..controls.tables import Table
from ..controls.widgets import guarded, show
from ..net.errors import ClientError
from ..scene import scene
from ..translation import _
from .render import certainty_words, study_words

_TABLE_LINES = 12  # maximum height; a longer table scrolls
_LISTED = 200  # studies; a row takes time to lay out, and a reader does not read thousands


class DaySection:
    """List the server's studies, open one, and ask about all volumes of the scene."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        self._studies: list = []
        self._queue: list = []
        self._asked: list = []  # (name of the volume, turn or None, trouble)
        self._request: tuple = ("caption", None)
        self._was_connected = False
        ui = self._ui
        ui.refreshStudiesButton.connect("clicked()", guarded(self._fetch))
        ui.openStudyButton.connect("clicked()", guarded(self._open))
        ui.askAllButton.connect("clicked()", guarded(self._ask_all))
        ui.studiesTable.connect("itemSelectionChanged()", guarded(self._enable))
        ui.studiesTable.connect(
            "cellDoubleClicked(int,int)", guarded(lambda _row, _column: self._open())
        )
        titles = [_("Study"), _("State"), _("Why next")]
        self._table = Table(ui.studiesTable, titles, (0, 2), _TABLE_LINES)
        titles = [_("Volume"), _("Answer"), _("Confidence")]
        self._answers = Table(ui.allTable, titles, (1,), _TABLE_LINES)
        show(False, ui.allTable)

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic == "server":
            self._on_server()
        if topic in ("turn", "study", "server"):
            self._show_asked()
            self._enable()
        if topic == "turn":
            self._go_on()
        if topic == "corrections" and self._was_connected and not self._session.is_busy:
            self._fetch()

    # Studies ----------------------------------------------------------------------------------

    def _on_server(self) -> None:
        is_connected = self._session.state == "connected"
        if is_connected and not self._was_connected:
            self._fetch()
        elif not is_connected:
            self._studies = []
            self._show_studies(_("Connect to a server to see its studies."))
        self._was_connected = is_connected

    def _fetch(self) -> None:
        self._session.fetch_studies(self._fetched, self._show_studies)

    def _fetched(self, studies: list) -> None:
        self._studies = studies
        waiting = sum(not study.get("state") == "read" for study in studies)
        text = _("{count} studies on the server, {waiting} not read yet.")
        if len(studies) > _LISTED:
            text += " " + _("The first {listed} are listed.").format(listed=_LISTED)
        self._show_studies(text.format(count=len(studies), waiting=waiting))

    def _show_studies(self, text: str) -> None:
        ui = self._ui
        ui.dayText.text = text
        self._panel.study_section.offer_priors(self._studies)
        self._table.fill(
            [
                (
                    str(study["id"]),
                    (
                        study_words(study),
                        _state_words(str(study.get("state", ""))),
                        str(study.get("why") or ""),
                    ),
                )
                for study in self._studies[:_LISTED]
            ]
        )
        show(bool(self._studies), ui.studiesTable, ui.openStudyButton)
        self._enable()

    def _open(self) -> None:
        if self._ui.openStudyButton.enabled:
            chosen = self._table.chosen
            study = next(each for each in self._studies if str(each["id"]) == chosen)
            self._panel.study_section.open_study(study)

    def _enable(self) -> None:
        ui, session = self._ui, self._session
        is_free = session.state == "connected" and not session.is_busy
        ui.refreshStudiesButton.enabled = session.state == "connected"
        ui.openStudyButton.enabled = is_free and self._table.chosen is not None
        ui.askAllButton.enabled = is_free and self._panel.volume is not None and not self._queue

    # All volumes at once ----------------------------------------------------------------------

    def _ask_all(self) -> None:
        """Ask the question of the line above, or for a caption, about each volume."""
        question = self._ui.questionEdit.text.strip()
        self._request = ("vqa", question) if question else ("caption", None)
        self._asked = []
        self._queue = scene.volumes()
        self._go_on()

    def _go_on(self) -> None:
        """Ask about the next volume once the last answer is complete."""
        if not self._queue or self._session.is_busy:
            return
        if self._asked and self._asked[-1][1] is not None and self._asked[-1][1].state == "stopped":
            self._queue = []
            return
        node = self._queue.pop(0)
        if node.GetScene() is None:
            return
        turn, trouble = None, ""
        task, question = self._request
        self._asked.append((node.GetName(), None, _("waiting")))
        try:
            turn = self._panel.ask_about(node, task, question)
        except ClientError as error:
            trouble = error.message
            self._queue = []
        self._asked[-1] = (node.GetName(), turn, trouble)
        self._show_asked()

    def _show_asked(self) -> None:
        show(bool(self._asked), self._ui.allTable)
        self._answers.fill(
            [
                (index, (name, *_cells(turn, trouble)))
                for index, (name, turn, trouble) in enumerate(self._asked)
            ]
        )


def _cells(turn: Optional[Any], trouble: str) -> tuple:
    if turn is None:
        return trouble, ""
    if turn.answer is None:
        return turn.error or _("waiting"), ""
    return turn.final_text, certainty_words(turn.answer)


def _state_words(state: str) -> str:
    words = {"new": _("new"), "asked": _("asked"), "read": _("read")}
    return words.get(state, state)
