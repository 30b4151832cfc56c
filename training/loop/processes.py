"""The processes of a run, as Hugging Face Accelerate knows them."""

from __future__ import annotations

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType, GradientAccumulationPlugin
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy


def is_first_process() -> bool:
    """Return whether this process is the one that writes what all have learnt."""
    return _state().is_main_process


def process_number() -> int:
    """Return the number of this process among those of the run, from 0."""
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
    # One process may run several loops (the fine-tuning of a server does), each with its own settings;
    # Accelerate would keep those of the first.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    accelerator = Accelerator(
        # Without a GPU, Accelerate sees the processes of a launcher only when told to look.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if precision == "bf16" else "no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=accumulate, sync_with_dataloader=False
        ),
        # A batch may hold nothing for one of an objective's heads.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    plugin = accelerator.state.fsdp_plugin if is_sharded(accelerator) else None
    if plugin and precision == "bf16":
        # Accelerate's own choice returns the loss, and adds up gradients, in bfloat16.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    return accelerator


def is_sharded(accelerator: Accelerator) -> bool:
    """Return whether each process holds only a part of the weights (FSDP)."""
    return accelerator.distributed_type == DistributedType.FSDP


def whole_modules(objective: nn.Module) -> list[str]:
    """Return the classes of modules that are gathered as one when weights are sharded.

    Models of transformers name them (`_no_split_modules`); an objective has those of all models in it.

    Returns
    -------
    list of str
        Names of classes of which the objective has at least one module.
    """
    named = {
        name
        for module in objective.modules()
        for name in (getattr(module, "_no_split_modules", None) or ())
    }
    return sorted(named & {type(module).__name__ for module in objective.modules()})
