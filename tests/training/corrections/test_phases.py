"""What a run says of its progress, and of the time that is left."""

import json

import pytest

from training.corrections.phases import CHECKING, LEARNING, LOADING, READING, Phases
from training.loop.config import Progress

WORK = {LOADING: 1, READING: 10, LEARNING: 20, CHECKING: 100}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def heard():
    return []


@pytest.fixture
def phases(clock, heard):
    return Phases(heard.append, WORK, clock=clock)


def test_an_estimate_of_the_whole_run_is_there_at_its_first_word(phases, heard):
    phases.begin(LOADING)
    (first,) = heard
    assert first.message == LOADING and 20 < first.seconds_left < 60


def test_the_estimate_falls_as_the_work_is_done(phases, clock, heard):
    phases.begin(LOADING)
    clock.now = 5.0
    phases.advance(1)
    phases.begin(READING)
    for number in range(1, 11):
        clock.now = 5.0 + number
        phases.advance(1)
    left = [each.seconds_left for each in heard]
    assert left == sorted(left, reverse=True) and heard[-1].step == heard[-1].total == 10
    assert left[-1] == pytest.approx(20 * 0.4 + 100 * 0.02, rel=0.05)


def test_a_busy_machine_is_expected_to_stay_slow(phases, clock, heard):
    phases.begin(LOADING)
    clock.now = 50.0  # ten times as long as expected
    phases.advance(1)
    phases.begin(READING)
    assert heard[-1].seconds_left > 3 * heard[0].seconds_left


def test_a_training_that_ends_early_leaves_nothing_of_its_phase(phases, heard):
    phases.begin(LEARNING)
    phases.step(Progress(5, 200, 0.3, 99.0))
    assert (heard[-1].step, heard[-1].total, heard[-1].loss) == (5, 200, 0.3)
    phases.begin(CHECKING)
    assert phases.seconds_left == pytest.approx(5 + 10 + 100 * 0.02, rel=0.2)


def test_a_training_that_takes_longer_than_expected_is_not_said_to_end_at_once(phases):
    phases.begin(LEARNING)
    phases.step(Progress(40, 200, 0.3, 99.0))
    assert phases.seconds_left > 4


def test_reports_of_one_phase_are_a_second_apart(phases, clock, heard):
    phases.begin(READING)
    for _ in range(9):
        phases.advance(1)
    assert len(heard) == 1
    clock.now = 1.0
    phases.advance(1)
    assert len(heard) == 2


def test_the_next_run_expects_the_speed_of_this_one(clock, heard, tmp_path):
    file = tmp_path / "kept" / "pace.json"
    for _ in range(2):
        run = Phases(heard.append, WORK, file, clock)
        run.begin(LEARNING)
        heard_first = heard[-1].seconds_left
        clock.now += 100.0
        run.step(Progress(20, 20, 0.1, 0.0))
        run.end()
    assert heard_first > 100 and json.loads(file.read_text())[LEARNING] == pytest.approx(5.0)


@pytest.mark.parametrize("content", ["", "[]", '{"learning the corrections": "slow"}', "{"])
def test_a_damaged_record_of_the_speed_is_ignored(clock, tmp_path, content):
    file = tmp_path / "pace.json"
    file.write_text(content)
    run = Phases(None, WORK, file, clock)
    run.begin(LOADING)
    assert 20 < run.seconds_left < 60
    run.end()
