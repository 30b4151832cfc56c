"""Confidence through the whole chain: a training on the server, its adapter, the answer of the server."""

import pytest

from tests.training.corrections.tiny_checkpoint import QUESTION, write_checkpoint

from ..conftest import PICTURE, VOLUME, fill_with_studies, running_server

TRAINING = {"learning_rate": 0.01, "max_steps": 100, "force": True}


@pytest.fixture
def server(tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    checkpoint = write_checkpoint(tmp_path / "tiny")
    with running_server(studies, tmp_path / "server.log", model=str(checkpoint)) as server:
        yield server


def test_an_adapter_answers_with_a_confidence_of_its_own_or_says_why_it_has_none(server):
    for image in (VOLUME, PICTURE):
        correction = {
            "schema": "radfound.correction/1", "id": f"of-{image}", "images": [image], "task": "vqa",
            "question": QUESTION, "model_text": "x", "verdict": "edited", "text": "Yes.", "author": "Dr A",
        }  # fmt: skip
        assert server.post("/radfound/corrections", json=correction).ok
    before = server.ask(VOLUME, QUESTION, model_only=True).json()
    assert (before["confidence"], before["reason"]) == (None, None)  # this checkpoint has none

    assert server.post("/train/radfound", json=TRAINING).ok
    assert server.training_status(timeout_s=900)["status"] == "DONE"
    (adapter,) = server.get("/radfound/adapters").json()["adapters"]
    assert adapter["manifest"]["calibration"].startswith("closed questions: 40")

    after = server.ask(VOLUME, QUESTION, model_only=True).json()
    assert (after["text"], after["model"]["adapter"]) == ("Yes.", adapter["id"])
    # Whether half of the known questions end up right differs between processors.
    assert (after["confidence"] is None) == ("no confidence" in (after["reason"] or ""))
    open_question = server.ask(VOLUME, "Where is it?", model_only=True).json()
    assert open_question["confidence"] is None
    assert "too few answers to such questions could be checked" in open_question["reason"]
    state = server.studies / ".radfound"
    assert all(any((state / name).iterdir()) for name in ("visual", "evaluations", "activations"))
