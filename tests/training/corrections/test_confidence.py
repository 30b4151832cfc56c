"""The confidence of an adapter: refitted after its training, kept with it, given by the engine."""

import json

import numpy as np
import pytest

from radfound.correction import Correction
from radfound.engine.confidence import CALIBRATION, Calibration
from radfound.engine.engine import Engine
from radfound.records.adapters import AdapterStore
from radfound.records.corrections import CorrectionLog
from radfound.study.study import Study, StudyImage
from tests.training.corrections.tiny_checkpoint import QUESTION, write_checkpoint
from training.corrections.finetune import FinetuneConfig, finetune

QUICK = FinetuneConfig(max_steps=100, learning_rate=1e-2)


def read(image):
    voxels = np.random.default_rng(sum(image.encode())).integers(0, 99, (2, 16, 16))
    return Study((StudyImage(voxels.astype(np.int16), np.eye(4)),))


def correction(image, question=QUESTION, text="Yes."):
    return Correction(
        images=(image,), task="vqa", question=question, model_text="x", verdict="edited", text=text, author="a"
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint with a regression set, and an adapter that says "Yes." to its questions."""
    folder = tmp_path_factory.mktemp("trained")
    checkpoint = write_checkpoint(folder / "tiny")
    log, store = CorrectionLog(folder / "corrections.sqlite"), AdapterStore(folder / "adapters")
    for number in range(3):
        log.append(correction(f"ct{number}"))
    result = finetune(log, store, read, checkpoint=checkpoint, config=QUICK, force=True)
    return checkpoint, store, result


def test_a_training_keeps_the_calibration_with_the_adapter(trained):
    _, store, result = trained
    manifest = store.manifest(result.adapter)
    assert CALIBRATION.name in manifest["files"]
    assert manifest["calibration"].startswith("closed questions: 4")
    assert manifest["calibration"].endswith("fitted")
    found = Calibration.read(store.path(result.adapter), manifest["base_revision"])
    assert found.curves.keys() == {"closed"} and found.curves["closed"].fitted_on >= 40


def test_answers_of_the_adapter_have_its_own_confidence(trained):
    checkpoint, store, result = trained
    engine = Engine.load(checkpoint, adapters=store)
    answer = engine.answer(read("ct0"), "vqa", QUESTION)
    assert (answer.text, answer.model.adapter) == ("Yes.", result.adapter)
    assert 0.3 < answer.confidence < 0.8 and answer.reason is None  # it is right half of the time
    store.activate(None)
    assert engine.answer(read("ct0"), "vqa", QUESTION).confidence is None
    store.activate(result.adapter)


def test_a_kind_of_question_that_could_not_be_checked_has_no_confidence_and_says_so(trained):
    checkpoint, store, _ = trained
    engine = Engine.load(checkpoint, adapters=store)
    answer = engine.answer(read("ct0"), "vqa", "Where is it?", max_new_tokens=4)
    assert answer.confidence is None
    assert answer.reason.startswith("no confidence: too few answers to such questions")
    assert engine.answer(read("ct0"), "caption", max_new_tokens=4).reason is None


def test_an_adapter_of_an_earlier_version_answers_without_confidence(trained, tmp_path):
    checkpoint, store, result = trained
    folder = tmp_path / "earlier"
    folder.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (folder / name).write_bytes((store.path(result.adapter) / name).read_bytes())
    earlier = AdapterStore(tmp_path / "adapters")
    earlier.publish(folder, {"base_revision": store.manifest(result.adapter)["base_revision"]})
    answer = Engine.load(checkpoint, adapters=earlier).answer(read("ct0"), "vqa", QUESTION)
    assert (answer.text, answer.confidence) == ("Yes.", None)
    assert answer.reason.startswith("no confidence")


def test_a_calibration_that_cannot_be_used_costs_the_confidence_alone(trained, tmp_path, caplog):
    checkpoint, store, result = trained
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in store.path(result.adapter).glob("adapter_*"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / CALIBRATION.name).write_text(json.dumps({"revision": "x"}))
    damaged = AdapterStore(tmp_path / "adapters")
    damaged.publish(folder, {})
    answer = Engine.load(checkpoint, adapters=damaged).answer(read("ct0"), "vqa", QUESTION)
    assert (answer.text, answer.confidence) == ("Yes.", None)
    assert "its answers have no confidence" in caplog.text
