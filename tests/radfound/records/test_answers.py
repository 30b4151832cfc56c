import sqlite3
import threading

import pytest

from radfound.exceptions import NotFoundError, StorageError
from radfound.question import Answer, ModelVersion
from radfound.records.answers import AnswerJournal, journal_path
from radfound.study.region import Box

REGION = Box(((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


def answer(**changes) -> Answer:
    fields = {
        "task": "vqa",
        "images": ("ct01",),
        "question": "Is there an effusion?",
        "text": "No.",
        "uncertainty": 0.25,
        "model": ModelVersion("radfound-mini", "0123456789ab", "a-0003"),
    }
    return Answer(**{**fields, **changes})


@pytest.fixture
def journal(tmp_path) -> AnswerJournal:
    return AnswerJournal(journal_path(tmp_path))


def test_an_answer_leads_to_its_question_its_region_and_its_weights(journal):
    given = answer()
    journal.record(given, REGION)
    found = journal.get(given.id)
    assert (found.images, found.question, found.region) == (("ct01",), given.question, REGION)
    assert (found.model, found.uncertainty) == (given.model, 0.25)


def test_what_was_answered_is_not_kept(journal):
    journal.record(answer(text="a sentence about a patient"), None)
    assert b"about a patient" not in b"".join(
        file.read_bytes() for file in journal.path.parent.iterdir()
    )


def test_a_report_by_the_base_model_is_found_too(journal):
    given = answer(
        task="report", question=None, uncertainty=None, model=ModelVersion("radfound-mini", "r")
    )
    journal.record(given, None)
    assert journal.rows() == [journal.get(given.id)]
    assert journal.get(given.id).model.adapter is None


def test_unknown_answer_is_not_found_and_nothing_is_made(journal):
    with pytest.raises(NotFoundError):
        journal.get("never-given")
    assert journal.rows() == []
    assert not journal.path.parent.exists()


def test_threads_record_together(journal):
    given = [[answer() for _ in range(5)] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda mine=mine: [journal.record(each, None) for each in mine])
        for mine in given
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.id for each in journal.rows()} == {each.id for mine in given for each in mine}


def test_something_else_in_its_place_is_named(journal):
    journal.path.parent.mkdir()
    journal.path.write_text("not a database, " * 100)
    with pytest.raises(StorageError, match=r"answers\.sqlite"):
        journal.rows()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_damaged_journal_is_set_aside_and_another_begun(tmp_path, caplog, share):
    path = tmp_path / "answers.sqlite"
    AnswerJournal(path).record(answer(), None)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)] + b"\xff" * 5000)
    journal = AnswerJournal(path)
    journal.recover()
    journal.record(answer(), None)
    assert list(tmp_path.glob("answers.sqlite.broken-*")) and "a new one is started" in caplog.text


def test_a_whole_journal_and_one_of_a_later_version_stay(tmp_path):
    path = tmp_path / "answers.sqlite"
    AnswerJournal(path).recover()
    AnswerJournal(path).record(answer(), None)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    AnswerJournal(path).recover()
    assert path.exists() and not list(tmp_path.glob("*.broken-*"))
