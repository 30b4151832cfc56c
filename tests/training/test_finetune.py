import numpy as np
import pytest

from radfound.adapters import AdapterStore
from radfound.correction import Correction
from radfound.corrections import CorrectionLog
from radfound.engine import Engine
from radfound.exceptions import StudyUnreadableError, TrainingError
from radfound.study import Study, StudyImage
from training.finetune import FinetuneConfig, finetune

QUICK = FinetuneConfig(max_steps=300, learning_rate=2e-2)


def study(seed):
    voxels = np.random.default_rng(seed).integers(0, 99, (9, 16, 16)).astype(np.int16)
    return Study((StudyImage(voxels, np.diag([-1.0, -1.0, 3.0, 1.0])),))


STUDIES = {f"ct0{n}": study(n) for n in range(3)}


def read(image):
    if image not in STUDIES:
        raise StudyUnreadableError(f"{image}: not there")
    return STUDIES[image]


def corrected(image, text, verdict="edited", **fields):
    return Correction(
        images=(image,),
        task="vqa",
        question="What is it?",
        model_text="x",
        verdict=verdict,
        text=text,
        author="a",
        **fields,
    )


@pytest.fixture
def place(tmp_path):
    return CorrectionLog(tmp_path / "corrections.sqlite"), AdapterStore(tmp_path / "adapters")


def test_corrections_change_the_answers_of_a_running_engine_and_can_be_taken_back(place):
    log, store = place
    engine = Engine.load("radfound-tiny", adapters=store)
    before = {
        image: engine.answer(s, "vqa", "What is it?", max_new_tokens=20).text
        for image, s in STUDIES.items()
    }
    for image in STUDIES:
        log.append(corrected(image, f"Answer {image}."))
    steps = []
    result = finetune(
        log, store, read, checkpoint="radfound-tiny", config=QUICK, progress=steps.append
    )
    after = {
        image: engine.answer(s, "vqa", "What is it?", max_new_tokens=20)
        for image, s in STUDIES.items()
    }
    assert result.published and result.adapter == store.active()
    assert {image: a.text for image, a in after.items()} == {
        image: f"Answer {image}." for image in STUDIES
    }
    assert {a.model.adapter for a in after.values()} == {result.adapter}
    assert steps[0].message and steps[-1].step <= QUICK.max_steps
    assert store.manifest(result.adapter)["metrics"]["corrections"] == 3
    store.rollback()
    again = {
        image: engine.answer(s, "vqa", "What is it?", max_new_tokens=20).text
        for image, s in STUDIES.items()
    }
    assert again == before


def test_only_the_newest_correction_of_a_question_is_learnt(place):
    log, store = place
    log.append(corrected("ct00", "First."))
    log.append(corrected("ct00", "Second."))
    finetune(log, store, read, checkpoint="radfound-tiny", config=QUICK)
    engine = Engine.load("radfound-tiny", adapters=store)
    assert engine.answer(STUDIES["ct00"], "vqa", "What is it?", max_new_tokens=20).text == "Second."


def test_a_correction_about_a_region_is_learnt_from_that_region(place):
    log, store = place
    left, right = (
        {"slice_mm": {"point": [-8.0, -8.0, z], "normal": [0.0, 0.0, 1.0]}} for z in (3.0, 21.0)
    )
    log.append(corrected("ct00", "Left.", region=left))
    log.append(corrected("ct00", "Right.", region=right))
    log.append(corrected("ct00", "Nowhere.", region={"box_mm": [[900, 0, 0], [901, 1, 1]]}))
    result = finetune(log, store, read, checkpoint="radfound-tiny", config=QUICK)
    assert result.metrics["corrections"] == 2
    engine = Engine.load("radfound-tiny", adapters=store)
    said = [
        engine.answer(STUDIES["ct00"], "vqa", "What is it?", region=region, max_new_tokens=20).text
        for region in (left, right)
    ]
    assert said == ["Left.", "Right."]


def test_a_run_that_fails_the_gate_publishes_nothing_and_says_why(place):
    log, store = place
    log.append(corrected("ct00", "One."))
    first = finetune(log, store, read, checkpoint="radfound-tiny", config=QUICK)
    log.append(corrected("ct01", "Never learnt in a single step."))
    second = finetune(
        log,
        store,
        read,
        checkpoint="radfound-tiny",
        config=FinetuneConfig(max_steps=1, learning_rate=1e-5),
    )
    assert not second.published and second.adapter is None and "reproduced" in second.reason
    assert store.active() == first.adapter and len(store.list()) == 1


def test_nothing_to_learn_from_is_a_clear_error(place):
    log, store = place
    log.append(corrected("ct00", "", verdict="rejected"))
    with pytest.raises(TrainingError, match="edit or accept"):
        finetune(log, store, read, checkpoint="radfound-tiny")


def test_a_study_that_is_gone_is_left_out(place):
    log, store = place
    log.append(corrected("gone", "Lost."))
    with pytest.raises(TrainingError, match="none can be learnt from"):
        finetune(log, store, read, checkpoint="radfound-tiny", config=QUICK)
    log.append(corrected("ct00", "Found.", id="found"))
    result = finetune(log, store, read, checkpoint="radfound-tiny", config=QUICK)
    assert result.metrics["corrections"] == 1
    assert store.manifest(result.adapter)["corrections"] == ["found"]
