"""Settings of the server that a training obeys."""

from types import SimpleNamespace

import pytest

from monailabel_app.lib.trainers import RadFoundTrainer, TrainingState
from radfound.correction import Correction
from radfound.exceptions import TrainingError
from radfound.records.corrections import CorrectionLog


@pytest.mark.parametrize("backend", ["radfound", "transformers"])
def test_a_text_of_one_reader_is_not_learnt_where_two_must_agree(tmp_path, backend):
    log = CorrectionLog(tmp_path / "corrections.sqlite")
    log.append(
        Correction(
            images=("ct01",), task="vqa", question="Is it CT?", model_text="No", verdict="edited",
            text="Yes", author="Dr A",
        )
    )  # fmt: skip
    model = SimpleNamespace(name="a model", backend=backend, place="radfound-tiny")
    service = SimpleNamespace(
        log=log,
        teaching=SimpleNamespace(confirm=2),
        models=SimpleNamespace(trainable=lambda name: model, adapters=lambda name: None),
        studies=SimpleNamespace(get=None, version=None),
    )
    state = TrainingState(tmp_path / "training.json")
    with pytest.raises(TrainingError, match="with 2 readers who agree"):
        RadFoundTrainer(service, state)({}, None)
    assert state.read().state == "failed"
