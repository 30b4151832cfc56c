"""The state of the newest training, as the server shows it."""

import json

import pytest

from monailabel_app.lib.lifecycle.background import TASK_VARIABLE
from monailabel_app.lib.trainers import TrainingState
from monailabel_app.lib.trainers.state import NO_LAST_WORD
from radfound.wire import GateCheck, TrainingStatus, training_from_json


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv(TASK_VARIABLE, "this")
    return TrainingState(tmp_path / "state" / "training.json")


def task(status, name="this"):
    return {"id": name, "status": status}


RUNNING = TrainingStatus(state="running", phase="training", step=3, steps=10, seconds_left=7.0)
PUBLISHED = TrainingStatus(
    state="published",
    adapter="a-0001",
    checks=(GateCheck(name="answers end", words="fine", passed=True, value=1.0, limit=0.9),),
)


def test_a_state_is_read_as_it_was_written(state):
    assert state.read() == TrainingStatus(state="idle")
    state.write(PUBLISHED)
    assert state.read() == PUBLISHED.model_copy(update={"id": "this"})
    assert training_from_json(json.loads(state.path.read_text())) == state.read()


def test_a_server_without_a_training_is_idle(state):
    assert state.seen_with([]).state == "idle"


@pytest.mark.parametrize("before", [None, RUNNING, PUBLISHED])
def test_a_training_that_starts_is_not_taken_for_the_one_before(state, before):
    if before:
        state.write(before)
    found = state.seen_with([task("DONE"), task("SUBMITTED", "next")])
    assert (found.id, found.state, found.phase, found.checks) == ("next", "running", "starting", ())


def test_a_running_training_shows_its_steps(state):
    state.write(RUNNING)
    found = state.seen_with([task("RUNNING"), task("SUBMITTED", "next")])
    assert (found.state, found.step, found.steps, found.seconds_left) == ("running", 3, 10, 7.0)


def test_a_training_runs_until_its_process_has_ended(state):
    state.write(PUBLISHED)
    assert state.seen_with([task("RUNNING")]).state == "running"
    assert state.seen_with([task("DONE")]).state == "published"


@pytest.mark.parametrize(("status", "shown"), [("STOPPED", "stopped"), ("ERROR", "failed")])
@pytest.mark.parametrize("name", ["this", "before"])
def test_a_training_without_a_last_message_was_stopped_or_failed(
    state, monkeypatch, status, shown, name
):
    monkeypatch.setenv(TASK_VARIABLE, name)
    state.write(RUNNING if name == "this" else PUBLISHED)
    found = state.seen_with([task(status)])
    assert (found.state, found.adapter, found.seconds_left) == (shown, None, None)
    assert found.message == (NO_LAST_WORD if shown == "failed" else "")


def test_a_training_that_a_restart_of_the_server_ended_is_stopped(state):
    state.write(RUNNING)
    assert state.seen_with([]).state == "stopped"
    state.write(PUBLISHED)
    assert state.seen_with([]).state == "published"


def test_the_file_of_an_older_version_still_says_how_the_training_ended(state):
    state.path.parent.mkdir()
    old = {"status": "published", "message": "published a-0001", "adapter": "a-0001", "gate": {}}
    state.path.write_text(json.dumps(old))
    found = state.read()
    assert (found.state, found.adapter) == ("published", "a-0001")


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"state": "dreaming"}', '{"status": 3}'])
def test_a_file_that_says_nothing_is_no_training(state, content):
    state.path.parent.mkdir()
    state.path.write_text(content)
    assert state.read() == TrainingStatus()
