"""Trained weights: snapshots, their moving average, and gathering from all processes."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from training.loop.processes import is_first_process

# Trained weights, and buffers such as a batch norm's statistics, by name.
Snapshot = dict[str, torch.Tensor]

# Part that activation checkpointing adds to the names of wrapped modules.
_WRAPPER = "_checkpoint_wrapped_module."


def _trained(objective: nn.Module) -> dict[str, nn.Parameter]:
    return {
        name.replace(_WRAPPER, ""): p for name, p in objective.named_parameters() if p.requires_grad
    }


def changing(objective: nn.Module) -> Snapshot:
    """Return the trainable parameters and persistent buffers, not copied."""
    parameters = {
        name.replace(_WRAPPER, "") for name, _ in objective.named_parameters(remove_duplicate=False)
    }
    buffers = {n: value for n, value in objective.state_dict().items() if n not in parameters}
    return {name: p.detach() for name, p in _trained(objective).items()} | buffers


def take_snapshot(objective: nn.Module, averaged: Snapshot | None = None) -> Snapshot:
    """Return a copy on the CPU, with averaged weights in place of the last ones if given.

    This process's part of sharded weights stays on its device.
    """
    return {
        name: value.clone() if isinstance(value, DTensor) else value.to("cpu", copy=True)
        for name, value in (changing(objective) | (averaged or {})).items()
    }


@torch.no_grad()
def load_snapshot(objective: nn.Module, snapshot: Snapshot) -> None:
    """Load a snapshot into an objective, in place."""
    own = changing(objective)
    for name, value in snapshot.items():
        own[name].copy_(value)


class WeightAverage:
    """Exponential moving average of an objective's trained weights.

    The decay grows with the step up to its final value, so that random initial weights fade quickly.

    Parameters
    ----------
    objective : module
    decay : float
    """

    def __init__(self, objective: nn.Module, decay: float):
        self.decay = decay
        self._parameters = _trained(objective)
        self.values: Snapshot = {n: p.detach().clone() for n, p in self._parameters.items()}

    def update(self, step: int) -> None:
        """Update the average with the weights after a step."""
        average = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        average(list(self.values.values()), list(self._parameters.values()), step)

    def store(self, objective: nn.Module) -> Snapshot:
        """Load the average into the objective; return the replaced weights."""
        replaced = {name: p.detach().clone() for name, p in self._parameters.items()}
        load_snapshot(objective, self.values)
        return replaced


def whole_state(module: nn.Module) -> Snapshot:
    """Return a module's state, gathered from all processes, on the CPU.

    Every process must call this; all but the first get an empty dict.
    """
    first = is_first_process()
    found: Snapshot = {}
    for name, value in module.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if first:
            found[name] = whole.detach().cpu()
    return found
