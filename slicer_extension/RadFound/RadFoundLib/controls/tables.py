"""Tables of texts: rows fit their words, and the chosen row stays chosen when a table is filled anew."""

from collections.abc import Hashable, Sequence
from typing import Any, Optional

import qt

from .widgets import guarded


class Table:
    """A table of the panel, with a key for each row.

    Parameters
    ----------
    widget : QTableWidget
    titles : sequence of str
    stretched : sequence of int
        Columns that share the width; the others are as wide as their texts.
    most_lines : int
        Maximum height, in lines of text; the table is no higher than its rows.
    """

    def __init__(
        self,
        widget: Any,
        titles: Sequence[str],
        stretched: Sequence[int],
        most_lines: int,
    ):
        self._widget, self._most_lines = widget, most_lines
        self._keys: list = []
        widget.columnCount = len(titles)
        widget.setHorizontalHeaderLabels(titles)
        widget.verticalHeader().hide()
        header = widget.horizontalHeader()
        header.setStretchLastSection(False)
        for column in range(len(titles)):
            mode = qt.QHeaderView.Stretch
            if column not in stretched:
                mode = qt.QHeaderView.ResizeToContents
            header.setSectionResizeMode(column, mode)
        # A table in a folded section has no width yet, and its rows would be wrapped far too high. The
        # header tells of a new width before it has it.
        self._later = qt.QTimer()
        self._later.setSingleShot(True)
        self._later.connect("timeout()", guarded(self._fit))
        header.connect("sectionResized(int,int,int)", guarded(lambda *_sizes: self._later.start(0)))

    @property
    def chosen(self) -> Optional[Hashable]:
        """Key of the chosen row, or None."""
        row = self._widget.currentRow()
        return self._keys[row] if 0 <= row < len(self._keys) else None

    def choose(self, key: Optional[Hashable]) -> None:
        """Choose the row with this key, or none."""
        if key in self._keys:
            self._widget.selectRow(self._keys.index(key))
        else:
            self._widget.setCurrentCell(-1, -1)

    def fill(self, rows: Sequence[tuple[Hashable, Sequence[str]]]) -> None:
        """Show these (key, texts of the columns), without signals."""
        chosen, widget = self.chosen, self._widget
        blocked = widget.blockSignals(True)
        self._keys = [key for key, _texts in rows]
        widget.rowCount = len(rows)
        for row, (_key, texts) in enumerate(rows):
            for column, text in enumerate(texts):
                widget.setItem(row, column, qt.QTableWidgetItem(text))
        self.choose(chosen)
        widget.blockSignals(blocked)
        self._fit()

    def _fit(self) -> None:
        widget = self._widget
        widget.resizeRowsToContents()
        height = widget.horizontalHeader().height + widget.verticalHeader().length()
        height = min(
            height + 2 * widget.frameWidth,
            self._most_lines * widget.fontMetrics().lineSpacing(),
        )
        widget.minimumHeight = widget.maximumHeight = height
