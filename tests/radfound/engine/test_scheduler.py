import threading

import numpy as np
import pytest
import torch

from radfound.engine.engine import Engine
from radfound.engine.local import scheduler as scheduler_module
from radfound.engine.local.model import LocalModel
from radfound.engine.local.scheduler import Request, Scheduler
from radfound.engine.stream import Stream
from radfound.exceptions import AdapterError, Cancelled, RequestError
from radfound.question import Question
from radfound.study.region import Box
from radfound.study.study import Study, StudyImage


@pytest.fixture(scope="module")
def local():
    return LocalModel.load("radfound-tiny", dtype=torch.float32)


@pytest.fixture(scope="module")
def study():
    return Study((StudyImage(np.arange(192, dtype=np.int16).reshape(3, 8, 8), np.eye(4)),))


@pytest.fixture(scope="module")
def prefix(local, study):
    return local.prefill(local.encode(study))


@pytest.fixture
def scheduler(local):
    return Scheduler(local.batch(), lambda adapter: None)


@pytest.fixture
def submit(local, prefix, scheduler):
    """Queue a question and return its stream."""

    def submit(limit, question="Why?", adapter=None, prepare=None, to=scheduler):
        ids = local.question_ids(Question("vqa", question))
        stream = Stream()
        to.submit(Request(stream, adapter, prepare or (lambda: (prefix, ids)), limit))
        return stream

    return submit


def begun(stream):
    """Return the rest of a stream, after its first token."""
    tokens = iter(stream)
    next(tokens)
    return tokens


def test_a_new_request_is_answered_while_a_long_answer_is_decoded(scheduler, submit):
    long = submit(400)
    begun(long)
    assert len(list(submit(3))) == 3
    assert not scheduler.is_idle
    long.cancel()


def test_a_cancelled_answer_leaves_the_batch_before_the_next_step(scheduler, submit, monkeypatch):
    streams = [submit(400) for _ in range(8)]
    for stream in streams:
        begun(stream)
    sizes, step = [], scheduler._batch.step

    def counted():
        sizes.append(len(scheduler._batch))
        return step()

    def cancel_between_two_steps():
        monkeypatch.setattr(scheduler._batch, "step", counted)
        streams[0].cancel()

    scheduler.call(cancel_between_two_steps)
    scheduler.call(lambda: None)
    assert sizes[0] == 7
    assert len(list(submit(2))) == 2
    for stream in streams[1:]:
        stream.cancel()
    with pytest.raises(Cancelled):
        list(streams[0])


def test_no_more_requests_run_than_the_batch_may_have(local, submit):
    scheduler = Scheduler(local.batch(), lambda adapter: None, max_running=2)
    streams = [submit(400, to=scheduler) for _ in range(3)]
    for stream in streams[:2]:
        begun(stream)
    assert scheduler.call(lambda: len(scheduler._running)) == 2
    streams[0].cancel()
    begun(streams[2])
    for stream in streams:
        stream.cancel()


# Adapters


@pytest.fixture
def switching(local):
    """A scheduler, and the adapters that it loads, in order."""
    used = []
    return Scheduler(local.batch(), lambda adapter: used.append(adapter)), used


def test_a_request_with_another_adapter_waits_until_the_batch_is_empty(switching, submit):
    scheduler, used = switching
    long = submit(40, adapter="a", to=scheduler)
    rest = begun(long)
    other = submit(2, adapter="b", to=scheduler)
    assert len(list(other)) == 2
    assert not list(scheduler.call(lambda: scheduler._running)) and len(list(rest)) == 39
    assert list(dict.fromkeys(used)) == ["a", "b"]


