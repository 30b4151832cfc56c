"""The precision to load a model in: the one that its device computes quickest in."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F

from radfound.model.checkpoints import folder_of

_TOKENS, _WIDTH, _WIDER = 256, 576, 1536
_REPEATS = 5
_WORTH_IT = 1.3  # how much faster float32 has to be: it needs twice the memory
_MOST_BYTES = 2**30  # of weights that may take twice the memory


def dtype_for(checkpoint: str | Path, device: torch.device) -> torch.dtype:
    """Return float32 for a small checkpoint on a processor that is slow at bfloat16, otherwise bfloat16.

    Parameters
    ----------
    checkpoint : str or Path
        As for `radfound.model.checkpoints.load`; one whose size is not known, such as a hub id, counts as large.
    device : torch.device
    """
    if device.type != "cpu":
        return torch.bfloat16
    weights = sum(file.stat().st_size for file in folder_of(checkpoint).glob("*.safetensors"))
    return quickest_dtype() if 0 < weights <= _MOST_BYTES else torch.bfloat16


@lru_cache(maxsize=1)
def quickest_dtype() -> torch.dtype:
    """Return float32 or bfloat16, by a measurement of 0.1 s on this processor.

    Processors without units for bfloat16 convert every number, and many multiply it several times more slowly than
    float32.
    """
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
