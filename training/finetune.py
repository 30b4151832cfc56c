"""Readers' corrections become a LoRA adapter.

The encoder is frozen, so each study is encoded once. Beside the corrections, the model rehearses what it
already says: about the corrected studies (standard questions) and about the studies bundled with the
checkpoint, each with the base model's own answer as the target, so that learning one answer does not
change the others. An adapter that fails its checks is not published.
"""

from __future__ import annotations

import logging
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import get_peft_model
from torch import nn

from radfound.adapters import AdapterStore
from radfound.benchmark.medpix import METADATA_QUESTIONS
from radfound.checkpoints import replay
from radfound.correction import Correction
from radfound.corrections import CorrectionLog
from radfound.exceptions import RadFoundError, TrainingError
from radfound.region import region_key
from radfound.study import Study
from radfound.study_model import LocalModel, Prompt
from training.instruct import lora_config
from training.loop import Draw, LoopConfig, Progress, optimise
from training.packing import Branch, Packed, branch, pack, packed_logits, packed_loss

logger = logging.getLogger(__name__)

_BATCH = 8  # studies judged at once
_REHEARSED = tuple(wordings[0] for wordings in METADATA_QUESTIONS.values())


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of a fine-tuning run.

    Parameters
    ----------
    rank : int
        Of the adapter.
    learning_rate : float
    max_steps : int
        The run ends sooner where every correction is reproduced.
    studies_per_step : int
        Half of them corrected, half rehearsed.
    rehearsed_studies : int
        At most so many bundled studies are rehearsed.
    confident : float
        A correction counts as learnt when each of its tokens is the likeliest and at least this likely.
    least_reproduced, least_kept : float
        The gate: share of corrections reproduced, share of rehearsed answers that stayed.
    seed : int
    """

    rank: int = 8
    learning_rate: float = 1e-3
    max_steps: int = 60
    studies_per_step: int = 8
    rehearsed_studies: int = 48
    confident: float = 0.7
    least_reproduced: float = 0.8
    least_kept: float = 0.8
    seed: int = 0


@dataclass(frozen=True)
class FinetuneResult:
    """How a run ended.

    Parameters
    ----------
    adapter : str or None
        Id of the published adapter.
    published : bool
    reason : str
        In words; names the failing check where nothing was published.
    metrics : dict of str to float
    """

    adapter: str | None
    published: bool
    reason: str
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Lesson:
    """The visual tokens, shape (1, T, width), of a study or a region of it, and what to say about it."""

    visual: torch.Tensor
    branches: list[Branch]
    corrections: tuple[str, ...] = ()  # ids of those it teaches


class _Learnt(Exception):
    """Raised to end the optimiser loop early."""


def finetune(
    log: CorrectionLog,
    store: AdapterStore,
    read: Callable[[str], Study],
    *,
    checkpoint: str | Path = "radfound-mini",
    config: FinetuneConfig | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> FinetuneResult:
    """Train an adapter on the newest corrections and publish it if it passes the gate.

    Parameters
    ----------
    log : CorrectionLog
    store : AdapterStore
    read : callable
        From an image's id to its study; what raises RadFoundError is left out with a warning.
    checkpoint : str or Path
        The base model. Each run begins from it, with all corrections, not from the adapter before.
    config : FinetuneConfig, optional
    progress : callable, optional
        Called at every stage and every few steps.

    Returns
    -------
    FinetuneResult

    Raises
    ------
    TrainingError
        If no correction says what the answer should be, or no corrected study can be read.
    """
    config = config or FinetuneConfig()
    report = progress or (lambda _: None)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        snapshot = log.snapshot(Path(folder) / "corrections.sqlite")
        wanted = [
            c for c in CorrectionLog(Path(folder) / "corrections.sqlite").latest() if c.text.strip()
        ]
    if not wanted:
        raise TrainingError(
            "corrections: none says what the answer should be; edit or accept an answer first"
        )
    report(
        Progress(
            0,
            config.max_steps,
            float("nan"),
            float("nan"),
            f"reading the studies of {len(wanted)} corrections",
        )
    )
    base = LocalModel.load(checkpoint)
    corrected, kept = _lessons(base, wanted, read)
    rehearsed = kept + _bundled_lessons(base, config)
    base.model.requires_grad_(False)
    base.model.language_model = get_peft_model(
        base.model.language_model, lora_config(base.model, config.rank)
    )
    _learn(base, corrected, rehearsed, config, report)
    metrics = {
        "corrections": float(sum(len(lesson.branches) for lesson in corrected)),
        "reproduced": _share_reproduced(base, corrected),
        "kept": _share_reproduced(base, rehearsed) if rehearsed else 1.0,
        "logit_change": _logit_change(base, corrected),
        "seconds": time.monotonic() - began,
    }
    reason = _refusal(metrics, config)
    if reason:
        return FinetuneResult(None, False, reason, metrics)
    learnt = [each for lesson in corrected for each in lesson.corrections]
    adapter = _publish(base, store, snapshot, learnt, metrics)
    return FinetuneResult(adapter, True, f"published {adapter}", metrics)


def _publish(
    base: LocalModel,
    store: AdapterStore,
    snapshot: str,
    learnt: list[str],
    metrics: dict[str, float],
) -> str:
    """Hand the trained adapter to the store and return its id."""
    manifest = {
        "base": base.name,
        "base_revision": base.revision,
        "parent": store.active(),
        "snapshot": snapshot,
        "corrections": learnt,
        "metrics": metrics,
    }
    with tempfile.TemporaryDirectory() as folder:
        base.model.language_model.save_pretrained(folder, save_embedding_layers=False)
        return store.publish(folder, manifest)


def _lessons(
    base: LocalModel, corrections: Sequence[Correction], read: Callable[[str], Study]
) -> tuple[list[Lesson], list[Lesson]]:
    """Return the corrections by study and region, and what the base model says to other questions there."""
    by_view: dict[tuple[tuple[str, ...], str | None], list[Correction]] = {}
    for correction in corrections:
        view = (correction.images, region_key(correction.region))
        by_view.setdefault(view, []).append(correction)
    corrected, kept = [], []
    for (images, _), some in by_view.items():
        try:
            parts = [read(image) for image in images]
            study = Study(tuple(image for part in parts for image in part.images))
            visual = base.encode(study, some[0].region)
        except RadFoundError as error:
            logger.warning("a corrected study is left out: %s", error)
            continue
        lesson = [branch(base.processor, c.task, c.question, c.text) for c in some]
        corrected.append(Lesson(visual, lesson, tuple(c.id for c in some)))
        asked = {c.question for c in some}
        prompts = [Prompt("vqa", question) for question in _REHEARSED if question not in asked]
        if all(c.task != "caption" for c in some):
            prompts.append(Prompt("caption"))
        kept.append(_said(base, visual, prompts))
    if not corrected:
        raise TrainingError(
            "corrections: none of their studies can be read; see the warnings above"
        )
    return corrected, [lesson for lesson in kept if lesson.branches]


def _bundled_lessons(base: LocalModel, config: FinetuneConfig) -> list[Lesson]:
    """Return the checkpoint's bundled studies with the answers that the base model gave when it shipped."""
    bundled = replay(base.name)
    chosen = random.Random(config.seed).sample(bundled, min(config.rehearsed_studies, len(bundled)))
    return [
        Lesson(
            item.visual.to(base.model.device)[None],
            [branch(base.processor, "vqa", question, answer) for question, answer in item.said],
        )
        for item in chosen
    ]


