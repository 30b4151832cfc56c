import time
from dataclasses import replace

import numpy as np
import pytest

from radfound.question import Answer, ModelVersion
from radfound.records.scores import ScoreBook, scores_path

BASE = ModelVersion("radfound-mini", "0123456789ab")
ADAPTED = replace(BASE, adapter="a-0001")


def answer(uncertainty, question="Is there free air?", model=BASE, images=("ct01",)):
    return Answer("vqa", images, question, "No.", model, uncertainty=uncertainty)


@pytest.fixture
def book(tmp_path):
    return ScoreBook(scores_path(tmp_path))


def reopened(book):
    return ScoreBook(book.path)


def test_the_least_certain_answer_stands_for_a_study(book):
    for uncertainty, question in ((0.2, "a"), (0.4, "b"), (0.3, "c"), (None, "d")):
        book.record_uncertainty(answer(uncertainty, question))
    score = reopened(book).scores()["ct01"]
    assert (score.uncertainty, score.question, score.embedding) == (0.4, "b", None)


def test_what_another_model_said_counts_no_more(book):
    book.record_uncertainty(answer(0.4))
    book.record_uncertainty(answer(0.1, model=ADAPTED))
    assert book.scores()["ct01"].uncertainty == 0.1
    assert (book.answered(BASE), book.answered(ADAPTED)) == (set(), {"ct01"})


def test_every_view_of_a_study_has_its_score(book):
    book.record_uncertainty(answer(0.4, images=("l cc", "r cc")))
    assert {image: score.uncertainty for image, score in book.scores().items()} == {
        "l cc": 0.4,
        "r cc": 0.4,
    }


def test_embeddings_are_kept_and_those_of_one_model_compared(book):
    for image, model in (("a", BASE), ("b", BASE), ("c", replace(BASE, revision="other"))):
        book.record_embedding(image, model, np.array([1.0, 2.5]))
    assert reopened(book).embedded(BASE) == {"a", "b"}
    scores = book.scores()
    assert scores.keys() == {"a", "b"}
    np.testing.assert_array_equal(scores["a"].embedding, [1.0, 2.5])


def test_no_score_is_no_file(book):
    assert (book.scores(), book.embedded(BASE), book.answered(BASE)) == ({}, set(), set())
    assert not book.path.parent.exists()


def test_ten_thousand_scores_are_read_in_under_a_second(book):
    book.record_embedding("ct00", BASE, np.zeros(576))
    with book._file.connection(create=True) as connection:
        connection.execute("BEGIN")
        vector = np.ones(576, "<f4").tobytes()
        rows = [(f"ct{n:05}", BASE.revision, vector) for n in range(10_000)]
        connection.executemany("INSERT INTO embeddings VALUES (?, ?, ?)", rows)
        rows = [(f"ct{n:05}", "m", 0.5, "Any mass?") for n in range(10_000)]
        connection.executemany("INSERT INTO uncertainties VALUES (?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    began = time.process_time()
    assert len(book.scores()) == 10_001
    assert time.process_time() - began < 1
