"""The section Study: volumes, the part of them to ask about, and the next study."""

import os
import shutil
import tempfile
from typing import Any, Callable, Optional

import slicer

from ..controls.widgets import chosen_in, fill, guarded, show
from ..net.errors import ClientError
from ..scene import places, scene
from ..translation import _
from .render import short_name, study_words

WHOLE, REGION, SLICE = "whole", "region", "slice:"
_NODE = "node:"  # before the id of a volume of the scene, among the ids of the server's studies


class StudySection:
    """Volume, part, further views, and the next study of the server."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        self._folder = ""
        self._is_fetching = False
        ui = self._ui
        for selector in (ui.volumeSelector, ui.roiSelector, ui.viewsSelector):
            selector.setMRMLScene(slicer.mrmlScene)
        self._parts: list = []
        self._studies: list = []
        self._prior_of = ""  # id of the volume that a prior was chosen for
        self._priors: list = []
        self._then: Callable[[Any], None] = self._choose
        self._fill_parts(WHOLE)
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", guarded(self._on_volumes))
        ui.viewsSelector.connect("checkedNodesChanged()", guarded(self._on_volumes_checked))
        ui.partBox.connect("currentIndexChanged(int)", guarded(self._on_part))
        ui.roiSelector.connect("currentNodeChanged(vtkMRMLNode*)", guarded(self._on_roi))
        ui.roiSelector.connect("nodeAddedByUser(vtkMRMLNode*)", guarded(panel.place_roi))
        ui.priorBox.connect("currentIndexChanged(int)", guarded(lambda _index: self._say("")))
        ui.strategyBox.connect("activated(int)", guarded(self._on_strategy))
        ui.compareButton.connect("clicked()", guarded(self._show_beside))
        ui.nextButton.connect("clicked()", guarded(self.take_next))
        ui.measureQuestionButton.connect("clicked()", guarded(self._measure_into_question))
        ui.measureReportButton.connect("clicked()", guarded(self._measure_into_report))
        self._show_part()

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic == "study":
            self.show_volume()
        elif topic in ("server", "turn", "transfer"):
            self._show_next()

    def show_volume(self) -> None:
        """Describe the chosen volume."""
        ui, volume = self._ui, self._panel.volume
        text = (
            scene.describe(volume)
            if volume is not None
            else _("Load a volume into Slicer, or take the server's next study.")
        )
        if ui.volumeText.text != text:
            ui.volumeText.text = text
        ui.partBox.enabled = ui.viewsSelector.enabled = volume is not None
        self._fill_parts(self.part)  # the layout may have changed
        self._fill_priors()  # so may the volumes of the scene

    # Part of the volume -----------------------------------------------------------------------

    @property
    def part(self) -> str:
        """The chosen part: "whole", "slice:Red" (or another view) or "region"."""
        return chosen_in(self._ui.partBox) or WHOLE

    def set_part(self, part: str) -> None:
        """Choose the part of the volume, a slice of a view that is closed among them."""
        self._fill_parts(part)
        self._show_part()

    def _fill_parts(self, chosen: str) -> None:
        """List the parts of the volume: the whole, the layout's slices, and a region."""
        views = [(node.GetLayoutName(), node.GetOrientation()) for node in scene.slice_nodes()]
        parts = [(_("Whole volume"), WHOLE)]
        parts += [
            (_("Slice in view {view} ({plane})").format(view=view, plane=plane), SLICE + view)
            for view, plane in views
        ]
        if chosen.startswith(SLICE) and chosen not in [data for _text, data in parts]:
            view = chosen[len(SLICE) :]
            parts.append((_("Slice in view {view} (not open)").format(view=view), chosen))
        parts.append((_("Region of interest"), REGION))
        if parts != self._parts or chosen != self.part:
            self._parts = parts
            fill(self._ui.partBox, parts, chosen)

    def region(self) -> tuple:
        """Return the chosen part as JSON for the server, and in words; None and "" for all."""
        volume, part = self._panel.volume, self.part
        if part == REGION:
            node, segment = self._ui.roiSelector.currentNode(), self.segment
            if node is None:
                raise ClientError(_("Choose or create a region of interest first."), "request")
            words = _("in {region}").format(region=places.name_of(node, segment))
            return places.region_of(volume, node, segment), words
        if part.startswith(SLICE):
            view = part[len(SLICE) :]
            node = scene.slice_node(view)
            if node is None:
                raise ClientError(
                    _("The {view} view is not open: choose another one.").format(view=view),
                    "request",
                )
            where = _("{view} slice at {offset} mm").format(
                view=view, offset=f"{node.GetSliceOffset():.1f}"
            )
            return scene.slice_region(volume, node), where
        return None, ""

    def _on_volumes(self, _node: Any = None) -> None:
        ui = self._ui
        self._panel.set_volumes(ui.volumeSelector.currentNode(), ui.viewsSelector.checkedNodes())

    def _on_volumes_checked(self) -> None:
        self._on_volumes()

    def _on_part(self, _index: int) -> None:
        self._show_part()
        self._panel.tell("study")

    def _on_roi(self, _node: Any) -> None:
        self._show_part()
        self._panel.tell("study")

    def _show_part(self) -> None:
        ui, is_region = self._ui, self.part == REGION
        segments = places.segments_of(ui.roiSelector.currentNode()) if is_region else []
        fill(ui.segmentBox, segments, self.segment)
        show(is_region, ui.roiLabel, ui.roiSelector)
        show(bool(segments), ui.segmentLabel, ui.segmentBox, ui.measureRow)

    # Measured facts ---------------------------------------------------------------------------

    @property
    def segment(self) -> Optional[str]:
        """Id of the chosen segment, or None."""
        return chosen_in(self._ui.segmentBox)

    def _measured(self) -> str:
        """Return what Slicer measures of the chosen segment; empty, and a message, if nothing."""
        node, segment = self._ui.roiSelector.currentNode(), self.segment
        if self._panel.volume is None or not places.is_segmentation(node) or segment is None:
            return ""
        try:
            return places.measured(self._panel.volume, node, segment)
        except ClientError as error:
            self._panel.ask_section.say(error.message)
            return ""

    def _measure_into_question(self) -> None:
        facts = self._measured()
        if facts:
            edit = self._ui.questionEdit
            edit.text = f"{edit.text.strip()} {facts}".strip()
            edit.setFocus()

    def _measure_into_report(self) -> None:
        facts = self._measured()
        if facts and not self._panel.sentences.add_measured(facts):
            self._panel.ask_section.say(
                _("Let RadFound write a report first, then measure into it.")
            )

    # Prior study ------------------------------------------------------------------------------

    @property
    def prior(self) -> str:
        """Id of the prior study on the server; empty for none, and for a volume of the scene."""
        chosen = self._chosen_prior
        return "" if chosen.startswith(_NODE) else chosen

    @property
    def prior_node(self) -> Any:
        """The volume of the scene that is the prior study, or None."""
        chosen = self._chosen_prior
        is_node = chosen.startswith(_NODE)
        return slicer.mrmlScene.GetNodeByID(chosen[len(_NODE) :]) if is_node else None

    @property
    def _chosen_prior(self) -> str:
        return chosen_in(self._ui.priorBox) or ""

    def prior_words(self) -> str:
        """Return the prior study in words; empty for none."""
        if not self._chosen_prior:
            return ""
        return _("compared with {study}").format(study=self._ui.priorBox.currentText)

    def offer_priors(self, studies: list) -> None:
        """Offer the server's studies as prior studies."""
        self._studies = studies
        self._fill_priors()

    def _fill_priors(self) -> None:
        """List the other volumes and the server's studies; another volume has another prior, so none is chosen."""
        ui, volume = self._ui, self._panel.volume
        about = volume.GetID() if volume is not None else ""
        others = [node for node in scene.volumes() if node is not volume]
        items = [(_("None"), "")]
        items += [(node.GetName(), _NODE + node.GetID()) for node in others]
        items += [(study_words(study), str(study["id"])) for study in self._studies]
        if (about, items) == (self._prior_of, self._priors):
            return
        chosen = self._chosen_prior if about == self._prior_of else ""
        self._prior_of, self._priors = about, items
        fill(ui.priorBox, items, chosen)
        show(len(items) > 1 and volume is not None, ui.priorLabel, ui.priorBox, ui.compareButton)
        self._show_next()

    def _show_beside(self) -> None:
        if self.prior_node is not None:
            self._put_beside(self.prior_node)
            return
        study = next((each for each in self._studies if each["id"] == self.prior), None)
        if study is not None:
            self.open_study(study, self._put_beside)

    def _put_beside(self, prior: Any) -> None:
        try:
            scene.show_beside(self._panel.volume, prior)
        except ClientError as error:
            self._say(error.message)
        else:
            self._say(
                _("{study} is shown in the second view.").format(study=short_name(prior.GetName()))
            )

    # Next study -------------------------------------------------------------------------------

    def _show_next(self) -> None:
        ui, session = self._ui, self._session
        is_connected = session.state == "connected"
        if is_connected and session.info is not None:
            strategies = list(session.info.strategies.items())
            items = [(words or name, name) for name, words in strategies]
            if ui.strategyBox.count != len(items) or any(
                ui.strategyBox.itemData(index) != item[1] for index, item in enumerate(items)
            ):
                fill(ui.strategyBox, items, self._panel.settings.strategy())
        can_go_on = is_connected and not session.is_busy and ui.strategyBox.count > 0
        ui.strategyBox.enabled = is_connected
        ui.nextButton.enabled = can_go_on and not self._is_fetching
        is_free = is_connected and not session.is_busy and not self._is_fetching
        ui.compareButton.enabled = bool(self.prior_node) or (is_free and bool(self.prior))
        show(is_connected, ui.strategyLabel, ui.strategyBox, ui.nextButton)
        show(is_connected and bool(ui.nextText.text), ui.nextText)

    def _on_strategy(self, _index: int) -> None:
        self._panel.settings.set_strategy(chosen_in(self._ui.strategyBox) or "")

    def _say(self, text: str) -> None:
        self._ui.nextText.text = text
        self._show_next()

    def take_next(self) -> None:
        """Load the study that the server proposes next."""
        strategy = chosen_in(self._ui.strategyBox)
        if strategy is None or self._is_fetching:
            return
        self._begin_fetching(self._choose, _("Choosing and fetching …"))
        self._session.next_study(
            strategy,
            self._folder,
            lambda image: self._panel.loaded(image) is not None,
            self._fetched,
            self._failed,
        )
        self._show_next()

    def open_study(self, study: dict, then: Optional[Callable[[Any], None]] = None) -> None:
        """Load a study of the server's list unless it is loaded; `then` gets its volume, else it is chosen."""
        if self._is_fetching:
            return
        self._begin_fetching(then or self._choose, _("Fetching …"))
        if self._panel.loaded(str(study["id"])) is not None:
            self._fetched((study, ""))
            return
        self._session.fetch_study(study, self._folder, self._fetched, self._failed)
        self._show_next()

    def _begin_fetching(self, then: Callable[[Any], None], words: str) -> None:
        self._is_fetching = True
        self._then = then
        self._folder = tempfile.mkdtemp(prefix="radfound-", dir=slicer.app.temporaryPath)
        self._say(words)

    def _fetched(self, found: Optional[tuple]) -> None:
        if found is None:
            self._failed(_("Every study on this server has been read."))
            return
        choice, path = found
        image = str(choice["id"])
        try:
            volume = self._volume_of(image, path, study_words(choice))
        except ClientError as error:
            self._failed(f"{image}: {error.message}")
            return
        self._end_fetching()
        reason = str(choice.get("reason") or choice.get("why") or "").strip().rstrip(".")
        name = short_name(study_words(choice))
        text = _("{study}: {reason}.").format(study=name, reason=reason) if reason else name
        self._say(text)
        self._then(volume)
        self._panel.tell("study")

    def _volume_of(self, image: str, path: str, name: str) -> Any:
        volume = None if path else self._panel.loaded(image)
        if volume is None:
            volume = scene.load_volume(path, name)
            self._panel.remember_origin(volume, image)
        return volume

    def _choose(self, volume: Any) -> None:
        self._ui.volumeSelector.setCurrentNode(volume)

    def _failed(self, message: str) -> None:
        self._end_fetching()
        self._say(message)

    def _end_fetching(self) -> None:
        self._is_fetching = False
        # The folder holds a patient's study, which Slicer has loaded.
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = os.devnull
