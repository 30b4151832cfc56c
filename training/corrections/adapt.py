"""How the adapter learns its lessons: until every correction is reproduced, and nothing else has moved."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from radfound.engine.local.backend import LocalModel
from training.corrections.upper import Reading, Run, UpperLayers
from training.loop.optimise import Draw, LoopConfig, Progress, optimise

logger = logging.getLogger(__name__)

_BATCH = 32  # answers judged at once
_BETA = 0.1  # of direct preference optimisation, as its authors have it
_REPEATED = 0.5  # so many known corrections come round with each unknown one, lest they are lost


@dataclass(frozen=True)
class Recipe:
    """How to learn.

    Parameters
    ----------
    layers : int
        So many of the language model's upper layers learn.
    learning_rate : float
    max_steps : int
        The run ends sooner where every correction is reproduced.
    answers_per_step : int
        Half of them corrected, half rehearsed.
    confident : float
        A correction counts as learnt when each of its tokens is the likeliest and at least this likely.
    rehearsal : float
        What it costs to say other things than the base model where nobody corrected it: weight of the
        Kullback-Leibler divergence from the base model (Learning without Forgetting, arXiv 1606.09282).
    seed : int
    preference : float
        What it costs not to prefer the reader's text to the model's that it replaced: weight of direct
        preference optimisation (arXiv 2305.18290) beside the base model; 0 for none.
    """

    layers: int = 8
    learning_rate: float = 1.5e-3
    max_steps: int = 200
    answers_per_step: int = 24
    confident: float = 0.7
    rehearsal: float = 2.0
    seed: int = 0
    preference: float = 0.0


class _Learnt(Exception):
    """Raised to end the optimiser loop early."""


class _Course(nn.Module):
    """Objective: what is not yet known, beside what is to stay as it is.

    The corrections come round after round: those that are not reproduced yet, and some of the others.
    """

    def __init__(
        self,
        base: LocalModel,
        upper: UpperLayers,
        corrected: Sequence[Reading],
        rehearsed: Sequence[Reading],
        recipe: Recipe,
        refused: Sequence[Reading | None] = (),
    ):
        super().__init__()
        self.model = base.model
        self._upper, self._corrected, self._rehearsed = upper, corrected, rehearsed
        self._recipe, self._chance = recipe, random.Random(recipe.seed)
        self._pairs = _pairs(upper, corrected, refused) if recipe.preference else {}
        self._half = max(1, recipe.answers_per_step // 2)
        self._round: list[Reading] = []
        self._rehearsals: list[Reading] = []
        self._unknown: list[Reading] = []

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a step's answers, and its parts."""
        learnt, rehearsed = self._next()
        pairs = [(each, self._pairs[each]) for each in learnt if each in self._pairs]
        answers = [*learnt, *rehearsed, *(pair.refused for _, pair in pairs)]
        run = self._upper.run(answers)
        count = sum(run.lengths[: len(learnt)])
        end = count + sum(run.lengths[len(learnt) : len(learnt) + len(rehearsed)])
        # Every answer counts with the square root of its length.
        weights = torch.cat([torch.full((n,), n**-0.5) for n in run.lengths]).to(run.logits.device)
        losses = F.cross_entropy(run.logits[:count], run.targets[:count], reduction="none")
        parts = {"corrections": _weighted(losses, weights[:count])}
        if rehearsed:
            with torch.no_grad():
                said = self._upper.head(torch.cat([reading.said for reading in rehearsed]))
            drift = F.kl_div(
                run.logits[count:end].log_softmax(-1),
                said.float().log_softmax(-1),
                reduction="none",
                log_target=True,
            ).sum(-1)
            parts["drift"] = _weighted(drift, weights[count:end])
        if pairs:
            told = dict(zip(answers, _log_probabilities(run), strict=True))
            margins = [told[each] - told[pair.refused] - pair.margin for each, pair in pairs]
            parts["preference"] = -F.logsigmoid(_BETA * torch.stack(margins)).mean()
        total = parts["corrections"] + self._recipe.rehearsal * parts.get("drift", 0.0)
        total = total + self._recipe.preference * parts.get("preference", 0.0)
        return total, {name: part.item() for name, part in parts.items()}

    def _next(self) -> tuple[list[Reading], list[Reading]]:
        """Return what is learnt and what is rehearsed in the next step."""
        if not self._round:
            self._round = self._new_round()
        if len(self._rehearsals) < self._half:
            self._rehearsals += self._chance.sample(self._rehearsed, len(self._rehearsed))
        learnt, self._round = self._round[: self._half], self._round[self._half :]
        rehearsed, self._rehearsals = (
            self._rehearsals[: self._half],
            self._rehearsals[self._half :],
        )
        return learnt, rehearsed

    def _new_round(self) -> list[Reading]:
        """Return what comes next; raise _Learnt when every correction is known."""
        self._unknown = self._not_known(self._unknown) or self._not_known(self._corrected)
        if not self._unknown:
            raise _Learnt
        others = self._chance.sample(
            self._corrected, min(len(self._corrected), round(_REPEATED * len(self._unknown)))
        )
        chosen = [*self._unknown, *(each for each in others if each not in self._unknown)]
        self._chance.shuffle(chosen)
        return chosen

    def _not_known(self, readings: Sequence[Reading]) -> list[Reading]:
        marks = mark(self._upper, readings)
        return [
            reading
            for reading, right, least in zip(readings, marks.right, marks.least, strict=True)
            if not right or least < self._recipe.confident
        ]


