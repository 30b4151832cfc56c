"""Throughput of pretraining compared with transformers' `ViTMAEForPreTraining` of the same size.

`python -m training.experiments.throughput` prints the images per second of both, from short alternating rounds in one
process: forward, backward and optimiser step under bfloat16 autocast, on pixels in memory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from radfound.commands import run_command
from radfound.model.configuration_radfound import RadFoundVisionConfig
from radfound.model.modeling_radfound import RadFoundVisionModel
from training.stages.objectives import PretrainObjective, PretrainWeights

FRAMES_PER_STUDY = 4


@dataclass(frozen=True)
class Shape:
    """Size of encoder and decoder, the same in both models; heads are 64 wide."""

    image_size: int = 224
    patch_size: int = 16
    width: int = 384
    layers: int = 6
    decoder_width: int = 192
    decoder_layers: int = 2
    mask_ratio: float = 0.6
    context_layers: int = 2


@dataclass(frozen=True)
class Throughput:
    """Medians over the rounds.

    Parameters
    ----------
    alone, with_context, reference : float
        Images per second of the objective without and with its inter-frame parts, and of ViTMAE.
    ratio : float
        Median over the rounds of `alone` to `reference`.
    context_cost : float
        Median over the rounds of the share of time that the inter-frame parts add.
    """

    alone: float
    with_context: float
    reference: float
    ratio: float
    context_cost: float


def our_loss(shape: Shape, batch: int, weights: PretrainWeights) -> tuple[nn.Module, Callable]:
    """Return the pretraining objective and a function of pixels (batch, 3, S, S) to its loss."""
    vision = RadFoundVisionModel(
        RadFoundVisionConfig(
            image_size=shape.image_size,
            patch_size=shape.patch_size,
            stem="patch",
            hidden_size=shape.width,
            intermediate_size=4 * shape.width,
            num_hidden_layers=shape.layers,
            num_context_layers=shape.context_layers,
            num_attention_heads=shape.width // 64,
        )
    )
    bank: Any = SimpleNamespace(
        positions_mm=torch.rand(batch, 3) * 100,
        planes=torch.zeros(batch, dtype=torch.long),
        views=torch.zeros(batch, dtype=torch.long),
    )
    objective = PretrainObjective(
        vision,
        bank,
        mask_ratio=shape.mask_ratio,
        decoder_width=shape.decoder_width,
        decoder_layers=shape.decoder_layers,
        weights=weights,
    )
    rows, generator = torch.arange(batch), torch.Generator().manual_seed(0)
    owner = rows // FRAMES_PER_STUDY
    return objective, lambda pixels: objective.loss(pixels, rows, owner, generator)[0]


def reference_loss(shape: Shape) -> tuple[nn.Module, Callable]:
    """Return ViTMAE (arXiv 2111.06377) of transformers and a function of pixels to its loss."""
    model = ViTMAEForPreTraining(
        ViTMAEConfig(
            image_size=shape.image_size,
            patch_size=shape.patch_size,
            hidden_size=shape.width,
            intermediate_size=4 * shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.width // 64,
            decoder_hidden_size=shape.decoder_width,
            decoder_intermediate_size=4 * shape.decoder_width,
            decoder_num_hidden_layers=shape.decoder_layers,
            decoder_num_attention_heads=shape.decoder_width // 64,
            mask_ratio=shape.mask_ratio,
            norm_pix_loss=True,
        )
    )
    return model, lambda pixels: model(pixel_values=pixels).loss


class _Runner:
    """One model's training step."""

    def __init__(self, made: tuple[nn.Module, Callable], pixels: torch.Tensor):
        self._model, self._loss = made[0].to(pixels.device).train(), made[1]
        self._pixels = pixels
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-4, fused=True)

    def images_per_s(self, steps: int) -> float:
        device = self._pixels.device
        self._wait()
        began = time.perf_counter()
        for _ in range(steps):
            with torch.autocast(device.type, torch.bfloat16):
                loss = self._loss(self._pixels)
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
        self._wait()
        return steps * len(self._pixels) / (time.perf_counter() - began)

    def _wait(self) -> None:
        if self._pixels.is_cuda:
            torch.cuda.synchronize()


def compare(
    shape: Shape, *, batch: int = 32, rounds: int = 5, steps: int = 1, device: str = "cpu"
) -> Throughput:
    """Measure the objective without and with its inter-frame parts, and ViTMAE, alternating.

    Parameters
    ----------
    shape : Shape
    batch : int
        Images in a step; with context, studies of four frames.
    rounds, steps : int
        Rounds, and steps of each model in a round; a warm-up round is not counted.
    device : str
    """
    torch.manual_seed(0)
    pixels = torch.rand(batch, 3, shape.image_size, shape.image_size, device=device)
    runners = [
        _Runner(our_loss(shape, batch, PretrainWeights(1.0, 0.0, 0.0)), pixels),
        _Runner(our_loss(shape, batch, PretrainWeights()), pixels),
        _Runner(reference_loss(shape), pixels),
    ]
    found: list[list[float]] = []
    for number in range(rounds + 1):
        # The order alternates, so that no model always runs first.
        order = (0, 1, 2) if number % 2 else (2, 1, 0)
        speeds = {runner: runners[runner].images_per_s(steps) for runner in order}
        found.append([speeds[runner] for runner in range(3)])
    counted = found[1:]
    alone, context, reference = (statistics.median(speeds) for speeds in zip(*counted, strict=True))
    return Throughput(
        alone,
        context,
        reference,
        statistics.median(ours / theirs for ours, _, theirs in counted),
        statistics.median(ours / whole - 1.0 for ours, whole, _ in counted),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.experiments.throughput", description=__doc__
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="steps of each model in a round")
    parser.add_argument("--width", type=int, default=Shape.width)
    parser.add_argument("--layers", type=int, default=Shape.layers)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    shape = Shape(width=given.width, layers=given.layers)
    found = compare(
        shape, batch=given.batch, rounds=given.rounds, steps=given.steps, device=given.device
    )
    print(f"without context {found.alone:8.1f} images/s")
    print(f"with context    {found.with_context:8.1f} images/s, {found.context_cost:+.0%} of time")
    print(f"ViTMAE          {found.reference:8.1f} images/s")
    print(f"ratio without context to ViTMAE {found.ratio:.3f}")


if __name__ == "__main__":
    run_command(main)
