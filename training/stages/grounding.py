"""Grounding: the first visual tokens become words that the language model already knows.

Modality, plane and region each have a few visual tokens of their own, which learn to lie where the word of
the label lies in the language model's input embedding. A language model can then read them in the prompt
like text, and the questions of instruction tuning are grounded from its first step: without this, a small
language model answers from the question alone for hundreds of steps (docs/experiments.md). No pass through
the language model is needed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from radfound.model.processing_radfound import RadFoundProcessor
from training.loop.config import Draw, LoopConfig
from training.loop.optimise import optimise

# The label that each of the first visual tokens stands for.
SLOTS = ("modality", "plane", "region") * 3


def slot_words(processor: RadFoundProcessor, labels: Mapping[str, str]) -> list[int]:
    """Return, for each slot, the first token of its label; -1 where the label is not known."""
    return [processor.text_ids(" " + labels[name])[0] if name in labels else -1 for name in SLOTS]


def words_loss(visual: torch.Tensor, words: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """Return how far the first visual tokens are from the words they stand for.

    Parameters
    ----------
    visual : float tensor, shape (B, T, width)
        With at least as many tokens as there are slots.
    words : int64 tensor, shape (B, slots)
        Token ids as `slot_words` returns them.
    embedding : float tensor, shape (vocabulary, width)
        The language model's input embedding.

    Returns
    -------
    scalar tensor
        Mean squared distance in units of the embedding's standard deviation.
    """
    scale = embedding.std()
    tokens = visual / scale
    slots, rest = tokens[:, : len(SLOTS)], tokens[:, len(SLOTS) :]
    error = (slots - embedding[words.clamp(min=0)] / scale).square().mean(-1)
    known = words >= 0
    # What is no slot stays about as large as a word, and is free to mean anything.
    size = (rest.square().mean(-1) - 1.0).square().mean()
    return (error * known).sum() / known.sum().clamp(min=1) + 0.01 * size


class GroundObjective(nn.Module):
    """The projector alone learns the words, from the resampler's tokens.

    Parameters
    ----------
    projector : module
    resampled : float tensor, shape (M, T, vision width)
    words : int64 tensor, shape (M, slots)
    embedding : float tensor, shape (vocabulary, width)
    """

    def __init__(
        self,
        projector: nn.Module,
        resampled: torch.Tensor,
        words: torch.Tensor,
        embedding: torch.Tensor,
    ):
        super().__init__()
        self.projector = projector
        self.resampled, self.words, self.embedding = resampled, words, embedding

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a step's studies."""
        index = draw.indices(len(self.resampled))
        visual = self.projector(self.resampled[index])
        return words_loss(visual, self.words[index], self.embedding), {}


def ground(
    projector: nn.Module,
    resampled: torch.Tensor,
    words: torch.Tensor,
    embedding: torch.Tensor,
    *,
    steps: int = 600,
    seed: int = 0,
) -> dict[str, float]:
    """Train the projector for some seconds; return what `right_words` says of it.

    Takes what `GroundObjective` takes.
    """
    projector.requires_grad_(True)
    optimise(
        GroundObjective(projector, resampled, words, embedding),
        {1.0: list(projector.parameters())},
        LoopConfig(
            steps,
            1e-3,
            batch_size=64,
            warmup_steps=20,
            log_every=200,
            clip_norm=10.0,
            seed=seed,
            precision="fp32",
        ),
    )
    with torch.no_grad():
        return right_words(projector(resampled), words, embedding)


@torch.no_grad()
def right_words(
    visual: torch.Tensor, words: torch.Tensor, embedding: torch.Tensor
) -> dict[str, float]:
    """Return, for each label that any study has, the share whose nearest word is the right one."""
    shares = {}
    for slot, name in enumerate(dict.fromkeys(SLOTS)):
        known = words[:, slot] >= 0
        if not known.any():
            continue
        choices = words[known, slot].unique()
        near = F.normalize(embedding[choices], dim=-1)
        chosen = choices[(F.normalize(visual[known, slot], dim=-1) @ near.T).argmax(-1)]
        shares[name] = (chosen == words[known, slot]).float().mean().item()
    return shares
