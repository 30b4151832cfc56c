"""The HTTP client of a model server, on an event loop of its own.

It follows no redirect and reads no proxy, key or header from the environment: requests go to the address of the
settings only, with what this package puts in them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import httpx2
import openai

from radfound.engine.openai.address import Address
from radfound.engine.openai.limits import Limits
from radfound.exceptions import ModelServerError

T = TypeVar("T")

ATTEMPTS = 4
_FIRST_WAIT_S = 0.25
_MOST_BYTES = 32 * 2**20  # of one reply; an answer with 20 log-probabilities a token is far below
_SENT = ("host", "content-type", "content-length", "transfer-encoding", "accept", "connection")


def silence_logs() -> None:
    """Let the client's libraries log warnings only: at lower levels they write requests."""
    for name in ("openai", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


class Connection:
    """Requests to one server, from any thread.

    Parameters
    ----------
    address : Address
    key : str or None
        Sent as a bearer token.
    limits : Limits
    """

    def __init__(self, address: Address, key: str | None, limits: Limits):
        silence_logs()
        timeout = httpx2.Timeout(limits.silence_s, connect=limits.connect_s)
        self._address = address
        self._client = openai.AsyncOpenAI(
            base_url=address.url,
            api_key="unused",  # the transport writes the header
            max_retries=0,
            timeout=timeout,
            http_client=httpx2.AsyncClient(
                transport=_Transport(key),
                timeout=timeout,
                trust_env=False,
                follow_redirects=False,
            ),
        )
        self._loop = asyncio.new_event_loop()
        self._is_closed = False
        self._closing = threading.Lock()
        self._running: set[Future[Any]] = set()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"requests to {address.host}", daemon=True
        )
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the event loop; cancelling the future cancels it."""
        with self._closing:
            if self._is_closed:
                coroutine.close()
                raise ModelServerError("the connection to the model server is closed; ask again")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the event loop and return its result."""
        return self.start(coroutine).result()

    async def get(self, url: str) -> Any:
        """Return the JSON at a path of the protocol, or at a full URL of the server."""
        return await _with_retries(lambda: self._client.get(url, cast_to=object))

    async def post(self, url: str, body: dict[str, Any]) -> Any:
        """Post JSON and return the reply: JSON, or text."""
        return await _with_retries(lambda: self._client.post(url, cast_to=object, body=body))

    async def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a whole chat completion."""
        reply = await self.post("/chat/completions", body)
        if not isinstance(reply, dict) or not reply.get("choices"):
            raise ModelServerError(
                f"{self._address.host}: the reply is no chat completion; expected a server of the "
                "chat-completions protocol at this address"
            )
        return reply

    async def chat_chunks(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks of a streamed chat completion.

        A connection that cannot be made, or that breaks before the first chunk, is tried again after a
        pause: the server has given nothing yet. Closing the iterator closes the connection.
        """
        has_begun = False
        for attempt in range(ATTEMPTS):
            try:
                stream = await self._client.post(
                    "/chat/completions",
                    cast_to=object,
                    body={**body, "stream": True},
                    stream=True,
                    stream_cls=openai.AsyncStream[object],
                )
                async with stream:
                    async for chunk in stream:
                        has_begun = True
                        if isinstance(chunk, dict):
                            yield chunk
                return
            except _BROKEN as error:
                if has_begun or not _is_worth_another_try(error, attempt):
                    raise
            await _pause(attempt)

    def close(self) -> None:
        """Cancel what runs and close all connections."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            running = tuple(self._running)
        for future in running:
            future.cancel()
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()
        await self._loop.shutdown_default_executor()


_BROKEN = (openai.APIConnectionError, httpx2.TransportError)


async def _with_retries(send: Callable[[], Awaitable[T]]) -> T:
    for attempt in range(ATTEMPTS):
        try:
            return await send()
        except _BROKEN as error:
            if not _is_worth_another_try(error, attempt):
                raise
        await _pause(attempt)
    raise AssertionError("the last attempt raises")


def _is_worth_another_try(error: BaseException, attempt: int) -> bool:
    """Whether a connection failed, rather than a server that is too slow to answer."""
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    is_slow = isinstance(cause, (httpx2.ReadTimeout, httpx2.WriteTimeout))
    return attempt < ATTEMPTS - 1 and not is_slow


async def _pause(attempt: int) -> None:
    await asyncio.sleep(_FIRST_WAIT_S * 2**attempt * random.uniform(0.8, 1.2))


class _Transport(httpx2.AsyncHTTPTransport):
    """Sends the headers that a request needs and no others, and bounds the length of a reply.

    The client would add headers from the environment and about this machine.
    """

    def __init__(self, key: str | None):
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        super().__init__(limits=limits, trust_env=False)
        self._authorization = {} if key is None else {"authorization": f"Bearer {key}"}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers = httpx2.Headers(
            {
                **{name: value for name, value in request.headers.items() if name in _SENT},
                "accept-encoding": "identity",
                "user-agent": "radfound",
                **self._authorization,
            }
        )
        response = await super().handle_async_request(request)
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(response.stream)
        return response


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream):
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = 0
        async for data in self._stream:
            count += len(data)
            if count > _MOST_BYTES:
                raise ModelServerError(
                    f"the model server sent more than {_MOST_BYTES >> 20} MB for one answer; the answer was "
                    "ended; look at the server"
                )
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()
