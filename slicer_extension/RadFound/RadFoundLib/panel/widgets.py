"""Small things done to widgets in several sections."""

from collections.abc import Sequence
from typing import Any


def show(visible: bool, *widgets: Any) -> None:
    """Show or hide widgets."""
    for widget in widgets:
        widget.visible = visible


def fill(box: Any, items: Sequence, chosen: Any) -> None:
    """Put (text, data) items into a combo box without telling anyone, and choose one by its data."""
    blocked = box.blockSignals(True)
    box.clear()
    for text, data in items:
        box.addItem(text, data)
    found = [index for index, (_text, data) in enumerate(items) if data == chosen]
    box.currentIndex = found[0] if found else (0 if items else -1)
    box.blockSignals(blocked)


def chosen_in(box: Any) -> Any:
    """Return the data of what is chosen in a combo box."""
    return box.itemData(box.currentIndex) if box.currentIndex >= 0 else None