def _said(base: LocalModel, visual: torch.Tensor, prompts: Sequence[Prompt]) -> Lesson:
    """Return a lesson of the base model's own complete answers."""
    branches = []
    for prompt in prompts:
        tokens = list(base.stream(visual, prompt, 64))
        text = "".join(token.text for token in tokens).strip()
        if tokens[-1].last and text:
            branches.append(branch(base.processor, prompt.task, prompt.question, text))
    return Lesson(visual, branches)


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


def _learn(
    base: LocalModel,
    corrected: list[Lesson],
    rehearsed: list[Lesson],
    config: FinetuneConfig,
    report: Callable[[Progress], None],
) -> None:
    def watch(state: Progress) -> None:
        report(state)
        if _share_reproduced(base, corrected, config.confident) == 1.0:
            raise _Learnt

    adapter = [p for p in base.model.language_model.parameters() if p.requires_grad]
    loop = LoopConfig(
        config.max_steps,
        config.learning_rate,
        batch_size=config.studies_per_step,
        warmup_steps=5,
        weight_decay=0.0,
        log_every=5,
        seed=config.seed,
    )
    try:
        half = max(1, config.studies_per_step // 2)
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
def _share_reproduced(base: LocalModel, lessons: Sequence[Lesson], confident: float = 0.0) -> float:
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
def _logit_change(base: LocalModel, lessons: Sequence[Lesson]) -> float:
    """Return how far the adapter moves the logits of the corrections at most."""
    packed, visual = _packed(base, lessons[:_BATCH])
    with_adapter = packed_logits(base.model, packed, visual)
    with base.model.language_model.disable_adapter():
        without = packed_logits(base.model, packed, visual)
    return float((with_adapter.float() - without.float()).abs().max())


def _refusal(metrics: dict[str, float], config: FinetuneConfig) -> str:
    """Return why the adapter is not published, or nothing."""
    if not metrics["logit_change"] > 0:
        return "the adapter changes nothing"
    if metrics["reproduced"] < config.least_reproduced:
        return (
            f"only {metrics['reproduced']:.0%} of the corrections are reproduced, expected at least "
            f"{config.least_reproduced:.0%}; look for corrections that contradict each other"
        )
    if metrics["kept"] < config.least_kept:
        return f"only {metrics['kept']:.0%} of the other answers stayed, expected at least {config.least_kept:.0%}"
    return ""