@dataclass(frozen=True, eq=False)
class _Pair:
    """What a reader's text replaced, and how much likelier her text is to the base model, in nats."""

    refused: Reading
    margin: float


@torch.no_grad()
def _pairs(
    upper: UpperLayers, corrected: Sequence[Reading], refused: Sequence[Reading | None]
) -> dict[Reading, _Pair]:
    def base_model(reading: Reading) -> torch.Tensor:
        targets = torch.tensor(reading.branch.answer, device=reading.said.device)
        logits = upper.head(reading.said).float()
        return _log_probabilities(Run(logits, targets, [len(targets)]))[0]

    return {
        chosen: _Pair(other, float(base_model(chosen) - base_model(other)))
        for chosen, other in zip(corrected, refused or [None] * len(corrected), strict=True)
        if other is not None
    }


def _log_probabilities(run: Run) -> list[torch.Tensor]:
    """Return the log-probability of each whole answer."""
    told = -F.cross_entropy(run.logits, run.targets, reduction="none")
    return [answer.sum() for answer in told.split(run.lengths)]


def _weighted(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (values * weights).sum() / weights.sum()


def learn(
    base: LocalModel,
    upper: UpperLayers,
    corrected: Sequence[Reading],
    rehearsed: Sequence[Reading],
    recipe: Recipe,
    report: Callable[[Progress], None],
    refused: Sequence[Reading | None] = (),
) -> None:
    """Train the adapter; the run ends early where every correction is reproduced.

    `refused` has, for each correction, what the reader replaced; it is needed for a preference alone.
    """
    adapter = [p for p in base.model.language_model.parameters() if p.requires_grad]
    loop = LoopConfig(
        recipe.max_steps,
        recipe.learning_rate,
        batch_size=recipe.answers_per_step,
        warmup_steps=5,
        weight_decay=0.0,
        log_every=5,
        seed=recipe.seed,
    )
    try:
        course = _Course(base, upper, corrected, rehearsed, recipe, refused)
        optimise(course, {1.0: adapter}, loop, progress=report)
    except _Learnt:
        logger.info("every correction is reproduced")


@dataclass(frozen=True, eq=False)
class Marks:
    """How a model does on given answers, in their order.

    Parameters
    ----------
    right : list of bool
        Whether every token, the stop token too, would be chosen: then the model writes this answer.
    log_probability : list of float
        Mean over the answer's tokens.
    least : list of float
        The probability of its least likely token.
    """

    right: list[bool]
    log_probability: list[float]
    least: list[float]


@torch.no_grad()
def mark(upper: UpperLayers, readings: Sequence[Reading]) -> Marks:
    """Judge given answers, with the adapter that is on."""
    marks = Marks([], [], [])
    for start in range(0, len(readings), _BATCH):
        some = readings[start : start + _BATCH]
        with torch.autocast(some[0].hidden.device.type, torch.bfloat16):
            run = upper.run(some)
        told = run.logits.log_softmax(-1)
        best = told.argmax(-1) == run.targets
        told = told.gather(-1, run.targets[:, None])[:, 0]
        for right, chosen in zip(best.split(run.lengths), told.split(run.lengths), strict=True):
            marks.right.append(bool(right.all()))
            marks.log_probability.append(float(chosen.mean()))
            marks.least.append(float(chosen.min().exp()))
    return marks


@torch.no_grad()
def logit_change(base: LocalModel, upper: UpperLayers, readings: Sequence[Reading]) -> float:
    """Return how far the adapter moves the logits of the first answers at most."""
    with_adapter = upper.run(readings[:_BATCH]).logits
    with base.without_adapter():
        without = upper.run(readings[:_BATCH]).logits
    return float((with_adapter - without).abs().max())
