"""Trains the adapter until every correction is reproduced, with replay so that other answers stay."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, Strict
from torch import nn

from radfound.engine.local.model import LocalModel
from radfound.exceptions import TrainingError
from radfound.validation import Count, NotNegative, Positive
from training.corrections.frozen.scoring import autocast, score_answers
from training.corrections.frozen.upper_layers import AnswerLogits, CachedAnswer, UpperLayers
from training.loop.config import LoopConfig, Progress, learning_rate_factor

logger = logging.getLogger(__name__)

_BETA = 0.1  # of direct preference optimisation, as its authors have it
_WARMUP_STEPS, _CLIP_NORM = 5, 1.0
_REPORT_EVERY, _SMOOTHING = 5, 0.95
_REPEATED = 0.5  # reproduced corrections for each one that is not, so that they are not forgotten


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters.

    Parameters
    ----------
    layers : int
        How many of the language model's upper layers learn.
    learning_rate : float
    max_steps : int
        The run ends sooner where every correction is reproduced.
    answers_per_step : int
        Half of them corrections, half replay.
    confident : float
        A correction counts as reproduced when each of its tokens is the most likely one and has at least
        this probability.
    kl_weight : float
        Weight of the Kullback-Leibler divergence from the base model on replayed answers (Learning without
        Forgetting, arXiv 1606.09282).
    seed : int
    preference : float
        Weight of direct preference optimisation (arXiv 2305.18290): the reader's text is chosen, the model's
        text that it replaced is rejected, the base model is the reference; 0 for none.
    """

    layers: Count = 8
    learning_rate: Positive = 1.5e-3
    max_steps: Count = 200
    answers_per_step: Count = 24
    confident: Positive = 0.7
    kl_weight: Positive = 2.0
    seed: Annotated[int, Strict(), Field(ge=0)] = 0
    preference: NotNegative = 0.0


