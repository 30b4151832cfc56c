"""The section Evidence: a map over the volume of where the model looked."""

from typing import Any, Optional

from ..controls.widgets import guarded, show
from ..net.errors import ClientError
from ..scene import scene
from ..scene.evidencemap import EvidenceMap
from ..session.conversation import Turn
from ..session.draft import Sentence
from ..translation import _
from .render import escape, task_words

_LEGEND_STEPS = 24


class EvidenceSection:
    """Fetch the evidence map of an answer or a sentence, show it, jump to its maximum, and remove it."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        ui = self._ui
        ui.evidenceButton.connect("clicked()", guarded(self._show_answer))
        ui.jumpButton.connect("clicked()", guarded(self._jump))
        ui.removeEvidenceButton.connect("clicked()", guarded(self._remove))
        ui.opacitySlider.connect("valueChanged(double)", guarded(scene.set_evidence_opacity))
        ui.evidenceButton.setIcon(panel.icon("evidence"))
        ui.legendPicture.text = _legend()

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic in ("chosen", "study"):
            self._say(self._hint())
        if topic in ("chosen", "study", "turn", "server", "transfer"):
            self._enable()

    @property
    def can_explain(self) -> bool:
        """Whether a map of the chosen answer, or of one of its sentences, can be asked for now."""
        turn, session = self._panel.turn, self._session
        is_free = session.state == "connected" and not session.is_busy
        return is_free and turn is not None and turn.can_be_explained

    def explain(self, sentence: Sentence) -> None:
        """Show the map of a sentence, and move the views to its strongest place."""
        self._ui.evidenceSection.collapsed = False
        remarks = []
        if sentence.text != sentence.model_text:
            remarks.append(
                _("These words are a reader's; the map shows where the model looks for them.")
            )
        self._fetch(sentence.text, sentence.text, remarks, is_jumping=True)

    def _show_answer(self) -> None:
        turn = self._panel.turn
        self._fetch(None, turn.question or task_words(turn.task), [], is_jumping=False)

    def _fetch(self, text: Optional[str], title: str, remarks: list, is_jumping: bool) -> None:
        turn, volume = self._panel.turn, self._panel.volume

        def done(found: EvidenceMap) -> None:
            if volume.GetScene() is None:
                self._say(_("The volume was removed from the scene."))
            else:
                scene.show_evidence(volume, found, self._ui.opacitySlider.value, title)
                meaning = _(
                    "The brighter a place, the more the model looked there. Brightness is no sign "
                    "of disease."
                )
                self._say(" ".join([*remarks, _note(turn), meaning]).strip())
                if is_jumping:
                    self._jump()
            self._enable()

        try:
            self._session.show_evidence(self._panel.whole_study(), turn, text, done, self._say)
        except ClientError as error:
            self._say(error.message)
            return
        self._say(_("Computing the map …"))
        self._panel.tell("transfer")

    def _hint(self) -> str:
        turn = self._panel.turn
        if turn is None:
            return _("Ask something first; then you can see where the model looked.")
        if turn.template:
            return _("A template that was filled in has no map: its words are the department's.")
        if not turn.can_be_explained:
            return _("Nothing was answered, so there is no map.")
        return _note(turn) or _("See where the model looked for the chosen answer.")

    def _enable(self) -> None:
        ui, turn = self._ui, self._panel.turn
        ui.evidenceButton.enabled = self.can_explain
        is_own = turn is None or not _note(turn)
        ui.evidenceButton.text = _("Show evidence") if is_own else _("Show the model's map")
        text = scene.evidence_text()
        ui.mapOfText.text = text
        has_map = scene.evidence_node() is not None
        show(has_map, ui.jumpButton, ui.removeEvidenceButton, ui.opacityLabel, ui.opacitySlider)
        show(has_map, ui.legendLabel, ui.legendPicture)
        show(bool(text), ui.mapOfLabel, ui.mapOfText)

    def _say(self, text: str) -> None:
        self._ui.evidenceText.text = text

    def _jump(self) -> None:
        node = scene.evidence_node()
        if node is not None and scene.jump_to_strongest(node) is None:
            self._say(_("The map is uniform; there is no strongest place."))

    def _remove(self) -> None:
        scene.remove_evidence()
        self._say(self._hint())
        self._enable()


def _note(turn: Turn) -> str:
    """Return the server's words where an answer is not the language model's, and so has no map of its own."""
    return str((turn.answer or {}).get("evidence_note") or "")


def _legend() -> str:
    """Return the colours of a map from the least to the most, as HTML."""
    colours = [scene.evidence_colour(step / (_LEGEND_STEPS - 1)) for step in range(_LEGEND_STEPS)]
    blocks = "".join(
        '<span style="color:#{:02x}{:02x}{:02x}">█</span>'.format(*(round(255 * c) for c in colour))
        for colour in colours
    )
    return f"{escape(_('less'))} {blocks} {escape(_('more'))}"
