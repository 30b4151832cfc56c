import threading

import numpy as np
import pytest
import torch

from radfound.engine.engine import Engine
from radfound.engine.local import scheduler as writing
from radfound.engine.local.backend import LocalModel, Prompt
from radfound.engine.local.scheduler import Scheduler
from radfound.exceptions import Cancelled, RequestError
from radfound.study.region import Box
from radfound.study.study import Study, StudyImage


@pytest.fixture(scope="module")
def local():
    return LocalModel.load("radfound-tiny", dtype=torch.float32)


@pytest.fixture(scope="module")
def study():
    return Study((StudyImage(np.arange(192, dtype=np.int16).reshape(3, 8, 8), np.eye(4)),))


@pytest.fixture(scope="module")
def begin(local, study):
    prefix = local.prefill(local.encode(study))
    return lambda: (prefix, local.question_ids(Prompt("vqa", "Why?")))


@pytest.fixture
def scheduler(local):
    return Scheduler(local.batch(), lambda is_idle: True)


def test_a_newcomer_is_written_while_a_long_answer_goes_on(scheduler, begin):
    long = scheduler.stream(begin, 400, None)
    next(long)
    assert len(list(scheduler.stream(begin, 3, None))) == 3
    assert not scheduler.is_idle
    long.close()


def test_newcomers_wait_where_they_may_not_begin(local, begin):
    """As they do until the answers of the former adapter have ended."""
    asked = []

    def may_begin(is_idle):
        asked.append(is_idle)
        return is_idle

    scheduler = Scheduler(local.batch(), may_begin)
    first = scheduler.stream(begin, 6, None)
    next(first)
    assert len(list(scheduler.stream(begin, 2, None))) == 2
    assert len(list(first)) == 5
    assert asked[0] is True and asked[-1] is True


def test_who_leaves_makes_room_at_once(scheduler, begin):
    readers = [scheduler.stream(begin, 400, None) for _ in range(8)]
    for reader in readers:
        next(reader)
    readers[0].close()
    assert len(list(scheduler.stream(begin, 2, None))) == 2
    for reader in readers[1:]:
        reader.close()


@pytest.fixture
def long_prompt(local, study):
    prefix = local.prefill(local.encode(study))
    return lambda: (prefix, local.question_ids(Prompt("vqa", "Why? " * 300)))


def reading(scheduler, monkeypatch):
    """Count the pieces that are read."""
    pieces, read = [], scheduler._batch.prefill
    monkeypatch.setattr(scheduler._batch, "prefill", lambda *each: pieces.append(1) or read(*each))
    return pieces


def test_a_short_question_is_answered_while_a_long_one_is_read(
    scheduler, begin, long_prompt, monkeypatch
):
    monkeypatch.setattr(writing, "_CHUNK_TOKENS", 8)
    pieces = reading(scheduler, monkeypatch)
    first = []
    long = threading.Thread(target=lambda: first.extend(scheduler.stream(long_prompt, 1, None)))
    long.start()
    assert len(list(scheduler.stream(begin, 12, None))) == 12
    assert not first and len(pieces) < 1500 // 8
    long.join(120)
    assert len(first) == 1 and len(pieces) >= 1500 // 8


def test_the_reading_of_a_prompt_stops_when_its_caller_leaves(scheduler, long_prompt, monkeypatch):
    monkeypatch.setattr(writing, "_CHUNK_TOKENS", 8)
    pieces, cancel = reading(scheduler, monkeypatch), threading.Event()
    threading.Timer(0.05, cancel.set).start()
    with pytest.raises(Cancelled):
        list(scheduler.stream(long_prompt, 1, cancel))
    while not scheduler.call(lambda: scheduler.is_idle):
        pass
    assert len(pieces) < 1500 // 8


def test_who_waits_is_told_where_nobody_may_begin(local, begin):
    scheduler = Scheduler(local.batch(), lambda is_idle: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            list(scheduler.stream(begin, 3, None))


def test_what_goes_wrong_for_one_is_heard_by_that_one(scheduler, begin):
    going = scheduler.stream(begin, 50, None)
    next(going)

    def wrong():
        raise RequestError("question: wrong")

    with pytest.raises(RequestError, match="wrong"):
        next(scheduler.stream(wrong, 5, None))
    assert next(going)
    going.close()


def test_what_goes_wrong_for_all_is_heard_by_all_and_the_next_is_answered(
    scheduler, begin, monkeypatch
):
    readers = [scheduler.stream(begin, 400, None) for _ in range(2)]
    for reader in readers:
        next(reader)
    with monkeypatch.context() as broken:
        broken.setattr(scheduler._batch, "step", lambda: 1 / 0)
        for reader in readers:
            with pytest.raises(ZeroDivisionError):
                list(reader)
    assert len(list(scheduler.stream(begin, 3, None))) == 3


def test_a_call_between_two_tokens_returns_or_raises(scheduler, begin):
    long = scheduler.stream(begin, 400, None)
    next(long)
    assert scheduler.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        scheduler.call(lambda: 1 / 0)
    long.close()


def test_one_who_has_given_up_is_not_begun(scheduler):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        next(scheduler.stream(lambda: pytest.fail("begun"), 5, cancel))


def test_one_thread_writes_all_and_ends_when_there_is_nothing_to_do(scheduler, begin, monkeypatch):
    monkeypatch.setattr(writing, "_LINGER_S", 0.3)
    before = set(threading.enumerate())
    for _ in range(3):
        list(scheduler.stream(begin, 2, None))
    (thread,) = set(threading.enumerate()) - before
    thread.join(10)
    assert not thread.is_alive()
    assert len(list(scheduler.stream(begin, 2, None))) == 2


def test_a_follow_up_reads_the_study_no_second_time(study):
    engine = Engine.load("radfound-tiny")
    for question in ("Why?", "Where?"):
        engine.answer(study, "vqa", question, max_new_tokens=2)
    assert (engine.prefixes.hits, engine.prefixes.misses) == (1, 1)
    region = Box(((-3.0, -3.0, 0.0), (0.0, 0.0, 2.0)))
    engine.answer(study, "vqa", "Why?", region=region, max_new_tokens=2)
    assert (engine.prefixes.hits, engine.prefixes.misses) == (1, 2)
