"""The adapter is compared with what recall, wording and heads answer without it."""

from dataclasses import replace

import numpy as np
import pytest

from radfound.correction import Correction
from radfound.records.adapters import AdapterStore
from radfound.records.corrections import CorrectionLog
from radfound.study.study import Study, StudyImage
from radfound.teaching import Teaching
from radfound.teaching.decisions import Decisions
from training.corrections.finetune import FinetuneConfig, finetune
from training.corrections.memory import remembered

QUESTION = "Was contrast given?"
COUNT = 40


def correction(number):
    """A study with an even number got contrast; the model always says No."""
    text = ("Yes", "No")[number % 2]
    return Correction(
        images=(f"ct{number:02d}",), task="vqa", question=QUESTION, model_text="No",
        verdict="accepted" if text == "No" else "edited", text=text, author="Dr A",
        id=f"c{number:02d}", image_hash=digest(number),
    )  # fmt: skip


def digest(number):
    return f"{number:064x}"


def features(found):
    """Features in which contrast is easy to see."""
    number = int(found, 16)
    noise = np.random.default_rng(number).normal(size=16)
    noise[0] += 6.0 * (number % 2)
    return noise.astype(np.float32)


@pytest.fixture
def log(tmp_path):
    log = CorrectionLog(tmp_path / "corrections.sqlite")
    for number in range(COUNT):
        log.append(correction(number))
    return log


@pytest.fixture
def teaching(log, tmp_path):
    return Teaching(log, Decisions(tmp_path / "templates.sqlite"), features=features)


def test_a_head_answers_held_out_corrections_from_those_of_other_studies(teaching):
    held_out = [correction(number) for number in range(8)]
    assert remembered(teaching, held_out) == [each.text for each in held_out]
    assert teaching.over(held_out).head is not None  # the teaching itself is as it was
    assert remembered(None, held_out) == [None] * 8


def test_recall_does_not_answer_a_held_out_correction_with_its_own_text(log, tmp_path):
    teaching = Teaching(log, Decisions(tmp_path / "templates.sqlite"))
    assert remembered(teaching, [correction(0)]) == [None]
    again = replace(correction(0), id="by-another", author="Dr B")
    log.append(again)
    assert remembered(teaching, [again]) == [None]


def test_an_adapter_is_not_published_where_a_head_is_as_good(log, teaching, tmp_path):
    def read(image):
        voxels = np.random.default_rng(int(image[2:])).integers(0, 99, (2, 16, 16))
        return Study((StudyImage(voxels.astype(np.int16), np.eye(4)),))

    store = AdapterStore(tmp_path / "adapters")
    config = FinetuneConfig(max_steps=3, learning_rate=1e-4, replay_studies=0)
    result = finetune(
        log, store, read, checkpoint="radfound-tiny", config=config, teaching=teaching
    )
    checks = {each["name"]: each for each in result.gate["checks"]}
    assert checks["memory and heads"]["passed"] is False
    assert "memory of the corrections is as good" in result.reason and store.list() == []
    alone = finetune(log, store, read, checkpoint="radfound-tiny", config=config)
    assert "memory and heads" not in {each["name"] for each in alone.gate["checks"]}
