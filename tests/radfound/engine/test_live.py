"""A yes or no that is as likely about other pictures of the same kind is not shown as an answer."""

import math

import numpy as np
import pytest

from radfound.engine.engine import Engine
from radfound.engine.generated import Generated
from radfound.engine.local.backend import LocalBackend
from radfound.engine.protocol import Abilities, Description
from radfound.engine.silence.live import (
    NOT_MOVED,
    REFERENCES,
    LiveCheck,
    Move,
    ShippedReferences,
    checked_stream,
)
from radfound.engine.stream import Stream, Token
from radfound.exceptions import Cancelled, RequestError
from radfound.model.checkpoints import REPLAY, bundled
from radfound.question import CANNOT_TELL, Question
from radfound.study.study import Study, StudyImage

TUMOR = Question(text="Is there a tumor?")


def study(value):
    voxels = np.full((1, 8, 8), value, np.float32)
    return Study([StudyImage(voxels, np.eye(4), calibrated=False)])


class Scorer:
    """Says "Yes", as surely as the picture is bright or as it always does."""

    def __init__(self, looks=True, text="Yes", known=True):
        self.looks, self.text, self.known, self.scored = looks, text, known, 0

    def describe(self):
        return Description("s", "r1", None, 8, None, "", Abilities("all", score=True))

    def chance(self, shown):
        return float(shown.images[0].voxels.mean()) * 0.5 + 0.4 if self.looks else 0.7

    def stream(self, study, question, *, adapter, limit):
        stream = Stream()
        known = math.log(self.chance(study)) if self.known else None
        stream.put(Token(self.text, known, None, last=True))
        stream.end()
        return stream

    def score(self, study, question, text, *, adapter):
        self.scored += 1
        return math.log(self.chance(study))


def answer(backend, question="Is there a tumor?", **options):
    engine = Engine(backend, live=LiveCheck(backend))
    return engine.answer(study(1), question=question, **options)


def test_an_answer_that_does_not_move_is_folded():
    found = answer(Scorer(looks=False))
    assert (found.text, found.model_text, found.confidence) == (CANNOT_TELL, "Yes", None)
    assert found.reason == NOT_MOVED and found.source == "model"


def test_an_answer_that_moves_is_shown():
    assert answer(Scorer()).text == "Yes"


def test_nothing_is_streamed_before_it_is_checked():
    backend = Scorer(looks=False)
    pieces = list(Engine(backend, live=LiveCheck(backend)).stream(study(1), question=TUMOR.text))
    assert pieces[0] == CANNOT_TELL and len(pieces) == 2


def test_what_cannot_become_a_yes_or_no_is_streamed_at_once():
    tokens = Stream()
    checked = checked_stream(tokens, lambda generated: pytest.fail("not a yes or no"))
    for text in (" ", "No", "rmal"):
        tokens.put(Token(text))
    found = iter(checked)
    assert [next(found).text for _ in range(3)] == [" ", "No", "rmal"]
    tokens.put(Token(" heart"))
    assert next(found).text == " heart"
    tokens.end()
    assert next(found, None) is None


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Where is the tumor?", {}),
        ("Is there a tumor?", {"model_only": True}),
    ],
)
def test_open_questions_and_the_model_alone_are_not_checked(question, options):
    backend = Scorer(looks=False)
    assert answer(backend, question, **options).text == "Yes" and backend.scored == 0


def test_what_is_no_yes_or_no_is_not_checked():
    backend = Scorer(looks=False, text="CT")
    assert answer(backend, "Is this a CT or an MRI?").text == "CT" and backend.scored == 0


def test_a_server_without_probabilities_scores_the_study_too():
    backend = Scorer(known=False)
    assert answer(backend).text == "Yes" and backend.scored == 2


def test_a_question_costs_one_pass_when_it_is_new_and_then_none():
    backend = Scorer(looks=False)
    engine = Engine(backend, live=LiveCheck(backend))
    for value in (1, 2, 3):
        engine.answer(study(value), question=TUMOR.text)
    assert backend.scored == 1
    engine.answer(study(1), question="Is there a fracture?")
    assert backend.scored == 2


def test_a_check_that_fails_leaves_the_answer():
    backend = Scorer(looks=False)

    def score(*arguments, **options):
        raise RequestError("too long")

    backend.score = score
    assert answer(backend).text == "Yes"


def test_a_failure_or_a_cancellation_ends_the_checked_stream():
    failed, waiting = Stream(), Stream()
    failed.fail(RequestError("no"))
    with pytest.raises(RequestError):
        list(checked_stream(failed, lambda generated: None))
    checked = checked_stream(waiting, lambda generated: None)
    checked.cancel()
    with pytest.raises(Cancelled):
        list(checked)
    assert waiting.is_cancelled


def test_the_most_different_reference_decides():
    assert Move(0.6, (0.59, 0.4, 0.61)).most == pytest.approx(0.2)
    assert Move(0.6, ()).most == 0


# With models


class Fields:
    """Reads the same kind of picture in every study."""

    def __init__(self, modality="MRI", region="head"):
        self.values = {"modality": modality, "region": region}

    def reading(self, study):
        return self


def test_radfound_tiny_is_compared_with_a_blank():
    backend = LocalBackend.load("radfound-tiny")
    live = LiveCheck(backend, ShippedReferences(backend, "radfound-tiny"), Fields())
    found = live.move(study(1), TUMOR, Generated("yes", None, None, True), None)
    assert len(found.others) == 1 and 0 < found.own < 1
    blank = study(1).blanked()
    assert found.others[0] == pytest.approx(
        math.exp(backend.score(blank, TUMOR, "yes", adapter=None))
    )
    backend.close()


@pytest.fixture(scope="module")
def mini():
    backend = LocalBackend.load("radfound-mini")
    yield backend
    backend.close()


def test_radfound_mini_is_compared_with_the_studies_it_is_shipped_with(mini):
    references = ShippedReferences(mini, "radfound-mini")
    scores = references.scores(("MRI", "head"), TUMOR, "No", None)
    assert 3 <= len(scores) <= REFERENCES
    shipped = [
        each for each in bundled("radfound-mini", REPLAY)
        if ("Which imaging modality is this?", "MRI") in each.pairs
        and ("Which body region is shown?", "head") in each.pairs
    ]  # fmt: skip
    alone = mini.model.score(shipped[0].visual[None], TUMOR, "No")
    assert scores[0] == pytest.approx(alone, abs=0.1)  # in bfloat16 a batch rounds otherwise
    assert references.scores(("MRI", "hand"), TUMOR, "No", None) is None


def test_the_references_are_scored_once(mini, monkeypatch):
    live = LiveCheck(mini, ShippedReferences(mini, "radfound-mini"), Fields())
    no = Generated("No", (-0.2, 0.0), None, True)
    first = live.move(study(1), TUMOR, no, None)
    monkeypatch.setattr(mini, "score_tokens", None)
    assert live.move(study(2), TUMOR, no, None) == first