class _Objective:
    """Objective: corrections that are not reproduced yet, beside replay of the base model's answers.

    The corrections come in rounds: those that are not reproduced yet, and some of the others.
    """

    def __init__(
        self,
        upper: UpperLayers,
        corrected: Sequence[CachedAnswer],
        replay: Sequence[CachedAnswer],
        recipe: Recipe,
        rejected: Sequence[CachedAnswer | None] = (),
    ):
        self._upper, self._corrected, self._replay = upper, corrected, replay
        self._recipe, self._random = recipe, random.Random(recipe.seed)
        self._pairs = _pairs(upper, corrected, rejected) if recipe.preference else {}
        self._half = max(1, recipe.answers_per_step // 2)
        self._round: list[CachedAnswer] = []
        self._replay_queue: list[CachedAnswer] = []
        self._missed: list[CachedAnswer] = []

    def next_loss(self) -> torch.Tensor | None:
        """Return the loss of the next step; None if every correction is reproduced."""
        corrected, replay = self._next_batch()
        if not corrected:
            return None
        pairs = [(each, self._pairs[each]) for each in corrected if each in self._pairs]
        answers = [*corrected, *replay, *(pair.rejected for _, pair in pairs)]
        output = self._upper.forward(answers)
        count = sum(output.lengths[: len(corrected)])
        end = count + sum(output.lengths[len(corrected) : len(corrected) + len(replay)])
        # Every answer counts with the square root of its length.
        weights = torch.cat([torch.full((n,), n**-0.5) for n in output.lengths])
        weights = weights.to(output.logits.device)
        losses = F.cross_entropy(output.logits[:count], output.targets[:count], reduction="none")
        parts = {"corrections": _weighted(losses, weights[:count])}
        if replay:
            with torch.no_grad():
                teacher = self._upper.head(torch.cat([each.teacher_hidden for each in replay]))
            divergence = F.kl_div(
                output.logits[count:end].log_softmax(-1),
                teacher.float().log_softmax(-1),
                reduction="none",
                log_target=True,
            ).sum(-1)
            parts["kl"] = _weighted(divergence, weights[count:end])
        if pairs:
            policy = dict(zip(answers, _log_probabilities(output), strict=True))
            margins = [policy[each] - policy[pair.rejected] - pair.margin for each, pair in pairs]
            parts["preference"] = -F.logsigmoid(_BETA * torch.stack(margins)).mean()
        total = parts["corrections"] + self._recipe.kl_weight * parts.get("kl", 0.0)
        return total + self._recipe.preference * parts.get("preference", 0.0)

    def _next_batch(self) -> tuple[list[CachedAnswer], list[CachedAnswer]]:
        """Return the corrections and the replay of the next step; no corrections if none is left."""
        if not self._round:
            self._round = self._new_round()
        if len(self._replay_queue) < self._half:
            self._replay_queue += self._random.sample(self._replay, len(self._replay))
        corrected, self._round = self._round[: self._half], self._round[self._half :]
        replay, self._replay_queue = (
            self._replay_queue[: self._half],
            self._replay_queue[self._half :],
        )
        return corrected, replay

    def _new_round(self) -> list[CachedAnswer]:
        """Return the corrections of the next round; none if all are reproduced."""
        self._missed = self._not_reproduced(self._missed) or self._not_reproduced(self._corrected)
        if not self._missed:
            return []
        others = self._random.sample(
            self._corrected, min(len(self._corrected), round(_REPEATED * len(self._missed)))
        )
        chosen = [*self._missed, *(each for each in others if each not in self._missed)]
        self._random.shuffle(chosen)
        return chosen

    def _not_reproduced(self, cached: Sequence[CachedAnswer]) -> list[CachedAnswer]:
        scores = score_answers(self._upper, cached)
        return [
            each
            for each, correct, least in zip(
                cached, scores.correct, scores.least_probability, strict=True
            )
            if not correct or least < self._recipe.confident
        ]


@dataclass(frozen=True, eq=False)
class _Pair:
    """The rejected text of a correction, and how much likelier the chosen one is to the base model, in nats."""

    rejected: CachedAnswer
    margin: float


@torch.no_grad()
def _pairs(
    upper: UpperLayers, corrected: Sequence[CachedAnswer], rejected: Sequence[CachedAnswer | None]
) -> dict[CachedAnswer, _Pair]:
    def reference(answer: CachedAnswer) -> torch.Tensor:
        targets = torch.tensor(answer.branch.answer, device=answer.teacher_hidden.device)
        logits = upper.head(answer.teacher_hidden).float()
        return _log_probabilities(AnswerLogits(logits, targets, [len(targets)]))[0]

    return {
        chosen: _Pair(other, float(reference(chosen) - reference(other)))
        for chosen, other in zip(corrected, rejected or [None] * len(corrected), strict=True)
        if other is not None
    }


def _log_probabilities(output: AnswerLogits) -> list[torch.Tensor]:
    """Return the log-probability of each whole answer."""
    chosen = -F.cross_entropy(output.logits, output.targets, reduction="none")
    return [answer.sum() for answer in chosen.split(output.lengths)]


def _weighted(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (values * weights).sum() / weights.sum()


def train_adapter(
    base: LocalModel,
    upper: UpperLayers,
    corrected: Sequence[CachedAnswer],
    replay: Sequence[CachedAnswer],
    recipe: Recipe,
    report: Callable[[Progress], None],
    rejected: Sequence[CachedAnswer | None] = (),
) -> None:
    """Train the adapter that is loaded; ends early where every correction is reproduced.

    Parameters
    ----------
    base : LocalModel
        With a trainable adapter.
    upper : UpperLayers
    corrected, replay : sequence of CachedAnswer
    recipe : Recipe
    report : callable
        Called every few steps, with the smoothed loss.
    rejected : sequence of CachedAnswer or None
        For each correction the text that the reader replaced; needed for `recipe.preference` only.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    parameters = [p for p in base.model.language_model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=0.0, fused=True)
    schedule = LoopConfig(recipe.max_steps, recipe.learning_rate, warmup_steps=_WARMUP_STEPS)
    objective = _Objective(upper, corrected, replay, recipe, rejected)
    began, smooth = time.monotonic(), math.nan
    for step in range(1, recipe.max_steps + 1):
        with autocast(base.model):
            loss = objective.next_loss()
        if loss is None:
            logger.info("every correction is reproduced after %d steps", step - 1)
            return
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_factor(step - 1, schedule)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, _CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {step}, expected a finite number; lower the learning rate"
            )
        smooth = value if step == 1 else _SMOOTHING * smooth + (1 - _SMOOTHING) * value
        if step % _REPORT_EVERY == 0 or step == recipe.max_steps:
            left_s = (time.monotonic() - began) / step * (recipe.max_steps - step)
            report(Progress(step, recipe.max_steps, smooth, left_s))
