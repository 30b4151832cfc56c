"""Processes of a run, through Hugging Face Accelerate."""

from __future__ import annotations

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType, GradientAccumulationPlugin
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy


def is_first_process() -> bool:
    """Return whether this process writes the run's files."""
    return _state().is_main_process


def process_number() -> int:
    """Return the rank of this process in the run, from 0."""
    return _state().process_index


def training_device() -> torch.device:
    """Return the device that this process trains on."""
    return _state().device


def _state() -> PartialState:
    return PartialState(cpu=not torch.accelerator.is_available())


def new_accelerator(precision: str, accumulate: int) -> Accelerator:
    """Return an accelerator for one loop.

    Parameters
    ----------
    precision : {"bf16", "fp32"}
    accumulate : int
    """
    # One process may run several loops with different settings, such as a server's fine-tuning;
    # Accelerate would keep the settings of the first.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    accelerator = Accelerator(
        # Without a GPU, Accelerate detects the launcher's processes only with cpu=True.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if precision == "bf16" else "no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=accumulate, sync_with_dataloader=False
        ),
        # A batch may leave one of an objective's heads unused.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    plugin = accelerator.state.fsdp_plugin if is_sharded(accelerator) else None
    if plugin and precision == "bf16":
        # Accelerate's default returns the loss and accumulates gradients in bfloat16.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    return accelerator


def is_sharded(accelerator: Accelerator) -> bool:
    """Return whether each process holds only a shard of the weights (FSDP)."""
    return accelerator.distributed_type == DistributedType.FSDP


def whole_modules(objective: nn.Module) -> list[str]:
    """Return the module classes that are gathered as one when weights are sharded.

    These are the `_no_split_modules` of all transformers models in the objective.

    Returns
    -------
    list of str
        Names of classes with at least one module in the objective.
    """
    named = {
        name
        for module in objective.modules()
        for name in (getattr(module, "_no_split_modules", None) or ())
    }
    return sorted(named & {type(module).__name__ for module in objective.modules()})
