"""The stream of one answer: a backend's thread puts tokens in, one caller takes them out."""

import asyncio
import threading

import pytest

from radfound.engine.stream import Stream, Token
from radfound.exceptions import Cancelled, RequestError

TOKENS = [Token("a"), Token("b"), Token("", last=True)]


def filled(error=None):
    stream = Stream()
    for token in TOKENS:
        stream.put(token)
    stream.fail(error) if error else stream.end()
    return stream


async def collected(stream):
    return [token async for token in stream]


def test_tokens_come_out_as_they_went_in_either_way():
    assert list(filled()) == asyncio.run(collected(filled())) == TOKENS


def test_an_error_is_raised_after_the_tokens_before_it():
    taken = []
    with pytest.raises(RequestError, match="too long"):
        for token in filled(RequestError("too long")):
            taken.append(token)
    assert taken == TOKENS
    with pytest.raises(RequestError, match="too long"):
        asyncio.run(collected(filled(RequestError("too long"))))


def test_a_caller_that_waits_gets_tokens_of_another_thread():
    def put(stream):
        for token in TOKENS:
            stream.put(token)
        stream.end()

    async def waiting():
        stream = Stream()
        asyncio.get_running_loop().call_later(
            0.05, threading.Thread(target=put, args=[stream]).start
        )
        return await collected(stream)

    assert asyncio.run(waiting()) == TOKENS
    stream = Stream()
    threading.Timer(0.05, put, [stream]).start()
    assert list(stream) == TOKENS


def test_cancelling_wakes_the_caller_and_tells_the_backend_once():
    told = []

    async def waiting():
        stream = Stream(on_cancel=lambda: told.append(1))
        asyncio.get_running_loop().call_later(0.05, threading.Thread(target=stream.cancel).start)
        await collected(stream)

    with pytest.raises(Cancelled):
        asyncio.run(waiting())
    stream = Stream(on_cancel=lambda: told.append(2))
    threading.Timer(0.05, stream.cancel).start()
    with pytest.raises(Cancelled):
        list(stream)
    stream.cancel()
    assert stream.is_cancelled and told == [1, 2]


def test_cancelling_after_the_end_changes_nothing():
    stream = filled()
    stream.cancel()
    assert not stream.is_cancelled and list(stream) == TOKENS


def test_a_caller_whose_event_loop_has_stopped_counts_as_gone():
    stream = Stream()

    async def leave():
        task = asyncio.ensure_future(anext(aiter(stream)))
        await asyncio.sleep(0)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(leave())
    loop.close()
    stream.put(Token("a"))
    assert stream.is_cancelled
    task._log_destroy_pending = False
