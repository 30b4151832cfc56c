"""What all stages share: settings that every one has, the command line, and how weights are written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from radfound.exceptions import TrainingError


def save_parts(path: Path, parts: Mapping[str, nn.Module]) -> None:
    """Write modules to one safetensors file, in bfloat16, each name behind that of its part."""
    state = {
        f"{part}.{name}": tensor.to(torch.bfloat16).contiguous()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    beside = path.with_suffix(".part")
    save_file(state, beside, metadata={"format": "pt"})
    os.replace(beside, path)


def load_parts(path: Path, model: nn.Module) -> None:
    """Read what `save_parts` wrote of a model's parts into it.

    Raises
    ------
    TrainingError
        If the file is missing, or does not fit the model.
    """
    if not path.is_file():
        raise TrainingError(f"{path}: not found; run the stage before this one, or name its output")
    state = load_file(path)
    parts = {name.split(".", 1)[0] for name in state}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise TrainingError(f"{path}: of another size than this model ({error})") from error
    missing = [
        name
        for name in missing
        if name.split(".", 1)[0] in parts and not name.endswith("num_batches_tracked")
    ]
    if unexpected or missing:
        raise TrainingError(
            f"{path}: does not fit this model ({len(missing)} tensors missing, "
            f"{len(unexpected)} unknown); train it with the same version and model size"
        )
