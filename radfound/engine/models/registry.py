"""Models that are loaded: at their first question, several within a memory bound."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from radfound.engine.models.settings import Models, ModelSettings
from radfound.exceptions import Busy, CheckpointError, ModelServerError

logger = logging.getLogger(__name__)
_GB = 2**30


class _Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Closable)


@dataclass
class _Entry(Generic[T]):
    settings: ModelSettings
    loading: threading.Lock = field(default_factory=threading.Lock)
    model: T | None = None
    has_room: bool = False
    users: int = 0
    used: int = 0


class Registry(Generic[T]):
    """Loads models when they are needed, and closes the least used where memory is short.

    Parameters
    ----------
    models : Models
    build : callable
        Makes a backend, or an engine with one, from a model's settings; it is closed by `close`.
    """

    def __init__(self, models: Models, build: Callable[[ModelSettings], T]):
        self._models, self._build = models, build
        self._bound = _bound_bytes(models)
        self._entries = {model.name: _Entry[T](model) for model in models.models}
        self._clock = itertools.count(1)
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def models(self) -> Models:
        """The settings of all models."""
        return self._models

    def loaded(self) -> dict[str, T]:
        """Return the models that are loaded now, by name; never blocks."""
        with self._lock:
            return {
                name: entry.model
                for name, entry in self._entries.items()
                if entry.model is not None
            }

    @contextmanager
    def use(self, name: str | None = None) -> Iterator[T]:
        """Lend a model, loaded if needed; it is not closed meanwhile.

        Parameters
        ----------
        name : str or None
            None for the default model.

        Raises
        ------
        ModelSettingsError
            If there is no model of that name.
        Busy
            If other models that are answering take the memory.
        RadFoundError
            If the model cannot be loaded; the next call tries again.
        """
        entry = self._entries[self._models.named(name).name]
        with self._lock:
            if self._is_closed:
                raise ModelServerError("the server is stopping; ask again when it is back")
            entry.users += 1
            entry.used = next(self._clock)
        try:
            yield self._load(entry)
        finally:
            with self._lock:
                entry.users -= 1

    def close(self) -> None:
        """Close all models, also those that are answering."""
        with self._lock:
            self._is_closed = True
            closing = [entry for entry in self._entries.values() if entry.model is not None]
        for entry in closing:
            self._close(entry)

    def _load(self, entry: _Entry[T]) -> T:
        with entry.loading:
            if entry.model is None:
                self._make_room(entry)
                try:
                    entry.model = self._build(entry.settings)
                except BaseException:
                    entry.has_room = False
                    raise
            return entry.model

    def _make_room(self, entry: _Entry[T]) -> None:
        """Reserve memory for a model; close the least used ones that are idle, until it fits."""
        needed = entry.settings.memory_bytes
        if needed > self._bound:
            raise CheckpointError(
                f"{entry.settings.name}: needs {needed / _GB:.1f} GB; the models together may take "
                f"{self._bound / _GB:.1f} GB: raise memory_gb in the settings of the models, or quantise it"
            )
        while True:
            with self._lock:
                taken = sum(e.settings.memory_bytes for e in self._entries.values() if e.has_room)
                if taken + needed <= self._bound:
                    entry.has_room = True
                    return
                idle = [
                    each
                    for each in self._entries.values()
                    if each.model is not None and not each.users and each.settings.memory_bytes
                ]
                if not idle:
                    raise Busy(
                        f"{entry.settings.name}: other models are answering and take the memory; ask again in "
                        "a moment"
                    )
                least = min(idle, key=lambda each: each.used)
                model, least.model = least.model, None
            logger.info("closing the model %s to load %s", least.settings.name, entry.settings.name)
            if model is not None:
                model.close()
            with self._lock:
                least.has_room = False

    def _close(self, entry: _Entry[T]) -> None:
        with self._lock:
            model, entry.model, entry.has_room = entry.model, None, False
        if model is not None:
            model.close()


def _bound_bytes(models: Models) -> int:
    if models.memory_gb is not None:
        return round(models.memory_gb * _GB)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
