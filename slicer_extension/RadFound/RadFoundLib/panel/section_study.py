"""The section Study: volumes, the part of them to ask about, and the next study."""

import os
import shutil
import tempfile
from typing import Any, Optional

import slicer

from ..net.errors import ClientError
from ..scene import scene
from ..translation import _
from .widgets import chosen_in, fill, show

WHOLE, REGION, SLICE = "whole", "region", "slice:"


class StudySection:
    """Volume, part, further views, and the next study of the server."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        self._folder = ""
        self._is_fetching = False
        ui = self._ui
        for selector in (ui.volumeSelector, ui.roiSelector, ui.viewsSelector):
            selector.setMRMLScene(slicer.mrmlScene)
        parts = [(_("Whole volume"), WHOLE)]
        parts += [(text, SLICE + view) for view, text in _view_words().items()]
        parts.append((_("Region of interest"), REGION))
        fill(ui.partBox, parts, WHOLE)
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_volumes)
        ui.viewsSelector.connect("checkedNodesChanged()", self._on_volumes_checked)
        ui.partBox.connect("currentIndexChanged(int)", self._on_part)
        ui.roiSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_roi)
        ui.roiSelector.connect("nodeAddedByUser(vtkMRMLNode*)", panel.place_roi)
        ui.nextButton.connect("clicked()", self._next)
        self._show_part()

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic == "study":
            self.show_volume()
        elif topic in ("server", "turn", "sending"):
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

    # Part of the volume -----------------------------------------------------------------------

    @property
    def part(self) -> str:
        """The chosen part: "whole", "slice:Red" (or another view) or "region"."""
        return chosen_in(self._ui.partBox) or WHOLE

    def set_part(self, part: str) -> None:
        """Choose the part of the volume."""
        index = self._ui.partBox.findData(part)
        if index >= 0:
            self._ui.partBox.currentIndex = index

    def region(self) -> tuple:
        """Return the chosen part as JSON for the server, and in words; None and "" for all."""
        volume, part = self._panel.volume, self.part
        if part == REGION:
            roi = self._ui.roiSelector.currentNode()
            if roi is None:
                raise ClientError(_("Choose or create a region of interest first."), "request")
            return scene.roi_region(volume, roi), _("in {region}").format(region=roi.GetName())
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
        self._panel.tell("study")

    def _show_part(self) -> None:
        show(self.part == REGION, self._ui.roiLabel, self._ui.roiSelector)

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
                fill(ui.strategyBox, items, chosen_in(ui.strategyBox))
        can_go_on = is_connected and not session.is_busy and ui.strategyBox.count > 0
        ui.strategyBox.enabled = is_connected
        ui.nextButton.enabled = can_go_on and not self._is_fetching
        show(is_connected, ui.strategyLabel, ui.strategyBox, ui.nextButton)
        show(is_connected and bool(ui.nextText.text), ui.nextText)

    def _say(self, text: str) -> None:
        self._ui.nextText.text = text
        self._show_next()

    def _next(self) -> None:
        strategy = chosen_in(self._ui.strategyBox)
        if strategy is None or self._is_fetching:
            return
        self._is_fetching = True
        self._folder = tempfile.mkdtemp(prefix="radfound-", dir=slicer.app.temporaryPath)
        self._say(_("Choosing and fetching …"))
        self._session.next_study(strategy, self._folder, self._fetched, self._failed)
        self._show_next()

    def _fetched(self, found: Optional[tuple]) -> None:
        if found is None:
            self._failed(_("Every study on this server has been read."))
            return
        choice, path = found
        image = str(choice["id"])
        try:
            volume = scene.load_volume(path, image)
        except ClientError as error:
            self._failed(f"{image}: {error.message}")
            return
        self._end_fetching()
        self._panel.remember_origin(volume, image)
        self._ui.volumeSelector.setCurrentNode(volume)
        reason = str(choice.get("reason") or "").strip()
        text = _("{image}: {reason}.").format(image=image, reason=reason) if reason else image
        self._say(text)
        self._panel.tell("study")

    def _failed(self, message: str) -> None:
        self._end_fetching()
        self._say(message)

    def _end_fetching(self) -> None:
        self._is_fetching = False
        # The folder holds a patient's study, which Slicer has loaded.
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = os.devnull


def _view_words() -> dict:
    return {
        "Red": _("Slice in the red view"),
        "Yellow": _("Slice in the yellow view"),
        "Green": _("Slice in the green view"),
    }
