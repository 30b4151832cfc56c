"""The adapter of the next answer: the store's active one, or the last one that can be used."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from radfound.engine.confidence import Calibration
from radfound.engine.protocol import Backend
from radfound.exceptions import AdapterError, CheckpointError, NotFoundError, RadFoundError
from radfound.records.adapters import AdapterStore

logger = logging.getLogger(__name__)

_RETRY_S = 60.0
_MAX_FALLBACKS = 4
_MAX_ADAPTERS = 8  # that the backend has at the same time


@dataclass(frozen=True)
class _Refused:
    """An active adapter that cannot be used."""

    adapter: str
    reason: str
    until: float  # monotonic time of the next attempt: the adapter may have been repaired


class ActiveAdapter:
    """Gives a backend the adapters that a store has published, when they are needed. Thread-safe.

    Parameters
    ----------
    backend : Backend
    store : AdapterStore or None
    """

    def __init__(self, backend: Backend, store: AdapterStore | None):
        self._backend, self._store = backend, store
        self._adapter: str | None = None
        self._refused: _Refused | None = None
        # Adapters that the backend has, oldest first, with the calibration of each.
        self._available: dict[str, Calibration | None] = {}
        self._lock = threading.RLock()

    def next(self) -> tuple[str | None, str | None]:
        """Return the adapter of the next answer and, if it is not the active one, the reason; never blocks."""
        if self._store is None:
            return None, None
        try:
            active = self._store.active()
        except RadFoundError as error:
            return self._adapter, str(error)
        refused = self._refused
        if refused is not None and refused.adapter == active:
            return self._adapter, refused.reason
        return active, None

    def current(self) -> str | None:
        """Return the active adapter; if it cannot be used, the one before it or None."""
        if self._store is None:
            return None
        with self._lock:
            try:
                active = self._store.active()
            except RadFoundError as error:
                logger.error("%s; answering with %s", error, self._adapter or "the base model")
                return self._adapter
            if active != self._adapter and not self._is_refused(active):
                try:
                    self._use(active)
                except (AdapterError, NotFoundError) as error:
                    assert active is not None
                    self._use_former(self._store, active)
                    self._refused = _Refused(active, str(error), time.monotonic() + _RETRY_S)
                    logger.error("%s; answering with %s", error, self._adapter or "the base model")
            return self._adapter

    def _is_refused(self, adapter: str | None) -> bool:
        refused = self._refused
        if refused is None or refused.adapter != adapter:
            return False
        return time.monotonic() < refused.until

    def _use_former(self, store: AdapterStore, refused: str) -> None:
        """Use the most recent former adapter that loads, or the base model."""
        former = [name for name in dict.fromkeys(store.former()) if name != refused]
        for adapter in former[:_MAX_FALLBACKS]:
            try:
                self._use(adapter)
                return
            except (AdapterError, NotFoundError) as error:
                logger.error("%s", error)
        self._use(None)

    def _use(self, adapter: str | None) -> None:
        if adapter is not None:
            self.make_available(adapter)
        self._adapter, self._refused = adapter, None

    def make_available(self, adapter: str) -> None:
        """Give an adapter to the backend; AdapterError if it does not fit, NotFoundError if it is gone."""
        if self._store is None:
            raise NotFoundError(f"adapter {adapter}: this engine has no adapters; ask again")
        model = self._backend.describe()
        if model.abilities.adapters == "none":
            raise AdapterError(f"adapter {adapter}: {model.name} cannot use adapters")
        with self._lock:
            if adapter not in self._available:
                self._add(adapter, self._store, model.revision)

    def calibration(self, adapter: str) -> Calibration | None:
        """Return the calibration of an adapter that the backend has; None if it was trained without one."""
        return self._available.get(adapter)

    def forget(self, adapter: str) -> None:
        """Give an adapter to the backend again before its next use, because the backend has lost it."""
        with self._lock:
            self._available.pop(adapter, None)
            if self._adapter == adapter:
                self._adapter = None

    def _add(self, adapter: str, store: AdapterStore, revision: str) -> None:
        base = store.manifest(adapter).get("base_revision")
        if base not in (None, revision):
            raise AdapterError(
                f"adapter {adapter}: trained on base model {base}, but {revision} is loaded; train it again"
            )
        folder = store.path(adapter)
        self._backend.use_adapter(adapter, folder)
        self._available[adapter] = _calibration(folder, revision)
        for oldest in list(self._available)[:-_MAX_ADAPTERS]:
            if oldest != self._adapter:
                del self._available[oldest]
                self._backend.drop_adapter(oldest)


def _calibration(folder: Path, revision: str) -> Calibration | None:
    try:
        return Calibration.read(folder, revision)
    except CheckpointError as error:
        logger.error("adapter %s: its answers have no confidence: %s", folder.name, error)
        return None
