"""However many start trainings, batches and scorings, one of a kind runs, few wait, and all end with the server."""

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from monailabel.utils.async_tasks import utils

from monailabel_app.lib.lifecycle import background, tasks
from monailabel_app.lib.lifecycle.tasks import MAX_WAITING, TaskQueues, TaskRunningError, is_over
from radfound.exceptions import Busy, RadFoundError

from ..conftest import VOLUME, fill_with_studies, running_server

METHOD = "train"
TRIM = "MALLOC_TRIM_THRESHOLD_"


@pytest.fixture
def queues(monkeypatch):
    """Queues whose tasks are processes that sleep, after a start as slow as a real one's."""
    for registry in ("background_tasks", "background_processes"):
        monkeypatch.setattr(utils, registry, {})

    def sleep(task, method):
        time.sleep(task["request"].get("starts_s", 0.0))
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        utils.background_processes[method][task["id"]] = process
        task["status"] = "RUNNING"
        process.wait()
        del utils.background_processes[method][task["id"]]
        task["status"] = "ERROR" if task["status"] == "RUNNING" else task["status"]

    monkeypatch.setattr(utils, "_task_func", sleep)
    queues = TaskQueues()
    yield queues
    queues.close()


def started(queues, count, **how):
    """Start many at once; return what each came to."""
    ready = threading.Barrier(count)

    def start(_):
        ready.wait()
        try:
            return queues.start(METHOD, {"starts_s": 0.2}, **how)
        except RadFoundError as error:
            return type(error)

    with ThreadPoolExecutor(count) as callers:
        return list(callers.map(start, range(count)))


def running(queues):
    return list(utils.processes(METHOD).values())


def soon(is_so, within_s=30):
    deadline = time.monotonic() + within_s
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_so()


def test_of_many_that_start_at_once_one_is_taken(queues):
    outcomes = started(queues, 24)
    assert outcomes.count(TaskRunningError) == 23
    assert len(utils.tasks(METHOD)) == 1
    assert soon(lambda: len(running(queues)) == 1)


def test_few_wait_where_they_ask_for_it(queues):
    outcomes = started(queues, 24, enqueue=True)
    assert outcomes.count(TaskRunningError) == 24 - 1 - MAX_WAITING
    assert soon(lambda: len(running(queues)) == 1)


def test_kinds_do_not_wait_for_each_other(queues):
    for method in tasks.METHODS:
        queues.start(method, {})
    assert soon(lambda: all(utils.processes(method) for method in tasks.METHODS))


@pytest.mark.parametrize("starts_s", [0.0, 0.3])
def test_a_task_is_stopped_even_while_it_starts_and_the_next_goes_on(queues, starts_s):
    first = queues.start(METHOD, {"starts_s": starts_s})
    second = queues.start(METHOD, {}, enqueue=True)
    assert queues.stop(METHOD) is first
    assert first["status"] == "STOPPED" and first["end_ts"]
    assert soon(lambda: second["status"] == "RUNNING")
    assert queues.stop(METHOD) is second and queues.stop(METHOD) is None
    assert running(queues) == []


def test_a_task_that_cannot_be_started_keeps_no_other_from_it(queues, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(utils, "_task_func", lambda *_: 1 / 0)
        failed = queues.start(METHOD, {})
        assert soon(lambda: is_over(failed)) and failed["status"] == "ERROR"
    assert soon(lambda: not queues._unfinished(METHOD))
    assert queues.start(METHOD, {})


def test_closing_stops_what_runs_starts_and_waits_and_takes_no_more(queues):
    for method in tasks.METHODS:
        queues.start(method, {"starts_s": 0.2})
        queues.start(method, {}, enqueue=True)
    queues.close()
    assert {task["status"] for method in tasks.METHODS for task in utils.tasks(method)} == {
        "STOPPED"
    }
    assert not any(utils.processes(method) for method in tasks.METHODS)
    with pytest.raises(Busy, match="stopping"):
        queues.start(METHOD, {})


def test_ended_tasks_are_not_kept_for_ever(queues, monkeypatch):
    monkeypatch.setattr(utils, "_task_func", lambda task, _: task.update(status="DONE"))
    for _ in range(tasks._ENDED_KEPT * 2):
        queues.start(METHOD, {})
        assert soon(lambda: not queues._unfinished(METHOD))
    assert len(utils.tasks(METHOD)) <= tasks._ENDED_KEPT + MAX_WAITING + 1


# A real server


@pytest.fixture
def own_server(tmp_path, correction):
    studies = tmp_path / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    with running_server(studies, tmp_path / "server.log") as server:
        for text in ("left", "right"):  # what contradicts itself is never learnt, so a run lasts
            assert server.post("/radfound/corrections", json=correction(text=text)).ok
        yield server


NEVER_ENDING = {"max_steps": 10**6, "learning_rate": 1e-9}


def children_of(server):
    return psutil.Process(server.process.pid).children(recursive=True)


def test_trainings_that_wait_for_their_end_run_beside_the_server_and_end_with_it(own_server):
    server = own_server
    with ThreadPoolExecutor(16) as callers:
        waiting = [
            callers.submit(server.post, "/train/radfound?run_sync=true", json=NEVER_ENDING)
            for _ in range(16)
        ]
        assert soon(lambda: sum(each.done() for each in waiting) == 15, 120)
        statuses = [each.result().status_code for each in waiting if each.done()]
        assert statuses == [429] * 15
        assert soon(lambda: children_of(server), 120)
        assert len(children_of(server)) == 1
        assert server.get("/radfound/health").json()["training"]
        assert server.ask(VOLUME).ok
        children = children_of(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) is not None
    assert not any(child.is_running() for child in children)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/train/radfound", NEVER_ENDING),
        ("/train/", {"radfound": NEVER_ENDING}),
        ("/batch/infer/radfound_caption", {}),
        ("/scoring/radfound", {}),
        ("/scoring/", {}),
    ],
)
def test_four_at_once_of_any_kind_are_one(server, path, body):
    with ThreadPoolExecutor(4) as callers:
        found = list(callers.map(lambda _: server.post(path, json=body).status_code, range(4)))
    kind = f"/{path.split('/')[1]}/" + ("infer" if path.startswith("/batch") else "")
    stopped = server.delete(kind)
    assert sorted(found) == [200, 429, 429, 429]
    assert stopped.ok and (stopped.json() or {}).get("status") in (None, "STOPPED")
    assert server.get(kind).json()["status"] in ("STOPPED", "DONE")
    assert server.delete(kind).json() is None


