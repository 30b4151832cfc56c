"""What a model was measured not to see is not shown as its answer."""

import json

import numpy as np
import pytest

from radfound.engine.answer_stream import AnswerStream
from radfound.engine.competence import COMPETENCE, DEFAULT_MOVE, Competence, Lead
from radfound.engine.engine import Engine
from radfound.engine.models import build
from radfound.engine.models.settings import one_model
from radfound.engine.protocol import Abilities, Description
from radfound.engine.stream import Stream, Token
from radfound.exceptions import CheckpointError, StorageError
from radfound.model.checkpoints import shipped_folder
from radfound.question import CANNOT_TELL
from radfound.study.study import Study, StudyImage

STUDY = Study([StudyImage(np.zeros((1, 8, 8), np.float32), np.eye(4), calibrated=False)])
BLIND = Competence("r1", {"finding": Lead(-0.01, -0.04, "…"), "open": Lead(0.05, 0.01, "…")})


class Echo:
    """A backend that answers "Yes" to everything."""

    def describe(self):
        return Description("echo", "r1", None, 8, None, "", Abilities("none"))

    def stream(self, study, question, *, adapter, limit):
        stream = Stream()
        stream.put(Token("Yes"))
        stream.put(Token("", last=True))
        stream.end()
        return stream


def test_captions_and_reports_are_of_no_kind():
    assert BLIND.looks("report", None)


def test_a_kind_that_was_measured_counts_more_than_the_broad_one():
    found = Competence(
        "r1", {**BLIND.leads, "size": Lead(0.2, 0.1, "…"), "location": Lead(0, -0.1, "…")}
    )
    assert found.looks("vqa", "Is the heart enlarged?")
    assert not found.looks("vqa", "Is there a tumor?")
    assert not found.looks("vqa", "Where is the liver?")
    assert found.looks("vqa", "What is the dark structure?")


def test_a_guess_is_folded_and_not_streamed():
    stream = Engine(Echo(), competence=BLIND).stream(STUDY, question="Is there a tumor?")
    assert isinstance(stream, AnswerStream)
    text, answer = list(stream)
    assert text == CANNOT_TELL
    assert (answer.text, answer.model_text, answer.confidence) == (CANNOT_TELL, "Yes", None)
    assert "did not depend on the picture" in answer.reason


def test_what_depends_on_the_picture_and_what_was_not_measured_is_answered():
    asked = {"question": "Which lobe is this?"}
    assert Engine(Echo(), competence=BLIND).answer(STUDY, **asked).text == "Yes"
    assert Engine(Echo()).answer(STUDY, question="Is there a tumor?").text == "Yes"


def results(lows, least_move=0.03):
    kinds = {
        kind: {
            "n": 40,
            "score": "right",
            "lead": {"value": low + 0.05, "low": low},
            "over": "blank",
        }
        for kind, low in lows.items()
    }
    return {
        "model": {"revision": "r1"},
        "competence": {"kinds": kinds, "least_move": least_move},
    }


def test_what_the_benchmark_measured_is_kept_and_read(tmp_path):
    found = Competence.of_results(results({"presence": -0.04, "open": 0.01}))
    assert not found.looks("vqa", "Is there a tumor?") and found.looks("vqa", "Which lobe?")
    assert found.leads["open"].over == "blank" and found.leads["open"].n == 40
    found.write(tmp_path / "state")
    assert Competence.read(tmp_path / "state", "r1") == found
    assert Competence.read(tmp_path / "state", "other weights") is None
    assert Competence.of_results(results({}, None)).least_move == DEFAULT_MOVE


def test_files_of_the_first_schema_are_read(tmp_path):
    leads = {
        "finding": {"value": -0.004, "low": -0.038, "score": "RadVLBench, closed questions"},
        "open": {"value": 0.051, "low": 0.005, "score": "RadVLBench, open questions"},
    }
    old = {"schema": "radfound.competence/1", "revision": "r1", "leads": leads}
    (tmp_path / COMPETENCE.name).write_text(json.dumps(old))
    found = Competence.read(tmp_path, "r1")
    assert not found.looks("vqa", "Is the heart enlarged?") and found.looks("vqa", "Where is it?")
    assert found.least_move == DEFAULT_MOVE


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="competence.json"):
        Competence.of_results(results({"open": 0.1})).write(tmp_path / "file")


def test_a_damaged_file_is_an_error_and_a_missing_one_is_not(tmp_path):
    assert Competence.read(tmp_path, "r1") is None
    (tmp_path / COMPETENCE.name).write_text("{")
    with pytest.raises(CheckpointError, match="competence.json"):
        Competence.read(tmp_path, "r1")


def test_a_sites_own_model_has_its_competence_in_its_state_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(build._BUILDERS, "openai", lambda model, hosts: Echo())
    model = one_model("openai:http://127.0.0.1:1/v1#echo").named()
    asked = {"question": "Is there a tumor?"}
    assert build.build_engine(model, calibration=tmp_path).answer(STUDY, **asked).text == "Yes"
    BLIND.write(tmp_path)
    engine = build.build_engine(model, calibration=tmp_path)
    assert engine.answer(STUDY, **asked).text == CANNOT_TELL


def test_the_shipped_model_says_nothing_about_findings():
    folder = shipped_folder("radfound-mini")
    revision = json.loads((folder / COMPETENCE.name).read_text())["revision"]
    found = Competence.read(folder, revision)
    assert found is not None and not found.looks("vqa", "Is there a tumor?")
