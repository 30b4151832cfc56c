from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from radfound.correction import Correction
from radfound.engine.engine import Engine
from radfound.engine.local.model import LocalModel
from radfound.exceptions import StudyUnreadableError, TrainingError
from radfound.records.adapters import WEIGHTS_FILE, AdapterStore
from radfound.records.corrections import CorrectionLog
from radfound.study.study import Study, StudyImage
from training.corrections.finetune import FinetuneConfig, finetune
from training.corrections.frozen.lessons import Lesson
from training.corrections.gate import Check
from training.corrections.judge import _held_out

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


def run(place, **changes):
    """Train on radfound-tiny in a hurry; what the gate says of it matters to few tests."""
    config = changes.pop("config", HASTY)
    return finetune(*place, read, checkpoint="radfound-tiny", config=config, **changes)


HASTY = FinetuneConfig(max_steps=2, learning_rate=1e-5, replay_studies=0)


def test_a_refusal_is_kept_with_its_verdict_and_its_author(place):
    log, store = place
    log.append(corrected("ct00", "Never learnt in two steps.", id="c1"))
    result = run(place, author="an annotator")
    (kept,) = store.refusals()
    assert not result.published and store.active() is None and store.list() == []
    assert kept["gate"] == result.gate and not kept["gate"]["passed"]
    assert (kept["reason"], kept["author"]) == (result.reason, "an annotator")
    assert (kept["corrections"], kept["parent"]) == (["c1"], None)
    assert "corrections: 0% of 1 reproduced" in result.reason


def test_force_publishes_all_the_same_and_that_is_kept(place):
    log, store = place
    log.append(corrected("ct00", "Never learnt in two steps."))
    result = run(place, author="an annotator", force=True)
    kept = store.manifest(result.adapter)
    assert result.published and store.active() == result.adapter and store.refusals() == []
    assert (
        kept["gate"]["forced"] and not kept["gate"]["passed"] and kept["author"] == "an annotator"
    )
    assert "although corrections: 0% of 1 reproduced" in result.reason


# At 0.6 of its strength the adapter forgets the correction, so that it is not examined a third time.
@pytest.mark.parametrize(
    "kept, strength", [((True,), 1.0), ((False, True), 0.8), ((False, False), 1.0)]
)
def test_an_adapter_that_changes_other_answers_too_much_is_weakened(
    place, monkeypatch, kept, strength
):
    log, store = place
    log.append(corrected("ct00", "Learnt well."))
    verdicts = iter(kept)
    monkeypatch.setattr(
        "training.corrections.gate.others_stay",
        lambda scores, bounds: Check("other answers", next(verdicts), "", {}),
    )
    result = run(place, config=QUICK, force=True)
    assert result.metrics["strength"] == strength and reproduced(result) == 1
    assert result.gate["passed"] == kept[-1] and list(verdicts) == []
    monkeypatch.undo()
    other = AdapterStore(store.root.parent / "whole")
    whole = run((log, other), config=QUICK, force=True)
    for name, weights in weights_of(store, result).items():
        factor = strength if ".lora_B." in name else 1.0
        torch.testing.assert_close(weights, factor * weights_of(other, whole)[name])


def weights_of(store, result):
    return load_file(store.path(result.adapter) / WEIGHTS_FILE)


def test_training_goes_on_from_the_adapter_that_answers_unless_asked_to_start_from_scratch(place):
    log, store = place
    log.append(corrected("ct00", "First.", id="c1"))
    first = run(place, config=QUICK, force=True)
    assert first.metrics["steps"] > 1
    again = run(place, config=replace(QUICK, max_steps=1), force=True)
    assert reproduced(again) == 1  # nothing was left to learn
    from_scratch = run(place, config=replace(QUICK, max_steps=1, from_scratch=True), force=True)
    assert reproduced(from_scratch) == 0
    assert [info.manifest["parent"] for info in store.list()] == [None, "a-0001", "a-0002"]


def reproduced(result):
    (check,) = (each for each in result.gate["checks"] if each["name"] == "corrections")
    return check["numbers"]["share"]


