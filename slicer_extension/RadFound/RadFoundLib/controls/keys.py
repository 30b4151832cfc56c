"""Keys for what a reader does all day; shown in tooltips, changeable in the options."""

from typing import Any

import qt

from ..translation import _
from .widgets import guarded

# The button that each action presses.
_BUTTONS = {
    "accept": "acceptButton",
    "edit": "editButton",
    "reject": "rejectButton",
    "next": "acceptNextButton",
    "caption": "captionButton",
    "report": "reportButton",
}


class Keys:
    """A shortcut for each action, active while the module is open."""

    def __init__(self, panel: Any):
        self._panel, self._ui = panel, panel.ui
        self._tips = {action: getattr(self._ui, name).toolTip for action, name in _BUTTONS.items()}
        self._shortcuts = {}
        for action in _BUTTONS:
            shortcut = qt.QShortcut(qt.QKeySequence(), self._ui.askSection)
            shortcut.connect("activated()", guarded(lambda action=action: self._press(action)))
            self._shortcuts[action] = shortcut
        self.use(panel.settings.shortcuts())

    def use(self, keys: dict) -> None:
        """Take these keys, by action, and show them in the tooltips."""
        for action, key in keys.items():
            self._shortcuts[action].setKey(qt.QKeySequence(key))
            button = getattr(self._ui, _BUTTONS[action])
            button.toolTip = f"{self._tips[action]} ({key})" if key else self._tips[action]

    def enable(self, is_open: bool) -> None:
        """Activate the keys while the module is open, and leave them to others otherwise."""
        for shortcut in self._shortcuts.values():
            shortcut.enabled = is_open

    def text(self) -> str:
        """Return the keys, one action in each line, for the reader to change."""
        keys = self._panel.settings.shortcuts()
        return "\n".join(f"{action} = {keys[action]}" for action in _BUTTONS)

    def set_text(self, text: str) -> str:
        """Take changed keys; returns what is wrong with a line, or an empty text."""
        trouble = ""
        found = {}
        for line in filter(None, map(str.strip, text.split("\n"))):
            action, _equals, key = (part.strip() for part in line.partition("="))
            if action not in _BUTTONS:
                trouble = _("Keys: found {found}; expected one of {actions}.").format(
                    found=action[:40], actions=", ".join(_BUTTONS)
                )
                continue
            found[action] = key
        for action in _BUTTONS:
            self._panel.settings.set_shortcut(action, found.get(action, ""))
        self.use(self._panel.settings.shortcuts())
        return trouble

    def _press(self, action: str) -> None:
        button = getattr(self._ui, _BUTTONS[action])
        if action == "edit" and not button.enabled:
            self._panel.correct.act("edit")
        elif button.enabled:
            button.click()
