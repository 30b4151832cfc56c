"""The frozen base model of fine-tuning runs, with everything about it that is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from radfound.engine.local.backend import Generated, LocalModel
from radfound.engine.local.kv_cache import KVCache, PrefixCache
from radfound.model.checkpoints import REGRESSION, bundled
from radfound.records.adapters import WEIGHTS_FILE, AdapterStore
from radfound.study.study import Study, StudyImage
from training.corrections.lessons import Lesson, bundled_lessons
from training.corrections.trainer import AnswerScores, score_answers
from training.corrections.upper_layers import CachedAnswer, UpperLayers
from training.lora import lora_config
from training.packing import Branch, branch

BASE_MODEL = "the base model"
_PREFILL_BATCH, _GENERATE_BATCH = 16, 32  # studies, answers
_PREFIX_BYTES = 512 * 2**20
_GENERATED = 32  # answers generated to see whether they stop
_GENERATED_TOKENS = 48  # the engine's default limit of an answer


_Tokens = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a model version scores on the regression set.

    Parameters
    ----------
    name : str
        Such as "a-0003", or `BASE_MODEL`.
    with_image, with_blank : AnswerScores
        Scores of the right answers, with their own image and with a blank one.
    stops : list of bool
        For some generated answers, whether they end with the stop token.
    """

    name: str
    with_image: AnswerScores
    with_blank: AnswerScores
    stops: list[bool]


