import numpy as np

from radfound.engine.confidence import Calibration
from training.corrections.calibration import Answered, fit_adapter_calibration


def answers(count, question, seed=0):
    """Answers that are right half as often as their probability says."""
    chance = np.random.default_rng(seed)
    told = chance.uniform(0.5, 0.99, count)
    right = chance.random(count) < told / 2
    return [
        Answered("vqa", question, float(p), bool(hit), f"study {n // 2}")
        for n, (p, hit) in enumerate(zip(told, right, strict=True))
    ]


def test_confidence_of_an_adapter_follows_its_own_held_out_answers(tmp_path):
    closed = answers(400, "Is there an effusion?")
    found = fit_adapter_calibration("0123", closed[:100], closed[100:])
    told = [found.calibration.confidence("vqa", "Is there a mass?", a.probability) for a in closed]
    assert abs(np.mean(told) - np.mean([a.right for a in closed])) < 0.03
    assert found.told == "closed questions: 400 answers, fitted"
    found.calibration.write(tmp_path)
    assert Calibration.read(tmp_path, "0123") == found.calibration


def test_kind_of_question_with_too_few_answers_has_no_confidence():
    found = fit_adapter_calibration(
        "0123", answers(3, "Where is the mass?"), answers(400, "Is there a mass?")
    )
    assert found.calibration.confidence("vqa", "Where is the mass?", 0.9) is None
    assert "open questions: 3 answers, not fitted" in found.told


def test_adapter_without_held_out_answers_has_no_calibration():
    assert fit_adapter_calibration("0123", [], []).calibration is None
    right = [Answered("vqa", "Is it?", 0.9, True, f"s{n}") for n in range(400)]
    assert fit_adapter_calibration("0123", right, []).calibration is None
    assert fit_adapter_calibration("0123", [Answered("caption", None, 0.9, True, "s")], []).told
