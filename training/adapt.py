"""How the adapter learns its lessons: packed batches, until every correction is reproduced."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from radfound.study_model import LocalModel
from training.lessons import Lesson
from training.loop import Draw, LoopConfig, Progress, optimise
from training.packing import Packed, pack, packed_logits, packed_loss

logger = logging.getLogger(__name__)

_BATCH = 8  # studies judged at once


@dataclass(frozen=True)
class Recipe:
    """How to learn.

    Parameters
    ----------
    learning_rate : float
    max_steps : int
        The run ends sooner where every correction is reproduced.
    studies_per_step : int
        Half of them corrected, half rehearsed.
    confident : float
        A correction counts as learnt when each of its tokens is the likeliest and at least this likely.
    seed : int
    """

    learning_rate: float = 1e-3
    max_steps: int = 60
    studies_per_step: int = 8
    confident: float = 0.7
    seed: int = 0


class _Learnt(Exception):
    """Raised to end the optimiser loop early."""


class _Lessons(nn.Module):
    """Objective: in every step some corrected and some rehearsed lessons, in turn."""

    def __init__(
        self, base: LocalModel, corrected: list[Lesson], rehearsed: list[Lesson], half: int
    ):
        super().__init__()
        self.model = base.model
        self._base, self._corrected, self._rehearsed, self._half = base, corrected, rehearsed, half

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a step's lessons."""
        some = []
        for lessons in (self._corrected, self._rehearsed):
            count = min(self._half, len(lessons))
            some += [lessons[(draw.step * self._half + n) % len(lessons)] for n in range(count)]
        return packed_loss(self.model, *_packed(self._base, some)), {}


def learn(
    base: LocalModel,
    corrected: list[Lesson],
    rehearsed: list[Lesson],
    recipe: Recipe,
    report: Callable[[Progress], None],
) -> None:
    """Train the adapter; the run ends early where every correction is reproduced."""

    def watch(state: Progress) -> None:
        report(state)
        if share_reproduced(base, corrected, recipe.confident) == 1.0:
            raise _Learnt

    adapter = [p for p in base.model.language_model.parameters() if p.requires_grad]
    loop = LoopConfig(
        recipe.max_steps,
        recipe.learning_rate,
        batch_size=recipe.studies_per_step,
        warmup_steps=5,
        weight_decay=0.0,
        log_every=5,
        seed=recipe.seed,
    )
    try:
        half = max(1, recipe.studies_per_step // 2)
        optimise(_Lessons(base, corrected, rehearsed, half), {1.0: adapter}, loop, progress=watch)
    except _Learnt:
        logger.info("every correction is reproduced")


def _packed(base: LocalModel, lessons: Sequence[Lesson]) -> tuple[Packed, torch.Tensor]:
    """Return lessons as one batch, and their visual tokens."""
    prefix = base.processor.prompt_ids("caption", None)[0]
    pad = base.processor.tokenizer.pad_token_id
    packed = pack(prefix, [lesson.branches for lesson in lessons], pad)
    return packed, torch.cat([lesson.visual for lesson in lessons])


@torch.no_grad()
def share_reproduced(base: LocalModel, lessons: Sequence[Lesson], confident: float = 0.0) -> float:
    """Return the share of answers of which every token, the stop token too, would be chosen."""
    found: list[bool] = []
    for start in range(0, len(lessons), _BATCH):
        some = lessons[start : start + _BATCH]
        packed, visual = _packed(base, some)
        with torch.autocast(base.model.device.type, torch.bfloat16):
            probabilities = packed_logits(base.model, packed, visual).float().softmax(-1)
        best, chosen = probabilities.max(-1)
        right = (chosen == packed.targets) & (best >= confident)
        lengths = [len(piece.answer) for lesson in some for piece in lesson.branches]
        found += [bool(part.all()) for part in right.split(lengths)]
    return sum(found) / len(found)


@torch.no_grad()
def logit_change(base: LocalModel, lessons: Sequence[Lesson]) -> float:
    """Return how far the adapter moves the logits of the corrections at most."""
    packed, visual = _packed(base, lessons[:_BATCH])
    with_adapter = packed_logits(base.model, packed, visual)
    with base.model.language_model.disable_adapter():
        without = packed_logits(base.model, packed, visual)
    return float((with_adapter.float() - without.float()).abs().max())