def test_only_studies_that_the_active_adapter_has_not_learnt_are_held_out():
    lessons = [Lesson(None, [], f"ct{n}", (f"c{n}", f"d{n}")) for n in range(10)]
    lessons.append(Lesson(None, [], "ct9", ("e9",)))  # a region of a study that is known
    learnt = {f"c{n}" for n in range(5)} | {"d9"}
    kept = _held_out(lessons, learnt, FinetuneConfig(held_out_share=0.5))
    assert len(kept) == 2 and {each.study for each in kept} <= {"ct5", "ct6", "ct7", "ct8"}
    assert kept == _held_out(lessons, learnt, FinetuneConfig(held_out_share=0.5))
    everything = _held_out(lessons, (), FinetuneConfig(held_out_share=1.0))
    assert len({each.study for each in everything}) == 9  # one is left to learn from
    assert _held_out(lessons[:1], (), FinetuneConfig(held_out_share=1.0)) == []


def test_held_out_corrections_are_scored_and_learnt_all_the_same(place):
    log, store = place
    for number, image in enumerate(STUDIES):
        log.append(corrected(image, f"Answer {image}.", id=f"c{number}"))
    result = run(place, config=replace(HASTY, held_out_share=0.4), force=True)
    (check,) = (each for each in result.gate["checks"] if each["name"] == "held-out corrections")
    assert check["numbers"]["n"] == 1
    assert sorted(store.manifest(result.adapter)["corrections"]) == ["c0", "c1", "c2"]


def test_a_text_that_is_too_long_to_learn_is_left_out_and_named(place):
    log, store = place
    log.append(corrected("ct00", "word " * 600, id="endless"))
    log.append(corrected("ct01", "Short.", id="short"))
    result = run(place, force=True)
    kept = store.manifest(result.adapter)
    assert kept["corrections"] == ["short"]
    assert list(kept["left_out"]) == ["endless"] and "at most 256" in kept["left_out"]["endless"]


def test_what_one_run_kept_is_not_computed_again_by_the_next(place, tmp_path, monkeypatch):
    log, store = place
    for image in STUDIES:
        log.append(corrected(image, f"Answer {image}."))
    kept = {"version": lambda image: "1", "cache": tmp_path / "kept"}
    run(place, **kept)
    monkeypatch.setattr(LocalModel, "generate", only_nothing)
    again = finetune(log, store, never, checkpoint="radfound-tiny", config=HASTY, **kept)
    assert again.metrics["corrections"] == 3


def never(image):
    raise AssertionError(f"{image} was read again")


def only_nothing(self, visual, questions, *limits):
    assert not questions, "an own answer was generated again"
    return []


def test_a_withdrawn_correction_leaves_nothing_behind(place, tmp_path):
    log, store = place
    kept = {"version": lambda image: image, "cache": tmp_path / "kept"}
    log.append(corrected("ct00", "Stays.", id="stays"))
    run(place, **kept)
    before = files_of(tmp_path / "kept")
    log.append(corrected("ct01", "Goes.", id="goes"))
    run(place, **kept)
    assert files_of(tmp_path / "kept") > before
    log.withdraw("goes", "a")
    run(place, **kept)
    assert files_of(tmp_path / "kept") == before
    log.withdraw("stays", "a")
    with pytest.raises(TrainingError, match="edit or accept"):
        run(place, **kept)
    assert files_of(tmp_path / "kept") == set()


def files_of(folder):
    """What is kept of corrected studies."""
    return {
        (name, file.name)
        for name in ("visual", "own_answers")
        for file in (folder / name).glob("*")
    }


def test_a_run_says_at_once_how_long_it_takes_and_names_its_phases(place, tmp_path):
    log, _ = place
    for image in STUDIES:
        log.append(corrected(image, f"Answer {image}."))
    news = []
    run(
        place, config=replace(HASTY, held_out_share=0.4), progress=news.append, cache=tmp_path / "k"
    )
    assert all(each.seconds_left >= 0 and each.corrections == 3 for each in news)
    assert news[0].message == "loading the model" and news[0].seconds_left > 0
    assert list(dict.fromkeys(each.message for each in news)) == [
        "loading the model",
        "reading the studies",
        "checking what the model answers now",
        "learning all but a few studies, to examine it on these",
        "learning the corrections",
        "checking against known questions",
    ]
    assert (tmp_path / "k" / "pace.json").is_file()
