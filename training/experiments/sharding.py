"""Estimate of sharding, memory and training time of a model on several GPUs.

`python -m training.experiments.sharding radfound-7b --gpus 8 --examples 400000` prints the estimate, without a GPU and
without the weights.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from radfound.commands import run_command
from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from radfound.model.sizes import SIZES, size_config
from training.loop.processes import whole_modules

_GIB = 2**30


@dataclass(frozen=True)
class Unit:
    """Modules of one class and size, each gathered as a whole.

    Parameters
    ----------
    kind : str
        Name of their class, or "the rest" for all other parameters, which stay gathered during a step.
    names : tuple of str
    parameters : int
        Of each module, gathered.
    parameters_per_process : int
        Of each module, sharded.
    """

    kind: str
    names: tuple[str, ...]
    parameters: int
    parameters_per_process: int


def sharding_plan(objective: nn.Module, processes: int) -> list[Unit]:
    """Return the units that FSDP2 shards with `TRANSFORMER_BASED_WRAP`, as in training/stages/configs/fsdp.yaml.

    Parameters
    ----------
    objective : module
        May be on the meta device.
    processes : int

    Returns
    -------
    list of Unit
        Modules of one class and size share an entry; the last is the rest.
    """
    kinds = set(whole_modules(objective))
    # The innermost of nested modules owns a parameter; unowned parameters belong to the rest.
    owner: dict[int, tuple[str, str]] = {}
    for name, module in objective.named_modules():
        if type(module).__name__ in kinds:
            owner |= {id(p): (name, type(module).__name__) for p in module.parameters()}
    sizes: dict[tuple[str, str], list[nn.Parameter]] = {}
    for parameter in objective.parameters():
        sizes.setdefault(owner.get(id(parameter), ("", "the rest")), []).append(parameter)
    found: dict[tuple[str, int], tuple[list[str], int]] = {}
    for (name, kind), owned in sizes.items():
        whole, part = sum(p.numel() for p in owned), sum(_share(p, processes) for p in owned)
        found.setdefault((kind, whole), ([], part))[0].append(name)
    units = [Unit(kind, tuple(names), n, part) for (kind, n), (names, part) in found.items()]
    return sorted(units, key=lambda unit: unit.kind == "the rest")


def _share(parameter: nn.Parameter, processes: int) -> int:
    """Return the number of elements on the first process; a parameter is sharded along its first axis."""
    if parameter.ndim == 0:
        return 1
    rows = math.ceil(parameter.shape[0] / processes)
    return rows * (parameter.numel() // parameter.shape[0])


@dataclass(frozen=True)
class Memory:
    """Memory of one GPU during a step in bytes, without activations.

    Parameters
    ----------
    weights, gradients, optimizer : int
        In float32, with two optimizer states for each trained weight; frozen weights in bfloat16.
    gathered : int
        Weights in bfloat16 of the rest and of two units of the largest size, since the next is prefetched.
        If all weights are trained, also the gradients of the larger of rest and unit, in bfloat16 and,
        for the reduction, in float32.
    """

    weights: int
    gradients: int
    optimizer: int
    gathered: int

    @property
    def total(self) -> int:
        """Sum of all."""
        return self.weights + self.gradients + self.optimizer + self.gathered


def memory(units: Sequence[Unit], learning: float = 1.0) -> Memory:
    """Return the memory of a plan in which a share `learning` of the parameters is trained."""
    kept = sum(len(unit.names) * unit.parameters_per_process for unit in units)
    learnt = int(kept * learning)
    rest = sum(unit.parameters for unit in units if unit.kind == "the rest")
    largest = max((unit.parameters for unit in units if unit.kind != "the rest"), default=0)
    return Memory(
        weights=4 * learnt + 2 * (kept - learnt),
        gradients=4 * learnt,
        optimizer=8 * learnt,
        gathered=2 * (rest + 2 * largest) + (6 * max(rest, largest) if learning == 1.0 else 0),
    )


def epoch_flops(
    parameters: Mapping[str, int],
    *,
    examples: int,
    frames: int,
    patches: int,
    tokens: int,
    learning: float = 1.0,
) -> float:
    """Return the floating-point operations of an epoch of instruction tuning.

    For each parameter and token: two for the forward pass, two for the gradient of the inputs, two for that of
    the weights if all are trained (arXiv 2001.08361), and two to recompute activations. The vision encoder is
    frozen and runs forward only.

    Parameters
    ----------
    parameters : mapping from "vision", "connector" and "language" to a count
    examples, frames, patches : int
        Number of studies, frames of a study, and patches of a frame.
    tokens : int
        Tokens of a study in the language model, including visual ones.
    learning : float
        Share of the language model's weights that is trained.
    """
    patches_per_study = frames * patches
    vision = 2 * parameters["vision"] * patches_per_study
    connector = 8 * parameters["connector"] * patches_per_study
    language = (8 if learning == 1.0 else 6) * parameters["language"] * tokens
    return float(examples * (vision + connector + language))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.experiments.sharding", description=__doc__
    )
    parser.add_argument("model", choices=SIZES)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--examples", type=int, default=400_000, help="studies of an epoch")
    parser.add_argument("--frames", type=int, default=2, help="of a study")
    parser.add_argument("--tokens", type=int, default=384, help="of a study, visual ones included")
    parser.add_argument("--tflops", type=float, default=989.0, help="peak of a GPU in bfloat16")
    parser.add_argument("--utilisation", type=float, default=0.35, help="share of the peak reached")
    given = parser.parse_args(arguments)
    with torch.device("meta"):
        model = RadFoundForConditionalGeneration(size_config(given.model))
    parts = ", ".join(f"{n / 1e6:,.0f} {part}" for part, n in model.num_parameters_by_part.items())
    print(f"{given.model}: {model.num_parameters() / 1e9:.2f} billion parameters ({parts} million)")
    units = sharding_plan(model, given.gpus)
    for unit in units:
        print(
            f"{len(unit.names):4d} x {unit.kind:20s} {unit.parameters / 1e6:9.1f} million, "
            f"{unit.parameters_per_process / 1e6:7.1f} million on each of {given.gpus} GPUs"
        )
    for words, learning in (("all weights learn", 1.0), ("a LoRA adapter of 1 % learns", 0.01)):
        need = memory(units, learning)
        print(
            f"{words}: {need.total / _GIB:.1f} GiB on each GPU (weights {need.weights / _GIB:.1f}, "
            f"gradients {need.gradients / _GIB:.1f}, optimizer {need.optimizer / _GIB:.1f}, "
            f"gathered {need.gathered / _GIB:.1f}), and activations"
        )
        work = epoch_flops(
            model.num_parameters_by_part,
            examples=given.examples,
            frames=given.frames,
            patches=model.config.vision_config.patches_per_frame,
            tokens=given.tokens,
            learning=learning,
        )
        speed = given.gpus * given.tflops * 1e12 * given.utilisation
        print(
            f"  an epoch of {given.examples:,} studies ({given.frames} frames, {given.tokens} tokens) is "
            f"{work:.2e} operations: {work / speed / 3600:.1f} hours at {given.utilisation:.0%} of "
            f"{given.tflops:.0f} TFLOP/s"
        )


if __name__ == "__main__":
    run_command(main)
