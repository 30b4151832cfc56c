"""Where a model computes, checked before the model is loaded."""

from __future__ import annotations

import torch

from radfound.exceptions import DeviceError


def device_of(name: str | None) -> torch.device:
    """Return the device of that name, or the best one there is.

    Raises
    ------
    DeviceError
        If this machine has no such device.
    """
    try:
        device = torch.device(name or _names()[-1])
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError):  # the former where torch was built without CUDA
        raise DeviceError(
            f"device: {name} is not there; expected one of this machine: {', '.join(_names())}; "
            "leave it out to have one chosen"
        ) from None
    return device


def _names() -> list[str]:
    """Return the devices of this machine, best last."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{index}" for index in range(1, count)), *["cuda"][:count]]
