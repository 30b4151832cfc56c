"""The weights that a run keeps: their average, the best so far, and the checkpoint to resume from."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from radfound.exceptions import TrainingError

if TYPE_CHECKING:
    from training.loop import LoopConfig

# Trained weights, and buffers such as a batch norm's statistics, by name.
Snapshot = dict[str, torch.Tensor]

# What may change between a run and its resumption without making it another run.
_FREE = {"steps", "log_every", "checkpoint_every", "validate_every", "patience"}


def _trained(objective: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in objective.named_parameters() if p.requires_grad}


def _kept(objective: nn.Module) -> Snapshot:
    """Return what changes during a run: trainable parameters and persistent buffers, not copied."""
    frozen = {name for name, p in objective.named_parameters() if not p.requires_grad}
    trained = _trained(objective)
    parameters = dict(objective.named_parameters(remove_duplicate=False))
    buffers = {
        name: value
        for name, value in objective.state_dict().items()
        if name not in frozen and name not in parameters
    }
    return {name: p.detach() for name, p in trained.items()} | buffers


def take_snapshot(objective: nn.Module, averaged: Snapshot | None = None) -> Snapshot:
    """Return a copy on the CPU, with the averaged weights instead of the last where given."""
    return {
        name: value.detach().to("cpu", copy=True)
        for name, value in (_kept(objective) | (averaged or {})).items()
    }


@torch.no_grad()
def load_snapshot(objective: nn.Module, snapshot: Snapshot) -> None:
    """Write a snapshot into an objective, in place."""
    here = _kept(objective)
    for name, value in snapshot.items():
        here[name].copy_(value)


class WeightAverage:
    """Exponential average of an objective's trained weights.

    The decay grows from step to step up to its final value, so that the random weights of the beginning
    are soon forgotten.

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
        """Take the weights after a step into the average."""
        average = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        average(list(self.values.values()), list(self._parameters.values()), step)

    def store(self, objective: nn.Module) -> Snapshot:
        """Write the average into the objective; return the weights that it replaced."""
        replaced = {name: p.detach().clone() for name, p in self._parameters.items()}
        load_snapshot(objective, self.values)
        return replaced


def write_checkpoint(
    folder: Path,
    accelerator: Accelerator,
    objective: nn.Module,
    optimizer: AcceleratedOptimizer,
    average: WeightAverage | None,
    config: LoopConfig,
    state: dict[str, Any],
) -> None:
    """Write `last.pt` so that there is a whole one at every moment."""
    if accelerator.is_main_process:
        whole = {
            "config": asdict(config),
            "model": _kept(objective),
            "optimizer": optimizer.state_dict(),
            "average": average.values if average else None,
            **state,
        }
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "last.pt.part"
        with open(part, "wb") as file:
            torch.save(whole, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, folder / "last.pt")
    accelerator.wait_for_everyone()


def read_checkpoint(
    folder: Path,
    accelerator: Accelerator,
    objective: nn.Module,
    optimizer: AcceleratedOptimizer,
    average: WeightAverage | None,
    config: LoopConfig,
) -> dict[str, Any] | None:
    """Take up `last.pt`, if there is one, and return what else `write_checkpoint` was given.

    Raises
    ------
    TrainingError
        If it is of another objective or of other settings.
    """
    path = folder / "last.pt"
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    settings = asdict(config)
    other = [
        f"{name} {state['config'].get(name)!r} there, {value!r} here"
        for name, value in settings.items()
        if name not in _FREE and state["config"].get(name) != value
    ]
    if other:
        raise TrainingError(
            f"{path} is of a run with other settings ({'; '.join(other)}); restore them to resume, or "
            "train into another folder"
        )
    here = _kept(objective)
    differing = set(here) ^ set(state["model"]) | {
        name for name, value in state["model"].items() if here.get(name, value).shape != value.shape
    }
    if differing:
        raise TrainingError(
            f"{path} is of another model: {sorted(differing)[0]} and {len(differing) - 1} more differ; "
            "train into another folder"
        )
    load_snapshot(objective, state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if average:
        for name, value in average.values.items():
            value.copy_(state["average"][name])
    return state
