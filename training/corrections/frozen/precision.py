"""The precision that this machine computes quickest in."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F

from radfound.model.devices import device_of

_TOKENS, _WIDTH, _WIDER = 256, 576, 1536
_REPEATS = 5
_WORTH_IT = 1.3  # how much faster float32 has to be: it needs twice the memory


@lru_cache(maxsize=1)
def quickest_dtype() -> torch.dtype:
    """Return float32 or bfloat16, by a measurement of 0.1 s on this processor; on a GPU bfloat16.

    Processors without units for bfloat16 convert every number, and many multiply it several times more slowly than
    float32.
    """
    if device_of(None).type != "cpu":
        return torch.bfloat16
    seconds = {dtype: _seconds(dtype) for dtype in (torch.float32, torch.bfloat16)}
    is_worth_it = seconds[torch.float32] * _WORTH_IT < seconds[torch.bfloat16]
    return torch.float32 if is_worth_it else torch.bfloat16


def _seconds(dtype: torch.dtype) -> float:
    """Return the time of a product as in the language model's feed-forward layers."""
    x, weight = (torch.ones(rows, _WIDTH, dtype=dtype) for rows in (_TOKENS, _WIDER))
    return min(_time_of(lambda: F.linear(x, weight)) for _ in range(_REPEATS))


def _time_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