def test_requests_are_admitted_in_order_so_that_no_adapter_waits_forever(switching, submit):
    scheduler, used = switching
    first = submit(30, adapter="a", to=scheduler)
    begun(first)
    order = []
    streams = {
        number: submit(3, adapter=adapter, to=scheduler, prepare=None)
        for number, adapter in enumerate(["b", "a", "b", "a"])
    }
    threads = [
        threading.Thread(target=lambda n=n, s=s: (list(s), order.append(n)))
        for n, s in streams.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert order == [0, 1, 2, 3]
    assert [each for n, each in enumerate(used) if n == 0 or used[n - 1] != each] == list("ababa")


def test_an_adapter_that_cannot_be_loaded_fails_its_requests_only(local, submit):
    def use(adapter):
        if adapter == "damaged":
            raise AdapterError("adapter damaged: does not fit")

    scheduler = Scheduler(local.batch(), use)
    streams = [submit(3, adapter=name, to=scheduler) for name in ("good", "damaged", "good")]
    assert len(list(streams[0])) == len(list(streams[2])) == 3
    with pytest.raises(AdapterError, match="does not fit"):
        list(streams[1])


# Long prompts


def count_chunks(scheduler, monkeypatch):
    """Count the chunks that are prefilled."""
    chunks, prefill = [], scheduler._batch.prefill
    monkeypatch.setattr(
        scheduler._batch, "prefill", lambda *each: chunks.append(1) or prefill(*each)
    )
    return chunks


LONG = "Why? " * 300


def test_a_short_question_is_answered_while_a_long_one_is_prefilled(scheduler, submit, monkeypatch):
    monkeypatch.setattr(scheduler_module, "_CHUNK_TOKENS", 8)
    chunks = count_chunks(scheduler, monkeypatch)
    long = submit(1, LONG)
    assert len(list(submit(12))) == 12
    assert not long._tokens and len(chunks) < 1500 // 8
    assert len(list(long)) == 1 and len(chunks) >= 1500 // 8


def test_the_prefill_of_a_prompt_stops_when_it_is_cancelled(scheduler, submit, monkeypatch):
    monkeypatch.setattr(scheduler_module, "_CHUNK_TOKENS", 8)
    chunks = count_chunks(scheduler, monkeypatch)
    long = submit(1, LONG)
    threading.Timer(0.05, long.cancel).start()
    with pytest.raises(Cancelled):
        list(long)
    while not scheduler.call(lambda: scheduler.is_idle):
        pass
    assert len(chunks) < 1500 // 8


# Errors, calls and the thread


def test_an_error_in_one_request_is_raised_from_its_stream_only(submit):
    going = begun(submit(50))

    def wrong():
        raise RequestError("question: wrong")

    with pytest.raises(RequestError, match="wrong"):
        list(submit(5, prepare=wrong))
    assert next(going)


def test_an_error_in_a_step_is_raised_from_all_streams_and_the_next_is_answered(
    scheduler, submit, monkeypatch
):
    streams = [begun(submit(400)) for _ in range(2)]
    with monkeypatch.context() as broken:
        broken.setattr(scheduler._batch, "step", lambda: 1 / 0)
        for stream in streams:
            with pytest.raises(ZeroDivisionError):
                list(stream)
    assert len(list(submit(3))) == 3


def test_a_call_between_two_steps_returns_or_raises(scheduler, submit):
    long = submit(400)
    begun(long)
    assert scheduler.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        scheduler.call(lambda: 1 / 0)
    long.cancel()


def test_a_request_that_was_cancelled_before_is_never_prepared(scheduler, submit):
    blocked = threading.Event()
    caller = threading.Thread(target=lambda: scheduler.call(blocked.wait))
    caller.start()
    stream = submit(5, prepare=lambda: pytest.fail("prepared"))
    stream.cancel()
    blocked.set()
    caller.join(30)
    scheduler.call(lambda: None)
    with pytest.raises(Cancelled):
        list(stream)


def test_one_thread_decodes_all_and_ends_without_work(scheduler, submit, monkeypatch):
    monkeypatch.setattr(scheduler_module, "_LINGER_S", 0.3)
    before = set(threading.enumerate())
    for _ in range(3):
        list(submit(2))
    (thread,) = set(threading.enumerate()) - before
    thread.join(10)
    assert not thread.is_alive()
    assert len(list(submit(2))) == 2


def test_a_follow_up_question_does_not_prefill_the_study_again(study):
    engine = Engine.load("radfound-tiny")
    for question in ("Why?", "Where?"):
        engine.answer(study, "vqa", question, max_new_tokens=2)
    prefixes = engine.backend.prefixes
    assert (prefixes.hits, prefixes.misses) == (1, 1)
    region = Box(((-3.0, -3.0, 0.0), (0.0, 0.0, 2.0)))
    engine.answer(study, "vqa", "Why?", region=region, max_new_tokens=2)
    assert (prefixes.hits, prefixes.misses) == (1, 2)
