"""Settings of the optimiser loop, its progress reports, and the examples of a step."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch

from radfound.exceptions import TrainingError

PRECISIONS = ("bf16", "fp32")


@dataclass(frozen=True)
class LoopConfig:
    """Settings of the optimiser loop.

    Parameters
    ----------
    steps, warmup_steps : int
        Linear warm-up, then cosine decay to a tenth of the learning rate.
    learning_rate : float
        Of the group with factor 1; other groups scale it.
    batch_size : int
        Examples in a step, over all processes and micro-batches.
    accumulate : int
        Micro-batches in a step.
    weight_decay : float
        Of matrices; biases, norms and other vectors do not decay.
    clip_norm : float
        Largest norm of the gradient; 0 for no limit.
    log_every, checkpoint_every : int
    validate_every : int
        0 for never; otherwise also after the last step.
    patience : int
        Number of validations without a lower loss after which the run stops, with the weights of the best
        validation; 0 to run all steps.
    average : float
        Decay of the exponential moving average of the trained weights, which is validated and kept at the
        end; 0 for none.
    seed : int
    precision : {"bf16", "fp32"}
        bf16 is autocast; the weights keep their dtype.
    """

    steps: int
    learning_rate: float
    batch_size: int = 32
    accumulate: int = 1
    warmup_steps: int = 30
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    log_every: int = 20
    checkpoint_every: int = 200
    validate_every: int = 0
    patience: int = 0
    average: float = 0.0
    seed: int = 0
    precision: str = "bf16"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.precision not in PRECISIONS:
            raise TrainingError(f"precision is {self.precision!r}; expected one of {PRECISIONS}")
        if not 0.0 <= self.average < 1.0:
            raise TrainingError(f"average is {self.average}; expected a decay in [0, 1)")
        if self.patience and not self.validate_every:
            raise TrainingError("patience needs validations to count; set validate_every too")


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Parameters
    ----------
    step, total : int
    loss, seconds_left : float
        NaN if unknown.
    message : str
        The phase, in words for users.
    corrections : int or None
        Number of corrections that a fine-tuning run learns from.
    """

    step: int
    total: int
    loss: float
    seconds_left: float
    message: str = ""
    corrections: int | None = None


Advance = Callable[[int], None]
"""Called with the amount of work that was done since the last call."""


def no_advance(_: int) -> None:
    """Do nothing, where nobody asks for the progress."""


@dataclass(frozen=True)
class Draw:
    """Examples and random seed of one process in one micro-batch of a step.

    The parts of a step are numbered over micro-batches and processes together, so that two processes and
    one process with twice the micro-batches get the same examples with the same noise.
    """

    step: int
    micro: int
    config: LoopConfig
    rank: int = 0
    world: int = 1

    @property
    def part(self) -> int:
        """Number of this part of the step's batch."""
        return self.micro * self.world + self.rank

    @property
    def size(self) -> int:
        """Number of examples in this part."""
        return self.config.batch_size // (self.config.accumulate * self.world)

    @property
    def seed(self) -> int:
        """Seed of this part's noise."""
        return random.Random(f"{self.config.seed}/{self.step}/{self.part}").getrandbits(62)

    def indices(self, count: int) -> list[int]:
        """Return this part's share of the step's batch, out of `count` examples."""
        order = epoch_order(count, self.step, self.config.batch_size, self.config.seed)
        return order[self.part * self.size : (self.part + 1) * self.size]

    def generator(self) -> torch.Generator:
        """Return a generator of this part's noise, on the CPU."""
        return torch.Generator().manual_seed(self.seed)

    def chooser(self) -> random.Random:
        """Return a Python random generator for this part's choices."""
        return random.Random(self.seed)


def learning_rate_factor(step: int, config: LoopConfig) -> float:
    """Return the factor of the learning rate at a step."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.1 + 0.45 * (1.0 + math.cos(math.pi * min(1.0, done)))


@lru_cache(maxsize=32)
def _permutation(count: int, epoch: int, seed: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))


def epoch_order(count: int, step: int, batch_size: int, seed: int) -> list[int]:
    """Return the indices of a step's batch: every epoch is a new permutation of all examples."""
    if count < 1:
        raise TrainingError("no examples to learn from; look at the data folder and the split")
    indices: list[int] = []
    position, end = step * batch_size, (step + 1) * batch_size
    while position < end:
        epoch, offset = divmod(position, count)
        drawn = _permutation(count, epoch, seed)[offset : offset + end - position].tolist()
        indices += drawn
        position += len(drawn)
    return indices
