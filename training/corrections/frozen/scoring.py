"""Scores of given answers, by teacher forcing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from radfound.engine.local.model import LocalModel
from training.corrections.frozen.upper_layers import CachedAnswer, UpperLayers

_BATCH = 32  # answers scored in one forward pass


def autocast(like: Any) -> torch.autocast:
    """Return the context that computes in the precision of a model or tensor, although LoRA is in float32."""
    is_lower = like.dtype == torch.bfloat16
    return torch.autocast(like.device.type, torch.bfloat16, enabled=is_lower)


@dataclass(frozen=True, eq=False)
class AnswerScores:
    """Scores of given answers, in their order.

    Parameters
    ----------
    correct : list of bool
        Whether every token, the stop token too, is the most likely one: then greedy decoding gives this answer.
    log_probability : list of float
        Mean over the answer's tokens.
    least_probability : list of float
        The probability of its least likely token.
    """

    correct: list[bool]
    log_probability: list[float]
    least_probability: list[float]


@torch.no_grad()
def score_answers(upper: UpperLayers, cached: Sequence[CachedAnswer]) -> AnswerScores:
    """Score given answers by teacher forcing, with the adapter that is loaded."""
    scores = AnswerScores([], [], [])
    for start in range(0, len(cached), _BATCH):
        some = cached[start : start + _BATCH]
        with autocast(some[0].hidden):
            output = upper.forward(some)
        log_probabilities = output.logits.log_softmax(-1)
        best = (log_probabilities.argmax(-1) == output.targets).split(output.lengths)
        chosen = log_probabilities.gather(-1, output.targets[:, None])[:, 0]
        for correct, tokens in zip(best, chosen.split(output.lengths), strict=True):
            scores.correct.append(bool(correct.all()))
            scores.log_probability.append(float(tokens.mean()))
            scores.least_probability.append(float(tokens.min().exp()))
    return scores


@torch.no_grad()
def logit_change(base: LocalModel, upper: UpperLayers, cached: Sequence[CachedAnswer]) -> float:
    """Return the largest change that the adapter makes to a logit of the first answers."""
    with_adapter = upper.forward(cached[:_BATCH]).logits
    with base.without_adapter():
        without = upper.forward(cached[:_BATCH]).logits
    return float((with_adapter - without).abs().max())
