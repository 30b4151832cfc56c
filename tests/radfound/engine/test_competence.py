"""What a model was measured not to see is not shown as its answer."""

import json

import numpy as np
import pytest

from radfound.engine.answer_stream import AnswerStream
from radfound.engine.competence import COMPETENCE_FILE, Competence, Lead, kind_of_question
from radfound.engine.engine import Engine
from radfound.engine.protocol import Abilities, Description
from radfound.engine.stream import Stream, Token
from radfound.exceptions import CheckpointError
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


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Is there a tumor?", "finding"),
        ("Does this show a fracture?", "finding"),
        ("What is abnormal?", "finding"),
        ("What is the diagnosis?", "finding"),
        ("What is wrong with this patient?", "finding"),
        ("Which lobe is this?", "open"),
        ("Where is the liver?", "open"),
    ],
)
def test_questions_about_findings_are_told_from_others(question, kind):
    assert kind_of_question("vqa", question) == kind


def test_captions_and_reports_are_of_no_kind():
    assert kind_of_question("caption", None) is None
    assert BLIND.looks("report", None)


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


def results(lows):
    def row(name, low):
        lead = {"value": low + 0.05, "low": low, "high": low + 0.1}
        better = {"value": 0.5, "low": 0.4, "high": 0.6}
        return {
            "row": name, "score": "accuracy", "lower_is_better": False, "over_blank": better, "over_other": lead,
        }  # fmt: skip

    rows = [row(name, low) for name, low in lows.items()]
    return {"model": {"revision": "r1"}, "tasks": {"vqa": {"rows": rows}}}


def test_the_least_lead_over_both_controls_counts(tmp_path):
    found = Competence.of_results(results({"closed": -0.04, "open": 0.01}))
    assert not found.looks("vqa", "Is there a tumor?") and found.looks("vqa", "Which lobe?")
    (tmp_path / COMPETENCE_FILE).write_text(json.dumps(found.to_json()))
    assert Competence.read(tmp_path, "r1") == found
    assert Competence.read(tmp_path, "other weights") is None


def test_a_damaged_file_is_an_error_and_a_missing_one_is_not(tmp_path):
    assert Competence.read(tmp_path, "r1") is None
    (tmp_path / COMPETENCE_FILE).write_text("{")
    with pytest.raises(CheckpointError, match="competence.json"):
        Competence.read(tmp_path, "r1")


def test_the_shipped_model_says_nothing_about_findings():
    folder = shipped_folder("radfound-mini")
    revision = json.loads((folder / COMPETENCE_FILE).read_text())["revision"]
    found = Competence.read(folder, revision)
    assert found is not None and not found.looks("vqa", "Is there a tumor?")
