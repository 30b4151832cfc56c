"""Work off the event loop, given up when the caller goes away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from fastapi import Request

T = TypeVar("T")

_LOOK_AGAIN_S = 0.25


async def run_for(request: Request, start: Callable[[threading.Event], Future[T]]) -> T:
    """Wait for work that `start` begins; its event is set once the connection has closed."""
    cancel = threading.Event()
    future = asyncio.wrap_future(start(cancel))
    try:
        while not (await asyncio.wait([future], timeout=_LOOK_AGAIN_S))[0]:
            if await request.is_disconnected():
                cancel.set()
        return future.result()
    finally:
        cancel.set()
