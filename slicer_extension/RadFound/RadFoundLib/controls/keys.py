"""Keys for what a reader does all day; shown beside what they do, changeable in the options."""

from typing import Any

import qt

from ..translation import _
from .widgets import guarded

# The button that each action presses, while the module is open.
_BUTTONS = {
    "accept": "acceptButton",
    "edit": "editButton",
    "reject": "rejectButton",
    "next": "acceptNextButton",
    "caption": "captionButton",
    "report": "reportButton",
}
# The same, while the list of sentences has the focus; so a letter is enough.
_SENTENCE_BUTTONS = {
    "accept-sentence": "acceptSentenceButton",
    "edit-sentence": "editSentenceButton",
    "strike-sentence": "strikeSentenceButton",
    "where-sentence": "whereSentenceButton",
}
_ALL = {**_BUTTONS, **_SENTENCE_BUTTONS}
_WIDGET_SHORTCUT = 0  # Qt::WidgetShortcut


class Keys:
    """A shortcut for each action, active while the module is open."""

    def __init__(self, panel: Any):
        self._panel, self._ui = panel, panel.ui
        self._keys: dict = {}
        self._tips = {action: getattr(self._ui, name).toolTip for action, name in _BUTTONS.items()}
        self._names = {
            action: getattr(self._ui, name).text for action, name in _SENTENCE_BUTTONS.items()
        }
        self._shortcuts = {}
        for action in _ALL:
            is_of_list = action in _SENTENCE_BUTTONS
            place = self._ui.sentenceList if is_of_list else self._ui.askSection
            shortcut = qt.QShortcut(qt.QKeySequence(), place)
            if is_of_list:
                shortcut.context = _WIDGET_SHORTCUT
            shortcut.connect("activated()", guarded(lambda action=action: self._press(action)))
            self._shortcuts[action] = shortcut
        self.use(panel.settings.shortcuts())

    def use(self, keys: dict) -> None:
        """Take these keys, by action, and show them in the tooltips and on the buttons of a sentence."""
        self._keys = keys
        for action, key in keys.items():
            self._shortcuts[action].setKey(qt.QKeySequence(key))
            if action in _BUTTONS:
                button = getattr(self._ui, _BUTTONS[action])
                button.toolTip = f"{self._tips[action]} ({key})" if key else self._tips[action]
            else:
                self.name(action, self._names[action])

    def name(self, action: str, name: str) -> None:
        """Name the button of a sentence's action, with its key."""
        self._names[action] = name
        key = self._keys.get(action)
        getattr(self._ui, _SENTENCE_BUTTONS[action]).text = f"{name} ({key})" if key else name

    def enable(self, is_open: bool) -> None:
        """Activate the keys while the module is open, and leave them to others otherwise."""
        for shortcut in self._shortcuts.values():
            shortcut.enabled = is_open

    def text(self) -> str:
        """Return the keys, one action in each line, for the reader to change."""
        keys = self._panel.settings.shortcuts()
        return "\n".join(f"{action} = {keys[action]}" for action in _ALL)

    def set_text(self, text: str) -> str:
        """Take changed keys; returns what is wrong with a line, or an empty text."""
        trouble = ""
        found: dict = {}
        for line in filter(None, map(str.strip, text.split("\n"))):
            action, _equals, key = (part.strip() for part in line.partition("="))
            if action not in _ALL:
                trouble = _("Keys: found {found}; expected one of {actions}.").format(
                    found=action[:40], actions=", ".join(_ALL)
                )
            elif key and key in found.values():
                return _("Keys: {key} is there twice, so nothing was changed.").format(key=key)
            else:
                found[action] = key
        for action in _ALL:
            self._panel.settings.set_shortcut(action, found.get(action, ""))
        self.use(self._panel.settings.shortcuts())
        return trouble

    def _press(self, action: str) -> None:
        button = getattr(self._ui, _ALL[action])
        if action == "edit" and not button.enabled:
            self._panel.correct.act("edit")
        elif button.enabled:
            button.click()
