"""The one optimiser loop.

A step's data follow from its number and the seed alone, so that a run that was killed and resumed goes
on as if it had not been.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to learn.

    Parameters
    ----------
    steps, warmup_steps : int
        The rate rises linearly, then falls with a cosine to a tenth.
    learning_rate : float
        Of the group named "default"; other groups scale it.
    weight_decay, clip_norm : float
    log_every, checkpoint_every : int
    seed : int
    """

    steps: int
    learning_rate: float
    warmup_steps: int = 30
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    log_every: int = 20
    checkpoint_every: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """Where a run is."""

    step: int
    total: int
    loss: float
    seconds_left: float
    message: str = ""


def learning_rate_factor(step: int, config: LoopConfig) -> float:
    """Return the share of the learning rate at a step."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.1 + 0.45 * (1.0 + math.cos(math.pi * min(1.0, done)))


def epoch_order(count: int, step: int, batch_size: int, seed: int) -> list[int]:
    """Return the indices of a step's batch: every epoch is a new permutation of all examples."""
    indices = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, offset = divmod(position, count)
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        indices.append(int(torch.randperm(count, generator=generator)[offset]))
    return indices


def optimise(
    model: nn.Module,
    groups: Mapping[float, Iterable[nn.Parameter]],
    loss_of: Callable[[int], tuple[torch.Tensor, dict[str, float]]],
    config: LoopConfig,
    *,
    folder: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[dict[str, float]]:
    """Minimise `loss_of(step)`, resuming from `folder` if there is a checkpoint in it.

    Parameters
    ----------
    model : module
        Everything whose trainable parameters are to be kept in the checkpoint.
    groups : mapping from learning-rate factor to parameters
    loss_of : callable
        Takes the step, returns the loss and numbers to log.
    config : LoopConfig
    folder : Path, optional
        Takes `last.pt` and `log.jsonl`.
    progress : callable, optional
        Called every `log_every` steps; an exception it raises ends the run.

    Returns
    -------
    list of dict
        The logged numbers.
    """
    parameter_groups: list[dict[str, Any]] = [
        {"params": list(group), "factor": factor} for factor, group in groups.items()
    ]
    trained = [p for group in parameter_groups for p in group["params"]]
    optimizer = torch.optim.AdamW(
        parameter_groups, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    start = _resume(folder, model, optimizer)
    history: list[dict[str, float]] = []
    began, running = time.monotonic(), 0.0
    for step in range(start, config.steps):
        torch.manual_seed(config.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = (
                config.learning_rate * group["factor"] * learning_rate_factor(step, config)
            )
        loss, numbers = loss_of(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
        optimizer.step()
        value = loss.item()
        running = value if step == start else 0.95 * running + 0.05 * value
        if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
            left = (time.monotonic() - began) / (step + 1 - start) * (config.steps - step - 1)
            history.append({"step": step + 1, "loss": value, "loss_smooth": running, **numbers})
            _log(folder, history[-1])
            if progress:
                progress(Progress(step + 1, config.steps, running, left))
        if folder and ((step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps):
            _save(folder, model, optimizer, step + 1)
    return history


def _trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def _save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "last.pt.part"
    torch.save(
        {"model": _trainable(model), "optimizer": optimizer.state_dict(), "step": step}, part
    )
    os.replace(part, folder / "last.pt")


def _resume(folder: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if folder is None or not (folder / "last.pt").is_file():
        return 0
    state: dict[str, Any] = torch.load(folder / "last.pt", weights_only=True)
    model.load_state_dict(state["model"], strict=False)
    optimizer.load_state_dict(state["optimizer"])
    logger.info("resumed at step %d", state["step"])
    return int(state["step"])


def _log(folder: Path | None, numbers: dict[str, float]) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(numbers) + "\n")
