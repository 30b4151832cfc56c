"""The precision is chosen by a measurement."""

import pytest
import torch

from training.corrections.frozen import precision


@pytest.mark.parametrize(
    ("float32_s", "bfloat16_s", "expected"),
    [(1.0, 4.0, torch.float32), (1.0, 1.2, torch.bfloat16), (4.0, 1.0, torch.bfloat16)],
)
def test_float32_is_chosen_where_it_is_clearly_quicker(
    monkeypatch, float32_s, bfloat16_s, expected
):
    seconds = {torch.float32: float32_s, torch.bfloat16: bfloat16_s}
    monkeypatch.setattr(precision, "_seconds", seconds.__getitem__)
    monkeypatch.setattr(precision, "device_of", lambda _: torch.device("cpu"))
    assert precision.quickest_dtype.__wrapped__() is expected


def test_a_gpu_computes_in_bfloat16_without_a_measurement(monkeypatch):
    monkeypatch.setattr(precision, "device_of", lambda _: torch.device("cuda"))
    monkeypatch.setattr(precision, "_seconds", None)
    assert precision.quickest_dtype.__wrapped__() is torch.bfloat16


def test_both_precisions_are_measured():
    assert all(precision._seconds(dtype) > 0 for dtype in (torch.float32, torch.bfloat16))
