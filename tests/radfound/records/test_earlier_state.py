"""A folder that the version of 2026-11-26 wrote, before the modules moved, is opened as before."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from radfound.engine.engine import Engine
from radfound.exceptions import StorageError
from radfound.question import ModelVersion
from radfound.records.adapters import AdapterStore, store_path
from radfound.records.answers import AnswerJournal, journal_path
from radfound.records.corrections import CorrectionLog, log_path
from radfound.records.database import KINDS, RATINGS, SCORES, Database
from radfound.records.scores import ScoreBook, scores_path
from radfound.records.trace import trace
from radfound.study.region import Box, Plane, PointAndNormal
from radfound.study.study import Study, StudyImage

RATING = ("CREATE TABLE ratings (reader TEXT)",)
BOX = Box(((-10.0, 0.0, 0.1), (10.0, 20.0, 5.0)))


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(Path(__file__).with_name("state_before_wings"), tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_corrections_are_whole_and_more_can_be_added(folder):
    log = CorrectionLog(log_path(folder))
    first, second, third = log.rows()
    assert (first.text, first.region, first.model.adapter) == ("Größe: 3 mm.", BOX, "a-0001")
    assert (second.verdict, second.text) == ("accepted", "No.")
    assert third.region == Plane(PointAndNormal((1.0, 2.0, 3.0), (0.0, 0.6, -0.8)))
    noted = log.verify()
    assert noted.is_whole
    assert log.append(replace(first, id="c-4"))
    assert log.count() == 4 and log.verify(noted.head).is_whole


def test_an_answer_leads_to_its_adapter_and_corrections(folder):
    journal, log = AnswerJournal(journal_path(folder)), CorrectionLog(log_path(folder))
    store = AdapterStore(store_path(folder))
    assert journal.get("answer-1").region == BOX
    found = trace("answer-1", journal, log, store)
    assert [each.id for each in found.lesson.corrections] == ["c-1"]
    assert store.refusals()[0]["reason"].startswith("corrections: 0%")
    assert ScoreBook(scores_path(folder)).scores()["ct01"].uncertainty == 0.25


def test_the_active_adapter_answers(folder):
    engine = Engine.load("radfound-tiny", adapters=AdapterStore(store_path(folder)))
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(1, 64, 64)
    answer = engine.answer(Study((StudyImage(pixels, np.eye(4)),)), question="Is it?")
    assert answer.model.adapter == "a-0001"
    assert engine.next_adapter() == ("a-0001", None)


def test_ratings_and_scores_that_share_an_id_are_told_apart_by_their_tables(tmp_path):
    shared = RATINGS.older_id
    assert shared == SCORES.application_id
    old = Database(tmp_path / "ratings.sqlite", replace(RATINGS, application_id=shared), (RATING,))
    with old.connection(create=True) as connection:
        connection.execute("INSERT INTO ratings VALUES ('reader-1')")
    ratings = Database(old.path, RATINGS, (RATING,))
    assert ratings.rows("SELECT * FROM ratings") == [("reader-1",)]
    with ratings.connection(create=True) as connection:
        connection.execute("INSERT INTO ratings VALUES ('reader-2')")
    assert len(ratings.rows("SELECT * FROM ratings")) == 2

    model = ModelVersion("radfound-mini", "1")
    ScoreBook(tmp_path / "scores.sqlite").record_embedding("ct01", model, np.ones(3))
    for path, kind in ((tmp_path / "scores.sqlite", RATINGS), (old.path, SCORES)):
        with pytest.raises(StorageError, match="a database of something else"):
            Database(path, kind, (RATING,)).rows("SELECT 1")


def test_no_two_kinds_of_new_files_have_one_id():
    assert len({kind.application_id for kind in KINDS}) == len(KINDS)
