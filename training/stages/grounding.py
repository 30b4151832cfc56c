"""Grounding: the first visual tokens are trained to match word embeddings of the language model.

Modality, plane and region each have a few visual tokens, which are regressed onto the input embedding of
the label's first token. The language model then takes them like text, so that instruction tuning is
grounded from the first step; without this, a small language model answers from the question alone for
hundreds of steps (docs/experiments.md). No forward pass of the language model is needed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from radfound.model.processing_radfound import RadFoundProcessor
from training.loop.config import Draw, LoopConfig
from training.loop.optimise import optimise

# The label of each of the first visual tokens.
SLOTS = ("modality", "plane", "region") * 3


def slot_words(processor: RadFoundProcessor, labels: Mapping[str, str]) -> list[int]:
    """Return, for each slot, the first token id of its label; -1 if the label is unknown."""
    return [processor.text_ids(" " + labels[name])[0] if name in labels else -1 for name in SLOTS]


def words_loss(visual: torch.Tensor, words: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """Return the distance of the first visual tokens from their word embeddings.

    Parameters
    ----------
    visual : float tensor, shape (B, T, width)
        T is at least the number of slots.
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
    # The other tokens are kept at about the norm of a word embedding, in any direction.
    size = (rest.square().mean(-1) - 1.0).square().mean()
    return (error * known).sum() / known.sum().clamp(min=1) + 0.01 * size


class GroundObjective(nn.Module):
    """Trains the projector alone, from the resampler's tokens to the word embeddings.

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
    """Train the projector alone and return its accuracies by `right_words`.

    Takes some seconds. The arguments are those of `GroundObjective`.
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
    """Return, for each known kind of label, the share of studies whose nearest word is correct."""
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
