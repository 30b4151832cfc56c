"""Requests of one adapter at a time, where a server mixes adapters in a batch.

vLLM 0.32 on a CPU answers a request of the base model with the adapter of another request in the same batch. In use,
nearly all requests name the same adapter, so that waiting for the others costs little.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Admits requests in the order of their arrival, and never two adapters together.

    Used on one event loop only.
    """

    def __init__(self) -> None:
        self._adapter: str | None = None
        self._running = 0
        self._waiting: deque[tuple[str | None, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def of(self, adapter: str | None) -> AsyncIterator[None]:
        """Wait until requests of an adapter, or of the base model, may run."""
        entry = adapter, asyncio.get_running_loop().create_future()
        self._waiting.append(entry)
        self._admit()
        try:
            await entry[1]
            yield
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:
                self._running -= 1
            self._admit()

    def _admit(self) -> None:
        while self._waiting and (not self._running or self._waiting[0][0] == self._adapter):
            self._adapter, admitted = self._waiting.popleft()
            self._running += 1
            if not admitted.done():
                admitted.set_result(None)
