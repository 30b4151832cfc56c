"""Settings that persist between sessions of Slicer; tokens do not."""

import json
import uuid
from typing import Any

import qt

from ..translation import _

_MOST_ADDRESSES = 10
_FOLD_BELOW = 0.4
DEFAULT_ADDRESS = "http://127.0.0.1:8000"


class Settings:
    """The module's part of Slicer's settings; lists are JSON, independent of the Qt version."""

    def __init__(self) -> None:
        self._store = qt.QSettings()

    def addresses(self) -> list:
        """Return the servers used before, the latest first."""
        return self._list("Addresses") or [DEFAULT_ADDRESS]

    def add_address(self, address: str) -> None:
        """Put an address first."""
        others = [other for other in self._list("Addresses") if other != address]
        self.set_addresses([address, *others][:_MOST_ADDRESSES])

    def set_addresses(self, addresses: list) -> None:
        """Remember these servers."""
        self._write("Addresses", addresses)

    def consents(self) -> set:
        """Return the servers that images may be sent to."""
        return set(self._list("Consents"))

    def set_consents(self, addresses: set) -> None:
        """Remember the servers that images may be sent to."""
        self._write("Consents", sorted(addresses))

    def ca_files(self) -> dict:
        """Return the files of certificates to trust, by the origin of a server."""
        try:
            found = json.loads(self._text("Certificates") or "{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def set_ca_files(self, files: dict) -> None:
        """Remember the files of certificates to trust."""
        self._write("Certificates", files)

    def reader(self) -> str:
        """Return a random id, made once, that tells this user of a server from others."""
        found = self._text("Reader")
        if not found:
            found = uuid.uuid4().hex
            self._store.setValue("RadFound/Reader", found)
        return found

    def strategy(self) -> str:
        """Return the strategy that the reader chose last for the next study."""
        return self._text("Strategy")

    def set_strategy(self, strategy: str) -> None:
        """Remember the strategy for the next study."""
        self._store.setValue("RadFound/Strategy", strategy)

    def author(self) -> str:
        """Return the author of corrections, as last entered."""
        return self._text("Author")

    def set_author(self, author: str) -> None:
        """Remember the author of corrections."""
        self._store.setValue("RadFound/Author", author)

    def fold_below(self) -> float:
        """Return the confidence below which an answer is folded; 0 folds none."""
        try:
            return float(self._text("FoldBelow") or _FOLD_BELOW)
        except ValueError:
            return _FOLD_BELOW

    def set_fold_below(self, confidence: float) -> None:
        """Remember the confidence below which an answer is folded."""
        self._store.setValue("RadFound/FoldBelow", str(confidence))

    def shortcuts(self) -> dict:
        """Return the key of each action, such as {"accept": "Ctrl+Return"}."""
        found = {}
        for action, key in default_shortcuts().items():
            found[action] = self._text("Shortcut." + action) or key
        return found

    def set_shortcut(self, action: str, key: str) -> None:
        """Remember the key of an action; an empty key restores the default."""
        self._store.setValue("RadFound/Shortcut." + action, key)

    def prompts(self) -> list:
        """Return the quick prompts."""
        return self._list("Prompts") or default_prompts()

    def set_prompts(self, prompts: list) -> None:
        """Remember the quick prompts; an empty list restores the defaults."""
        self._write("Prompts", prompts if prompts != default_prompts() else [])

    def _text(self, key: str) -> str:
        value = self._store.value("RadFound/" + key)
        return value if isinstance(value, str) else ""

    def _list(self, key: str) -> list:
        try:
            found = json.loads(self._text(key) or "[]")
        except ValueError:
            return []
        return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []

    def _write(self, key: str, values: Any) -> None:
        self._store.setValue("RadFound/" + key, json.dumps(values))


def default_shortcuts() -> dict:
    """Return the keys of the actions until the reader changes them."""
    return {
        "accept": "Alt+1",
        "edit": "Alt+2",
        "reject": "Alt+3",
        "next": "Alt+4",
        "caption": "Alt+5",
        "report": "Alt+6",
        "accept-sentence": "A",
        "edit-sentence": "E",
        "strike-sentence": "X",
        "where-sentence": "W",
    }


def default_prompts() -> list:
    """Return the default quick prompts."""
    return [
        _("Which imaging modality is this?"),
        _("In which plane is this image?"),
        _("Which body region is shown?"),
        _("Is there anything abnormal?"),
        _("Is there an effusion?"),
        _("Is there a fracture?"),
        _("Is there a mass?"),
    ]
