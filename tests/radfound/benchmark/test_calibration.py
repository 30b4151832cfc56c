import json

import numpy as np
import pytest

from radfound.benchmark.scoring.calibration import FEWEST, fit_curve, reliability
from radfound.engine.confidence import (
    Calibration,
    Curve,
    calibration_group,
    length_normalised_probability,
)
from radfound.engine.engine import Engine
from radfound.exceptions import CheckpointError
from radfound.question import Question
from radfound.study.study import Study, StudyImage


def test_ece_by_hand():
    # Bins of width 1/15. 0.95 twice, one right: |0.95 - 0.5| * 2/3; 0.31 once, wrong: 0.31 / 3.
    found = reliability([0.95, 0.95, 0.31], [1, 0, 0])
    assert found.ece == pytest.approx(0.45 * 2 / 3 + 0.31 / 3)
    assert sum(found.counts) == 3 and found.counts[14] == 2 and found.counts[4] == 1
    assert found.accuracy[14] == 0.5 and np.isnan(found.accuracy[0])


def test_full_confidence_is_in_the_last_bin():
    assert reliability([1.0, 0.0], [1, 0]).ece == 0.0


def overconfident(count, seed):
    """Answers that claim logit x and are right with sigmoid(x / 3 - 0.5)."""
    rng = np.random.default_rng(seed)
    odds = rng.uniform(1, 6, count)
    right = rng.random(count) < 1 / (1 + np.exp(-(odds / 3 - 0.5)))
    return 1 / (1 + np.exp(-odds)), right.astype(float)


def test_calibration_mends_an_overconfident_model():
    said, right = overconfident(1500, seed=1)
    curve = fit_curve(said, right, [str(k) for k in range(1500)])
    assert curve.temperature == pytest.approx(3, abs=0.9)
    assert curve.bias == pytest.approx(-0.5, abs=0.4)
    said, right = overconfident(1500, seed=2)
    before, after = reliability(said, right), reliability([curve.apply(p) for p in said], right)
    assert before.ece > 0.2 and after.ece < 0.05


def test_temperature_alone_is_kept_where_a_bias_does_not_pay():
    rng = np.random.default_rng(0)
    odds = rng.uniform(-4, 4, 400)
    right = (rng.random(400) < 1 / (1 + np.exp(-odds / 2))).astype(float)
    curve = fit_curve(1 / (1 + np.exp(-odds)), right, [str(k) for k in range(400)])
    assert curve.bias == pytest.approx(0, abs=0.15)
    assert curve.temperature == pytest.approx(2, abs=0.6)


def test_a_model_that_is_always_right_does_not_send_the_curve_to_infinity():
    curve = fit_curve([0.7] * 50, [1] * 50, [str(k) for k in range(50)])
    assert 0.9 < curve.apply(0.7) < 1


def test_too_few_questions_give_no_curve():
    assert fit_curve([0.5] * (FEWEST - 1), [1] * (FEWEST - 1), ["a"] * (FEWEST - 1)) is None


@pytest.mark.parametrize(
    ("task", "question", "group"),
    [
        ("vqa", "Is there an effusion?", "closed"),
        ("vqa", "Is/are the lungs clear?", "closed"),
        ("vqa", "Which imaging modality is this?", "open"),
        ("caption", None, None),
        ("report", None, None),
    ],
)
def test_a_question_is_closed_where_its_first_word_asks_for_yes_or_no(task, question, group):
    assert calibration_group(task, question) == group


@pytest.fixture
def calibration():
    return Calibration("random", {"closed": Curve(2.0, -1.0, 100)})


def test_a_calibration_is_kept_beside_the_weights_that_it_was_made_for(tmp_path, calibration):
    assert Calibration.read(tmp_path, "random") is None
    calibration.write(tmp_path)
    assert Calibration.read(tmp_path, "random") == calibration


def test_that_of_other_weights_is_not_used_and_said_so(tmp_path, calibration, caplog):
    calibration.write(tmp_path)
    assert Calibration.read(tmp_path, "retrained") is None
    assert "other weights" in caplog.text


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"revision": "a", "curves": {"x": {}}})])
def test_a_damaged_calibration_is_an_error_that_says_what_to_do(tmp_path, text):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(CheckpointError, match="radfound bench --calibrate"):
        Calibration.read(tmp_path, "random")


def test_the_engine_answers_with_calibrated_confidence_or_none(calibration):
    engine = Engine.load("radfound-tiny")
    study = Study((StudyImage(np.ones((1, 20, 20), np.int16), np.eye(4)),))
    asked = {"task": "vqa", "question": "Is it?", "max_new_tokens": 4}
    assert engine.answer(study, **asked).confidence is None
    tokens = list(
        engine.backend.model.stream(
            engine.backend.model.encode(study), Question("vqa", "Is it?"), 4
        )
    )
    raw = length_normalised_probability([token.log_probability for token in tokens])
    engine.calibration = calibration
    odds = np.log(raw / (1 - raw)) / 2 - 1
    assert engine.answer(study, **asked).confidence == pytest.approx(1 / (1 + np.exp(-odds)))
    assert engine.answer(study, **{**asked, "question": "Where?"}).confidence is None
    assert engine.answer(study, "caption", max_new_tokens=4).confidence is None
