"""Widget helpers that several sections use."""

from collections.abc import Sequence
from typing import Any, Callable

import slicer

from ..translation import _


def guarded(function: Callable) -> Callable:
    """Return a slot that shows an unexpected error to the reader before it is raised."""

    def call(*arguments: Any) -> None:
        with slicer.util.tryWithErrorDisplay(_("Unexpected error in RadFound.")):
            function(*arguments)

    return call


def show(visible: bool, *widgets: Any) -> None:
    """Show or hide widgets."""
    for widget in widgets:
        widget.visible = visible


def limit_lines(widget: Any, least: int, most: int) -> None:
    """Let a list or an editor be as high as so many lines of its text, which may be large."""
    line = widget.fontMetrics().lineSpacing()
    widget.minimumHeight, widget.maximumHeight = least * line, most * line


def fill(box: Any, items: Sequence, chosen: Any) -> None:
    """Fill a combo box with (text, data) items and choose one by its data, without signals."""
    blocked = box.blockSignals(True)
    box.clear()
    for text, data in items:
        box.addItem(text, data)
    found = [index for index, (_text, data) in enumerate(items) if data == chosen]
    box.currentIndex = found[0] if found else (0 if items else -1)
    box.blockSignals(blocked)


def chosen_in(box: Any) -> Any:
    """Return the data of a combo box's chosen item, or None."""
    return box.itemData(box.currentIndex) if box.currentIndex >= 0 else None
