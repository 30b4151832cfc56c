"""Grounding: the first visual tokens become words that the language model already knows.

Modality, plane and region each have a few visual tokens of their own, which learn to lie where the word of
the label lies in the language model's input embedding. A language model can then read them in the prompt
like text, and the questions of the next stage are grounded from its first step: without this, a small
language model answers from the question alone for hundreds of steps (docs/experiments.md). Only the
projector learns, and no pass through the language model is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from radfound.modeling_radfound import RadFoundForConditionalGeneration
from radfound.processing_radfound import RadFoundProcessor
from training.loop import Draw, LoopConfig, optimise

# The label that each of the first visual tokens stands for.
SLOTS = ("modality", "plane", "region") * 3


def slot_words(processor: RadFoundProcessor, labels: Mapping[str, str]) -> list[int]:
    """Return, for each slot, the first token of its label; -1 where the label is not known."""
    return [processor.text_ids(" " + labels[name])[0] if name in labels else -1 for name in SLOTS]


@torch.no_grad()
def resampled_frames(
    model: RadFoundForConditionalGeneration, stem_features: torch.Tensor, batch_size: int = 64
) -> torch.Tensor:
    """Return the resampler's tokens for single frames: (M, C, H, W) to (M, num_visual_tokens, width)."""
    parts = []
    for chunk in stem_features.split(batch_size):
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.vision_model(stem_features=chunk[:, None]).last_hidden_state
            mask = torch.ones(hidden.shape[:2], dtype=torch.bool)
            parts.append(model.connector.resample(hidden, mask).float())
    return torch.cat(parts)


class Grounding(nn.Module):
    """Objective: slots lie where the words of the labels lie in the embedding.

    Parameters
    ----------
    projector : module
    resampled : tensor, shape (M, num_visual_tokens, vision width)
    words : int64 tensor, shape (M, slots)
        Token of each slot; -1 where the label is not known.
    embedding : tensor, shape (vocabulary, text width)
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
        self.scale = embedding.std()

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a draw's frames."""
        index = draw.indices(len(self.resampled))
        tokens = self.projector(self.resampled[index]) / self.scale
        wanted = self.words[index]
        slots, rest = tokens[:, : len(SLOTS)], tokens[:, len(SLOTS) :]
        error = (slots - self.embedding[wanted.clamp(min=0)] / self.scale).square().mean(-1)
        # What is no slot stays about as large as a word, and is free to mean anything.
        size = (rest.square().mean(-1) - 1.0).square().mean()
        return error[wanted >= 0].mean() + 0.01 * size, {}


def ground(
    model: RadFoundForConditionalGeneration,
    processor: RadFoundProcessor,
    stem_features: torch.Tensor,
    labels: Sequence[Mapping[str, str]],
    *,
    steps: int = 600,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> dict[str, float]:
    """Train the projector so that the first visual tokens are the words of the labels.

    Parameters
    ----------
    model : RadFoundForConditionalGeneration
    processor : RadFoundProcessor
    stem_features : tensor, shape (M, C, H, W)
        Of single frames.
    labels : sequence of M mappings
        Any of "modality", "plane", "region" in words.

    Returns
    -------
    dict
        For each label, the share of frames of which the nearest word is the right one.
    """
    resampled = resampled_frames(model, stem_features)
    embedding = model.get_input_embeddings().weight.detach().float()
    words = torch.tensor([slot_words(processor, some) for some in labels])
    projector = model.connector.projector.requires_grad_(True)
    config = LoopConfig(
        steps,
        learning_rate,
        batch_size,
        warmup_steps=20,
        log_every=200,
        clip_norm=10.0,
        seed=seed,
        precision="fp32",
    )
    optimise(
        Grounding(projector, resampled, words, embedding), {1.0: projector.parameters()}, config
    )
    return _right_words(projector(resampled), words, embedding)


@torch.no_grad()
def _right_words(
    tokens: torch.Tensor, words: torch.Tensor, embedding: torch.Tensor
) -> dict[str, float]:
    shares = {}
    for slot, name in enumerate(dict.fromkeys(SLOTS)):
        known = words[:, slot] >= 0
        choices = words[known, slot].unique()
        near = F.normalize(embedding[choices], dim=-1)
        chosen = choices[(F.normalize(tokens[known, slot], dim=-1) @ near.T).argmax(-1)]
        shares[name] = round((chosen == words[known, slot]).float().mean().item(), 3)
    return shares