class FrozenBase:
    """A base model in memory, and what does not change from run to run.

    Several runs may share one, one after the other.

    Parameters
    ----------
    checkpoint : str or Path
    layers : int
        How many of the language model's upper layers learn.
    replay_studies : int
        Largest number of bundled studies used for replay.
    """

    def __init__(
        self,
        checkpoint: str | Path = "radfound-mini",
        layers: int = 8,
        replay_studies: int = 96,
    ):
        self.checkpoint = checkpoint
        self.base = LocalModel.load(checkpoint)
        self.base.model.requires_grad_(False)
        self.base.tune()
        # For questions of a dozen tokens plain products are quicker than a fused kernel's backward pass.
        self.base.model.language_model.set_attn_implementation("eager")
        self.upper = UpperLayers(self.base, layers)
        self._replay_studies = replay_studies
        # By a study's visual tokens, then by question and answer.
        self._cached: dict[torch.Tensor, dict[_Tokens, CachedAnswer]] = {}
        self._prefixes = PrefixCache(_PREFIX_BYTES)
        self._evaluations: dict[str, Evaluation] = {}

    @cached_property
    def replay(self) -> list[Lesson]:
        """Bundled studies with the base model's own answers."""
        return bundled_lessons(self.base, self.checkpoint, self._replay_studies)

    @cached_property
    def regression_set(self) -> list[Lesson]:
        """Bundled studies with the right answers; empty where the checkpoint has none."""
        return [
            Lesson(
                study.visual.to(self.base.model.device)[None],
                [branch(self.base.processor, "vqa", q, a) for q, a in study.pairs],
            )
            for study in bundled(self.checkpoint, REGRESSION)
        ]

    def prefixes(self, visual: Sequence[torch.Tensor]) -> list[KVCache]:
        """Return the prefilled keys and values of studies, from their visual tokens."""
        found = {id(each): self._prefixes.get(each) for each in visual}
        new = {id(each): each for each in visual if found[id(each)] is None}
        names = list(new)
        for start in range(0, len(names), _PREFILL_BATCH):
            some = names[start : start + _PREFILL_BATCH]
            made = self.base.prefill_many([new[name] for name in some])
            for name, prefix in zip(some, made, strict=True):
                found[name] = prefix
                self._prefixes.put(new[name], prefix)
        return [prefix for each in visual if (prefix := found[id(each)]) is not None]

    def generate(
        self, visual: Sequence[torch.Tensor], questions: Sequence[Sequence[int]], limit: int
    ) -> list[Generated]:
        """Generate answers to questions given as token ids, with the adapter that is loaded."""
        generated: list[Generated] = []
        for start in range(0, len(questions), _GENERATE_BATCH):
            some = slice(start, start + _GENERATE_BATCH)
            generated += self.base.write(self.prefixes(visual[some]), questions[some], limit)
        return generated

    def precompute(self, lessons: Sequence[Lesson]) -> list[CachedAnswer]:
        """Return the cached activations of all answers of the lessons, in order; each is computed once."""
        new: dict[torch.Tensor, dict[_Tokens, Branch]] = {}
        for lesson in lessons:
            cached = self._cached.setdefault(lesson.visual, {})
            missing = {_tokens(b): b for b in lesson.branches if _tokens(b) not in cached}
            if missing:
                new.setdefault(lesson.visual, {}).update(missing)
        prefixes = self.prefixes(list(new))
        pairs = zip(prefixes, (list(some.values()) for some in new.values()), strict=True)
        computed = iter(self.upper.precompute(list(pairs)))
        for visual, some in new.items():
            self._cached[visual].update({tokens: next(computed) for tokens in some})
        return [self._cached[e.visual][_tokens(b)] for e in lessons for b in e.branches]

    def precompute_rejected(self, lessons: Sequence[Lesson]) -> list[CachedAnswer | None]:
        """Return the same for the texts that readers replaced; None for each answer without one."""
        some = [Lesson(each.visual, [one for one in each.rejected if one]) for each in lessons]
        computed = iter(self.precompute(some))
        return [next(computed) if each else None for lesson in lessons for each in lesson.rejected]

    def new_adapter(self, rank: int, start_from: Path | None = None, seed: int = 0) -> None:
        """Load a trainable adapter on the upper layers.

        Parameters
        ----------
        rank : int
        start_from : Path, optional
            Folder of an adapter to continue from; one of another shape is not used, a new one is made.
        seed : int
            Of a new adapter's weights.
        """
        self.base.load_adapter(None)
        config = lora_config(rank, self.upper.numbers)
        language_model = self.base.model.language_model
        if start_from is not None and _same_shape(LoraConfig.from_pretrained(start_from), config):
            adapted = PeftModel.from_pretrained(language_model, str(start_from), is_trainable=True)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                adapted = get_peft_model(language_model, config)
        self.base.model.language_model = adapted
        self.base.tune()

    def evaluation_of(self, store: AdapterStore, adapter: str | None) -> Evaluation:
        """Evaluate a published adapter, or the base model, on the regression set; each once."""
        key = _weights_key(store, adapter)
        if key not in self._evaluations:
            with self.loaded(store, adapter):
                self._evaluations[key] = self.evaluate(adapter or BASE_MODEL, self.regression_set)
        return self._evaluations[key]

    def keep_evaluation(self, store: AdapterStore, adapter: str, evaluation: Evaluation) -> None:
        """Keep the evaluation of an adapter that has been published since."""
        self._evaluations[_weights_key(store, adapter)] = replace(evaluation, name=adapter)

    @contextmanager
    def loaded(self, store: AdapterStore, adapter: str | None) -> Iterator[None]:
        """Load a published adapter, or none, for the length of a block."""
        self.base.load_adapter(None if adapter is None else store.path(adapter))
        try:
            yield
        finally:
            self.base.load_adapter(None)

    def evaluate(self, name: str, lessons: Sequence[Lesson]) -> Evaluation:
        """Evaluate the adapter that is loaded on lessons with right answers."""
        self.base.tune()  # the weights may have changed since the last answer
        with_image, with_blank = self.score(lessons), self.score(self._with_blank(lessons))
        return Evaluation(name, with_image, with_blank, self._stops(lessons))

    def score(self, lessons: Sequence[Lesson]) -> AnswerScores:
        """Score the answers of lessons, with the adapter that is loaded."""
        lowest = _lowest_adapted_layer(self.base)
        if lowest is None or lowest >= self.upper.first:
            return score_answers(self.upper, self.precompute(lessons))
        whole = UpperLayers(self.base, self.base.model.config.text_config.num_hidden_layers)
        prefixes = self.prefixes([lesson.visual for lesson in lessons])
        branches = [lesson.branches for lesson in lessons]
        return score_answers(whole, whole.precompute(list(zip(prefixes, branches, strict=True))))

    def _with_blank(self, lessons: Sequence[Lesson]) -> list[Lesson]:
        """Return the same questions and answers about a blank image."""
        return [Lesson(self._blank, [each for lesson in lessons for each in lesson.branches])]

    @cached_property
    def _blank(self) -> torch.Tensor:
        pixels = np.zeros((1, 64, 64), np.uint8)
        return self.base.encode(Study((StudyImage(pixels, np.eye(4)),)))

    def _stops(self, lessons: Sequence[Lesson]) -> list[bool]:
        """Generate some answers, and return for each whether it ends with the stop token."""
        some = [(lesson.visual, each.question) for lesson in lessons for each in lesson.branches]
        some = some[:: max(1, len(some) // _GENERATED)][:_GENERATED]
        visual, asked = zip(*some, strict=True)
        return [each.complete for each in self.generate(visual, asked, _GENERATED_TOKENS)]


def _lowest_adapted_layer(base: LocalModel) -> int | None:
    """Return the lowest layer that the loaded adapter changes; None where none is loaded."""
    if not isinstance(base.model.language_model, PeftModel):
        return None
    layers = base.model.language_model.active_peft_config.layers_to_transform
    return min(layers) if layers else 0


def _weights_key(store: AdapterStore, adapter: str | None) -> str:
    """Return the hash of an adapter's weights, since two stores may use one id for different adapters."""
    return store.manifest(adapter)["files"][WEIGHTS_FILE] if adapter else BASE_MODEL


def _same_shape(one: LoraConfig, other: LoraConfig) -> bool:
    names = ("r", "lora_alpha", "layers_to_transform", "use_rslora", "use_dora", "bias")
    same = all(getattr(one, name) == getattr(other, name) for name in names)
    return same and set(one.target_modules or ()) == set(other.target_modules or ())


def _tokens(each: Branch) -> _Tokens:
    return tuple(each.question), tuple(each.answer)
