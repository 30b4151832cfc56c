"""The section Evidence: a map over the volume of where the model looked."""

from typing import Any, Optional

from ..controls.widgets import guarded, show
from ..net.errors import ClientError
from ..scene import scene
from ..translation import _
from .render import escape

_LEGEND_STEPS = 24


class EvidenceSection:
    """Fetch the evidence map, show it, jump to its maximum, and remove it."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        self._is_fetching = False
        ui = self._ui
        ui.evidenceButton.connect("clicked()", guarded(self._fetch))
        ui.jumpButton.connect("clicked()", guarded(self._jump))
        ui.removeEvidenceButton.connect("clicked()", guarded(self._remove))
        ui.opacitySlider.connect("valueChanged(double)", guarded(scene.set_evidence_opacity))
        ui.evidenceButton.setIcon(panel.icon("evidence"))
        ui.legendPicture.text = _legend()

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic in ("chosen", "study"):
            self._say(self._hint())
        if topic in ("chosen", "study", "turn", "server", "sending"):
            self._enable()

    def _hint(self) -> str:
        if self._panel.turn is None:
            return _("Ask something first; then you can see where the model looked.")
        return _("See where the model looked for the chosen answer; the server repeats the answer.")

    def _enable(self) -> None:
        ui, session = self._ui, self._session
        ui.evidenceButton.enabled = (
            self._panel.turn is not None and session.state == "connected" and not session.is_busy
        )
        has_map = scene.evidence_node() is not None
        show(has_map, ui.jumpButton, ui.removeEvidenceButton, ui.opacityLabel, ui.opacitySlider)
        show(has_map, ui.legendLabel, ui.legendPicture)

    def _say(self, text: str) -> None:
        self._ui.evidenceText.text = text

    def _fetch(self) -> None:
        turn, volume = self._panel.turn, self._panel.volume

        def done(found: tuple[dict[str, Any], Optional[bytes]]) -> None:
            answer, nrrd = found
            if nrrd is None:
                self._say(_("This server gives no evidence map."))
            elif volume.GetScene() is None:
                self._say(_("The volume was removed from the scene."))
            else:
                self._lay(volume, nrrd, answer["text"] == turn.text)
            self._enable()

        try:
            self._session.show_evidence(self._panel.whole_study(), turn, done, self._say)
        except ClientError as error:
            self._say(error.message)
            return
        self._say(_("Computing the map …"))
        self._panel.tell("sending")

    def _lay(self, volume: Any, nrrd: bytes, is_same_answer: bool) -> None:
        try:
            scene.show_evidence(volume, nrrd, self._ui.opacitySlider.value)
        except ClientError as error:
            self._say(error.message)
            return
        words = _(
            "The brighter a place, the more the model looked there. Brightness is no sign of disease."
        )
        if not is_same_answer:
            words = _("The server now answers differently; the map belongs to its new answer.")
        self._say(words)

    def _jump(self) -> None:
        node = scene.evidence_node()
        if node is not None and scene.jump_to_strongest(node) is None:
            self._say(_("The map is uniform; there is no strongest place."))

    def _remove(self) -> None:
        scene.remove_evidence()
        self._say(self._hint())
        self._enable()


def _legend() -> str:
    """Return the colours of a map from the least to the most, as HTML."""
    colours = [scene.evidence_colour(step / (_LEGEND_STEPS - 1)) for step in range(_LEGEND_STEPS)]
    blocks = "".join(
        '<span style="color:#{:02x}{:02x}{:02x}">█</span>'.format(*(round(255 * c) for c in colour))
        for colour in colours
    )
    return f"{escape(_('less'))} {blocks} {escape(_('more'))}"
