"""All frames of a training set in memory, and their features from the frozen stem."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tqdm import tqdm

from radfound.datasets import Example
from radfound.exceptions import StudyError, TrainingError
from radfound.model.modeling_radfound import RadFoundVisionModel
from radfound.study.frames import FrameConfig, make_frames

logger = logging.getLogger(__name__)


class FrameBank:
    """Frames of many examples as 8-bit pixels, with position, plane and view.

    Parameters
    ----------
    examples : sequence of Example
        Unreadable ones are skipped with a warning.
    config : FrameConfig

    Attributes
    ----------
    examples : list of Example
        The readable examples.
    pixels : uint8 tensor, shape (M, 3, S, S)
    positions_mm : float32 tensor, shape (M, 3)
    planes, views : int64 tensors, shape (M,)
    rows : list of int64 tensors
        For each example, the rows of its frames.
    """

    def __init__(self, examples: Sequence[Example], config: FrameConfig):
        self.examples: list[Example] = []
        self.rows: list[torch.Tensor] = []
        known, count = {}, 0
        pixels, positions, planes, views = [], [], [], []
        for example in tqdm(examples, desc="loading", unit="study", leave=False):
            name = (example.files, example.footer, repr(example.region))
            if name not in known:
                try:
                    frames = make_frames(example.read(), config, example.region)
                except StudyError as error:
                    logger.warning("skipped: %s", error)
                    continue
                # Bytes at once: all frames in float32 would take four times the memory.
                pixels.append((frames.pixels * 255).round().to(torch.uint8))
                positions.append(frames.positions_mm)
                planes.append(frames.planes)
                views.append(frames.views)
                known[name] = torch.arange(count, count + len(frames))
                count += len(frames)
            self.examples.append(example)
            self.rows.append(known[name])
        if not pixels:
            raise TrainingError(
                f"none of {len(examples)} examples could be read; the warnings above say why"
                if examples
                else "no examples to read; look at the data folder and the split"
            )
        self.pixels = torch.cat(pixels)
        self.positions_mm = torch.cat(positions)
        self.planes = torch.cat(planes)
        self.views = torch.cat(views)

    def __len__(self) -> int:
        return len(self.examples)

    def divided(self, share: float, seed: int) -> tuple[FrameBank, FrameBank]:
        """Split by patients or cases into two banks over the same pixels: about `share`, and the rest."""
        keys = sorted({example.key for example in self.examples})
        chosen = set(random.Random(seed).sample(keys, max(1, round(share * len(keys)))))
        parts = []
        for inside in (True, False):
            part = copy.copy(self)
            numbers = [n for n, e in enumerate(self.examples) if (e.key in chosen) == inside]
            part.examples = [self.examples[n] for n in numbers]
            part.rows = [self.rows[n] for n in numbers]
            parts.append(part)
        return parts[0], parts[1]

    def frames_of(self, index: int, limit: int, generator: torch.Generator) -> torch.Tensor:
        """Draw at most `limit` rows of an example's frames, in order."""
        rows = self.rows[index]
        if len(rows) <= limit:
            return rows
        return rows[torch.randperm(len(rows), generator=generator)[:limit].sort().values]


def augment(
    pixels: torch.Tensor, generator: torch.Generator, owner: torch.Tensor | None = None
) -> torch.Tensor:
    """Randomly rotate, shift and zoom frames and change gamma and gain; never flip, so that left stays left.

    Parameters
    ----------
    pixels : uint8 tensor, shape (B, 3, S, S)
    generator : torch.Generator
    owner : int64 tensor, shape (B,), optional
        The study of each frame; frames of one study share a transform. By default each has its own.

    Returns
    -------
    float32 tensor of the same shape, in [0, 1]
    """
    count = pixels.shape[0]
    owner = torch.arange(count) if owner is None else owner

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(int(owner.max()) + 1, generator=generator)[owner]

    angle, zoom = uniform(-0.2, 0.2), uniform(0.8, 1.1)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = angle.cos() * zoom
    theta[:, 0, 1], theta[:, 1, 0] = -angle.sin() * zoom, angle.sin() * zoom
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-0.12, 0.12), uniform(-0.12, 0.12)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels.float() / 255.0, grid, align_corners=False).clamp(0.0, 1.0)
    gamma = uniform(-0.35, 0.35).exp()[:, None, None, None]
    gain = uniform(0.85, 1.1)[:, None, None, None]
    return (moved.pow(gamma) * gain).clamp(0.0, 1.0)


@torch.no_grad()
def stem_features(
    model: RadFoundVisionModel, pixels: torch.Tensor, batch_size: int = 32
) -> torch.Tensor:
    """Run the stem over uint8 frames (M, 3, S, S); return bfloat16 features (M, C, H, W)."""
    parts = []
    for start in tqdm(
        range(0, len(pixels), batch_size), desc="encoding", unit="batch", leave=False
    ):
        batch = pixels[start : start + batch_size].float() / 255.0
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(model.stem_features(batch).to(torch.bfloat16))
    return torch.cat(parts)
