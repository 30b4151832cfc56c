"""The device of a model, checked before the model is loaded."""

from __future__ import annotations

import torch

from radfound.exceptions import DeviceError


def device_of(name: str | None) -> torch.device:
    """Return the device of this name, by default the best device of this machine.

    Raises
    ------
    DeviceError
        If this machine has no such device.
    """
    try:
        device = torch.device(name or _names()[-1])
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError):  # AssertionError if torch was built without CUDA
        raise DeviceError(
            f"device: {name} is not there; expected one of {', '.join(_names())}; "
            "leave it out for the default"
        ) from None
    return device


def _names() -> list[str]:
    """Return the devices of this machine, best last."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{index}" for index in range(1, count)), *["cuda"][:count]]
