"""Wait for work in other threads, and cancel it when the caller disconnects."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from fastapi import Request

T = TypeVar("T")

_POLL_S = 0.25


async def run_for(request: Request, start: Callable[[threading.Event], Future[T]]) -> T:
    """Wait for the work that `start` submits; set its event when the connection closes."""
    cancel = threading.Event()
    future = asyncio.wrap_future(start(cancel))
    try:
        while not (await asyncio.wait([future], timeout=_POLL_S))[0]:
            if await request.is_disconnected():
                cancel.set()
        return future.result()
    finally:
        cancel.set()
