import gc
import threading
import time
import weakref

import pytest
from RadFoundLib.net.client import Client, ClientError
from RadFoundLib.session.jobs import Jobs

from ..stub import Stub, listens


@pytest.fixture
def jobs():
    jobs = Jobs()
    yield jobs
    jobs.close()


class Heard:
    """What a job's callbacks were called with, in order, and on which threads."""

    def __init__(self):
        self.news = []
        self.threads = set()

    def of(self, name):
        def callback(value):
            self.news.append((name, value))
            self.threads.add(threading.current_thread())

        return callback

    @property
    def callbacks(self):
        return {f"on_{name}": self.of(name) for name in ("done", "error", "progress")}


def poll_until(jobs, is_met, timeout_s=5):
    deadline = time.monotonic() + timeout_s
    while not is_met():
        assert time.monotonic() < deadline, "it did not happen"
        jobs.poll()
        time.sleep(0.005)


def test_the_outcome_comes_after_all_progress_and_on_the_polling_thread(jobs):
    heard = Heard()

    def work(job):
        job.report("a")
        job.report("b")
        return threading.current_thread()

    job = jobs.submit(work, **heard.callbacks)
    assert jobs.is_busy
    poll_until(jobs, lambda: job.is_over)
    assert [name for name, _ in heard.news] == ["progress", "progress", "done"]
    assert heard.news[-1][1] is not threading.current_thread()
    assert heard.threads == {threading.current_thread()}
    assert not jobs.is_busy


def test_nothing_is_called_without_a_poll(jobs):
    heard = Heard()
    jobs.submit(lambda job: 1, **heard.callbacks)
    time.sleep(0.1)
    assert heard.news == []
    poll_until(jobs, lambda: heard.news)


def test_an_error_is_delivered_and_the_next_job_runs(jobs):
    heard = Heard()
    failure = ClientError("no", "server")

    def fails(job):
        raise failure

    jobs.submit(fails, **heard.callbacks)
    jobs.submit(lambda job: {}["missing"], **heard.callbacks)
    last = jobs.submit(lambda job: 3, **heard.callbacks)
    poll_until(jobs, lambda: last.is_over)
    assert heard.news[0] == ("error", failure)
    assert isinstance(heard.news[1][1], KeyError)
    assert heard.news[2] == ("done", 3)


def test_jobs_run_one_after_the_other(jobs):
    running, most = [], []

    def work(job):
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()

    made = [jobs.submit(work) for _ in range(5)]
    poll_until(jobs, lambda: all(job.is_over for job in made))
    assert most == [1] * 5


def test_cancelling_is_heard_at_once_even_if_the_work_does_not_stop(jobs):
    heard, go_on = Heard(), threading.Event()

    def work(job):
        job.report("early")
        go_on.wait(5)
        job.report("late")
        return "late"

    job = jobs.submit(work, **heard.callbacks)
    time.sleep(0.05)
    job.cancel()
    jobs.poll()
    assert [(name, value.kind) for name, value in heard.news] == [("error", "cancelled")]
    go_on.set()
    after = jobs.submit(lambda job: 1)
    poll_until(jobs, lambda: after.is_over)
    assert len(heard.news) == 1


def test_a_job_that_waits_in_the_queue_never_runs_once_cancelled(jobs):
    ran, heard, go_on = [], Heard(), threading.Event()
    first = jobs.submit(lambda job: go_on.wait(5))
    second = jobs.submit(lambda job: ran.append(1), **heard.callbacks)
    second.cancel()
    go_on.set()
    poll_until(jobs, lambda: first.is_over and second.is_over)
    assert ran == []
    assert [name for name, _ in heard.news] == ["error"]


def test_cancelling_what_is_done_changes_nothing(jobs):
    heard = Heard()
    job = jobs.submit(lambda job: 1, **heard.callbacks)
    poll_until(jobs, lambda: job.is_over)
    job.cancel()
    jobs.poll()
    assert heard.news == [("done", 1)]


def test_a_request_is_cut_when_its_job_is_cancelled(jobs):
    with Stub(listens) as stub:
        client = Client(stub.address)
        job = jobs.submit(lambda job: client.health(job.cancellation))
        deadline = time.monotonic() + 5
        while not stub.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        job.cancel()
        assert stub.hung_up.wait(2)


def test_a_callback_that_fails_does_not_stop_the_others(jobs, caplog):
    heard = Heard()

    def fails(value):
        raise RuntimeError("broken panel")

    jobs.submit(lambda job: 1, on_done=fails)
    job = jobs.submit(lambda job: 2, **heard.callbacks)
    poll_until(jobs, lambda: job.is_over)
    assert heard.news == [("done", 2)]
    assert "broken panel" in caplog.text


def test_a_poll_keeps_to_its_budget(jobs):
    count = []

    def work(job):
        for _ in range(100):
            job.report(None)

    job = jobs.submit(work, on_progress=lambda _: (count.append(1), time.sleep(0.005)))
    time.sleep(0.1)
    jobs.poll(budget_s=0.02)
    assert 0 < len(count) <= 5  # 5 ms each: no more fit into 20 ms
    poll_until(jobs, lambda: job.is_over)
    assert len(count) == 100


def test_polling_from_within_a_callback_is_safe(jobs):
    """A message box in a callback runs the event loop, and with it the timer that polls."""
    heard = Heard()
    job = jobs.submit(lambda job: job.report("a"), heard.of("done"), None, lambda _: jobs.poll())
    poll_until(jobs, lambda: job.is_over)
    assert heard.news == [("done", None)]


def test_closing_while_a_request_runs_is_quick_and_silent():
    jobs, heard = Jobs(), Heard()
    with Stub(listens) as stub:
        client = Client(stub.address)
        jobs.submit(lambda job: client.health(job.cancellation), **heard.callbacks)
        jobs.submit(lambda job: 1, **heard.callbacks)
        time.sleep(0.1)
        began = time.monotonic()
        jobs.close()
        assert time.monotonic() - began < 1
        assert stub.hung_up.wait(2)
    jobs.poll()
    jobs.close()
    assert heard.news == []
    assert not jobs.is_busy
    with pytest.raises(RuntimeError):
        jobs.submit(lambda job: 1)


def test_closing_does_not_wait_for_work_that_does_not_stop():
    jobs, go_on = Jobs(), threading.Event()
    jobs.submit(lambda job: go_on.wait(10))
    time.sleep(0.05)
    began = time.monotonic()
    jobs.close(timeout_s=0.1)
    assert time.monotonic() - began < 1
    go_on.set()


def test_what_a_job_held_is_let_go_when_it_is_over(jobs):
    class Volume:
        pass

    volume = Volume()
    seen = weakref.ref(volume)
    job = jobs.submit(lambda job, volume=volume: None, on_done=lambda _, volume=volume: None)
    del volume
    poll_until(jobs, lambda: job.is_over)
    after = jobs.submit(lambda job: None)
    poll_until(jobs, lambda: after.is_over)
    gc.collect()
    assert seen() is None
