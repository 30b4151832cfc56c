import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from radfound.exceptions import NotFoundError, RequestError, StorageError
from radfound.reader_study.design.plan import Plan
from radfound.reader_study.rating.ratings import (
    AGREEMENT,
    COMMENT,
    FIRST,
    NO,
    PREFERENCE,
    SCORE,
    YES,
    Rating,
    RatingStore,
)

from .department import comment, make_study, rate_item

ROOT = Path(__file__).parents[3]


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path, cases=2)


@pytest.fixture
def store(study):
    return RatingStore(study.plan)


@pytest.fixture
def score(study):
    item = study.plan.readers[0].items[0]
    candidate = item.candidates[0].id
    return Rating(
        reader="reader-1", item=item.id, candidate=candidate, kind=SCORE, name="safety", value="4"
    )


def test_the_newest_rating_counts_and_the_older_one_stays(store, score):
    store.record(score)
    store.record(replace(score, value="2"))
    assert [rating.value for rating in store.rows()] == ["4", "2"]
    assert store.latest() == [replace(score, value="2")]


def test_reading_before_the_first_rating_makes_no_file(store):
    assert store.rows() == [] and store.has_agreed("reader-1") is None
    assert not store.path.exists()


def test_a_reader_may_agree_and_change_their_mind(store):
    for answer, expected in ((YES, True), (NO, False)):
        store.record(Rating(reader="reader-2", kind=AGREEMENT, value=answer))
        assert store.has_agreed("reader-2") is expected
    assert store.has_agreed("reader-1") is None


def test_an_item_is_complete_when_all_that_is_asked_was_said(study, store):
    reader = study.plan.readers[0]
    assert store.complete(reader) == set()
    for item in reader.items[:2]:
        rate_item(store, study.key, reader.id, item, dict.fromkeys(study.key.sources, 3))
    comment(store, reader.id, reader.items[2], reader.items[2].candidates[0].id, "nearly")
    assert store.complete(reader) == {item.id for item in reader.items[:2]}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"reader": "nobody"}, NotFoundError, "no reader"),
        ({"reader": "reader-2"}, NotFoundError, "no item"),
        ({"candidate": "none"}, NotFoundError, "no candidate"),
        ({"name": "beauty"}, NotFoundError, "no criterion"),
        ({"value": "6"}, RequestError, "a score is one of 1, 2, 3, 4, 5"),
        ({"value": "4.5"}, RequestError, "a score is one of"),
        ({"kind": "poem"}, RequestError, "expected score, preference, comment or agreement"),
        ({"seconds": float("nan")}, RequestError, "seconds"),
        ({"seconds": -1.0}, RequestError, "seconds"),
        ({"kind": COMMENT, "name": "safety"}, RequestError, "a comment has none"),
        ({"kind": COMMENT, "name": "", "value": "x" * 6000}, RequestError, "6,000 characters"),
        ({"kind": COMMENT, "name": "", "value": "\ud800"}, RequestError, "surrogate"),
        ({"kind": AGREEMENT, "value": YES}, RequestError, "leave item, candidate and name out"),
        ({"kind": PREFERENCE, "value": FIRST}, NotFoundError, "no such pair"),
    ],
)
def test_what_does_not_fit_the_plan_is_refused_and_not_kept(store, score, change, error, message):
    with pytest.raises(error, match=message):
        store.record(replace(score, **change))
    assert store.rows() == []


def test_a_preference_names_the_pair_in_shown_order(study, store):
    item = study.plan.readers[0].items[0]
    one, other = item.pairs[0]
    said = Rating(
        reader="reader-1", item=item.id, candidate=one, kind=PREFERENCE, name=other, value=FIRST
    )
    store.record(said)
    with pytest.raises(NotFoundError, match="shown first"):
        store.record(replace(said, candidate=other, name=one))
    with pytest.raises(RequestError, match="first, second, tie"):
        store.record(replace(said, value=other))
    assert store.latest() == [said]


def test_rows_can_be_neither_changed_nor_removed(store, score):
    store.record(score)
    connection = sqlite3.connect(store.path)
    for statement in (
        "UPDATE ratings SET value = '1'",
        "DELETE FROM ratings",
        "INSERT OR REPLACE INTO ratings SELECT * FROM ratings",
    ):
        with pytest.raises(sqlite3.DatabaseError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_another_file_in_its_place_is_refused(study):
    study.plan.ratings_path.write_text("not a database at all, but long enough to be looked at")
    with pytest.raises(StorageError, match="record of ratings"):
        RatingStore(study.plan)


RATE = """
import sys
from dataclasses import replace
from radfound.reader_study.design.plan import Plan
from radfound.reader_study.rating.ratings import SCORE, Rating, RatingStore
plan = Plan.load(sys.argv[1])
store = RatingStore(plan)
reader = plan.readers[0]
while True:
    for item in reader.items:
        for candidate in item.candidates:
            for value in "12345":
                store.record(Rating(reader=reader.id, item=item.id, candidate=candidate.id, kind=SCORE,
                                    name="safety", value=value))
                print(item.id, candidate.id, value, flush=True)
"""


def test_every_acknowledged_rating_survives_a_kill(study):
    for wanted in (3, 20):
        process = subprocess.Popen(
            [sys.executable, "-c", RATE, str(study.plan.folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        before = len(RatingStore(study.plan).rows())
        acknowledged = [process.stdout.readline().split() for _ in range(wanted)]
        time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        acknowledged += [line.split() for line in process.stdout if line.endswith("\n")]
        process.wait(10)
        process.stdout.close()
        kept = RatingStore(Plan.load(study.plan.folder)).rows()[before:]
        said = [[rating.item, rating.candidate, rating.value] for rating in kept]
        assert said[: len(acknowledged)] == acknowledged
        assert len(said) - len(acknowledged) in (
            0,
            1,
        )  # one may be on disk and not yet acknowledged
