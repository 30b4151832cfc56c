"""A correction helps from the next answer on, at a real server."""

import pytest

from ..conftest import CT, VOLUME, fill_with_studies, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    studies = folder / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    with running_server(studies, folder / "server.log") as server:
        yield server


def correct(server, answer, text, author, correction_id):
    row = {
        "schema": "radfound.correction/1", "id": correction_id, "answer_id": answer["id"],
        "images": answer["images"], "task": answer["task"], "question": answer["question"],
        "model_text": answer["text"] or "?", "verdict": "edited", "text": text, "author": author,
        "model": answer["model"],
    }  # fmt: skip
    reply = server.post("/radfound/corrections", json=row)
    assert reply.ok, reply.text


def test_the_readers_text_answers_the_same_question_at_once(server):
    question = "Is there a pleural effusion?"
    before = server.ask(VOLUME, question).json()
    assert (before["source"], before["model_text"]) == ("model", None)
    correct(server, before, "Yes, on the left.", "Dr A", "taught-1")
    after = server.ask(VOLUME, question).json()
    assert (after["text"], after["source"]) == ("Yes, on the left.", "recall")
    assert after["corrected_by"] == "Dr A" and after["corrected_on"]
    assert "Dr A" in after["reason"]
    assert after["confidence"] is None
    assert after["model_text"] == (before["text"] or "?")
    assert server.ask(CT, question).json()["source"] == "model"
    assert server.ask(VOLUME, "Is there a pneumothorax?").json()["source"] == "model"


def test_who_wants_the_models_own_answer_gets_it(server):
    for wish in ({"recall": False}, {"model_only": True}):
        answer = server.ask(VOLUME, "Is there a pleural effusion?", **wish).json()
        assert (answer["source"], answer["corrected_by"]) == ("model", None)


def test_readers_who_differ_are_both_shown_and_a_withdrawal_is_forgotten_at_once(server):
    question = "Is the heart enlarged?"
    first = server.ask(VOLUME, question).json()
    correct(server, first, "No.", "Dr A", "taught-2")
    correct(server, first, "Yes, mildly.", "Dr B", "taught-3")
    both = server.ask(VOLUME, question).json()
    assert both["text"] == "Yes, mildly."
    assert [(each["author"], each["text"]) for each in both["contradictions"]] == [("Dr A", "No.")]
    assert server.post("/radfound/corrections/taught-3/withdraw", json={"author": "Dr B"}).ok
    left = server.ask(VOLUME, question).json()
    assert (left["text"], left["contradictions"]) == ("No.", [])
    assert server.post("/radfound/corrections/taught-2/withdraw", json={"author": "Dr A"}).ok
    assert server.ask(VOLUME, question).json()["source"] == "model"
