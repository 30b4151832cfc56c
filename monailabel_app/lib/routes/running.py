"""Wait for work while a connection is open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

from radfound.exceptions import Cancelled

T = TypeVar("T")


async def run_for(request: Request, work: Awaitable[T]) -> T:
    """Return the result of some work; cancel the work when the caller disconnects.

    The body of the request must have been received.
    """
    task = asyncio.ensure_future(work)
    disconnected = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Cancelled("the caller has gone")
        return task.result()
    finally:
        disconnected.cancel()
        task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