def test_a_second_start_is_told_why_it_is_refused(server):
    assert server.post("/train/radfound", json=NEVER_ENDING).ok
    refused = server.post("/train/radfound", json=NEVER_ENDING)
    queued = [server.post("/train/radfound?enqueue=true", json=NEVER_ENDING) for _ in range(6)]
    while server.delete("/train/").json():
        pass
    assert refused.status_code == 429 and refused.json()["detail"]["code"] == "already_running"
    assert [each.status_code for each in queued] == [200] * MAX_WAITING + [429] * (6 - MAX_WAITING)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/scoring/no_such_method", {}),
        ("/scoring/radfound", {"limit": 0}),
        ("/scoring/radfound", {"questions": ["Why?"] * 1000}),
        ("/scoring/radfound", {"questions": ["x" * 100_000]}),
        ("/scoring/", {"radfound": [1]}),
        ("/batch/infer/radfound_vqa", {"question": 7}),
        ("/batch/infer/radfound_caption", {"max_workers": 10**6}),
        ("/batch/infer/radfound_caption", {"max_batch_size": "all"}),
        ("/batch/infer/radfound_caption", {"label_tag": ["x"]}),
        ("/batch/infer/radfound_caption", {"labels": "x"}),
        ("/train/radfound", {"max_steps": -1}),
    ],
)
def test_a_task_that_cannot_be_right_is_not_started(server, path, body):
    response = server.post(path, json=body)
    assert 400 <= response.status_code < 500, response.text
    assert set(response.json()["detail"]) == {"code", "message"}


# One request


def test_a_history_beyond_the_models_room_is_refused_before_the_answer_begins(server):
    turn = {"question": "a" * 900, "answer": "b" * 900}
    for history, named in (([turn] * 2, "tokens"), ([turn] * 60, "characters")):
        body = {"image": VOLUME, "question": "Why?", "history": history}
        for response in (server.post("/radfound/ask", json=body), server.ask(**body)):
            assert response.status_code == 400, response.text
            message = response.json()["detail"]["message"]
            assert message.startswith("history") and named in message and "oldest" in message


def test_too_many_images_are_refused_before_they_are_read(server):
    response = server.ask(VOLUME, images=[f"no-such-image-{number}" for number in range(20)])
    assert response.status_code == 400 and "at most 4" in response.text


def test_a_bad_active_adapter_is_told_by_health_and_questions_are_answered(own_server):
    store = own_server.studies / ".radfound" / "adapters"
    store.mkdir(exist_ok=True)
    for content in (
        "junk",
        '{"schema": "radfound.adapters/1", "active": "a-0007", "history": [], "newest": 7}',
    ):
        (store / "active.json").write_text(content)
        answer = own_server.ask(VOLUME).json()
        assert answer["text"] is not None and answer["model"]["adapter"] is None
        model = own_server.get("/radfound/health").json()["model"]
        assert model["adapter"] is None and model["problem"]
        assert own_server.get("/radfound/adapters").status_code in (200, 409)


def test_a_training_keeps_the_memory_that_it_frees_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv(TRIM, raising=False)
    assert int(background._environment("train")[TRIM]) > 2**30
    assert TRIM not in background._environment("infer")
    monkeypatch.setenv(TRIM, "131072")
    assert background._environment("train")[TRIM] == "131072"
