"""The precision is chosen by a measurement."""

import pytest
import torch

from radfound.engine.local import precision
from radfound.engine.local.model import LocalModel
from radfound.model.checkpoints import REGRESSION, bundled
from radfound.question import Question

CPU, BF16 = torch.device("cpu"), torch.bfloat16


@pytest.mark.parametrize(
    ("float32_s", "bfloat16_s", "expected"),
    [(1.0, 4.0, torch.float32), (1.0, 1.2, torch.bfloat16), (4.0, 1.0, torch.bfloat16)],
)
def test_float32_is_chosen_where_it_is_clearly_quicker(
    monkeypatch, float32_s, bfloat16_s, expected
):
    seconds = {torch.float32: float32_s, torch.bfloat16: bfloat16_s}
    monkeypatch.setattr(precision, "_seconds", seconds.__getitem__)
    assert precision.quickest_dtype.__wrapped__() is expected


@pytest.fixture
def slow_at_bfloat16(monkeypatch):
    monkeypatch.setattr(precision, "quickest_dtype", lambda: torch.float32)


def saved(folder, size):
    with open(folder / "model.safetensors", "wb") as file:
        file.truncate(size)  # takes no room on the disk
    return folder


def test_a_small_model_is_loaded_in_the_quickest_precision(slow_at_bfloat16, tmp_path):
    assert precision.dtype_for(saved(tmp_path, 300 * 2**20), CPU) is torch.float32


def test_a_large_model_and_one_of_unknown_size_keep_to_the_smaller_precision(
    slow_at_bfloat16, tmp_path
):
    assert precision.dtype_for(saved(tmp_path, 14 * 2**30), CPU) is torch.bfloat16
    assert precision.dtype_for("somebody/a-model", CPU) is torch.bfloat16


def test_a_gpu_computes_in_bfloat16_without_a_measurement(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "_seconds", None)
    gpu = torch.device("cuda")
    assert precision.dtype_for(saved(tmp_path, 2**20), gpu) is torch.bfloat16


def test_both_precisions_are_measured():
    assert all(precision._seconds(dtype) > 0 for dtype in (torch.float32, torch.bfloat16))


def test_the_embedded_model_is_loaded_so_and_finds_answers_as_likely(slow_at_bfloat16):
    quick, small = (LocalModel.load("radfound-mini", "cpu", dtype) for dtype in (None, BF16))
    assert (quick.model.dtype, small.model.dtype) == (torch.float32, BF16)
    for study in bundled("radfound-mini", REGRESSION)[:6]:
        text, right = study.pairs[0]
        asked = Question("vqa", text)
        one, other = (
            local.score(study.visual.to(local.model.dtype)[None], asked, right)
            for local in (quick, small)
        )
        assert one == pytest.approx(other, abs=0.15)
