"""What fine-tuning runs share: the base model, what it rehearses, and what every adapter is examined on."""

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
from radfound.engine.local.sequence import Prefix, PrefixCache
from radfound.model.checkpoints import REGRESSION, bundled
from radfound.records.adapters import WEIGHTS_FILE, AdapterStore
from radfound.study.study import Study, StudyImage
from training.corrections.adapt import Marks, mark
from training.corrections.lessons import Lesson, bundled_lessons
from training.corrections.upper import Reading, UpperLayers
from training.lora import lora_config
from training.packing import Branch, branch

BASE_MODEL = "the base model"
_READ, _WRITTEN = 16, 32  # studies read, answers written at once
_PREFIX_BYTES = 512 * 2**20
_ENDING = 32  # answers written to see whether they end
_ENDING_TOKENS = 48  # what the engine grants an answer by default


_Tokens = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Standing:
    """How a version does on the examination.

    Parameters
    ----------
    name : str
        Such as "a-0003", or `BASE_MODEL`.
    own, blank : Marks
        On the examination's questions, with their own image and with a blank one.
    ends : list of bool
        Of some answers, whether they end by themselves.
    """

    name: str
    own: Marks
    blank: Marks
    ends: list[bool]


class Workshop:
    """A base model in memory, and all that does not change from run to run.

    Parameters
    ----------
    checkpoint : str or Path
    layers : int
        How many of the language model's upper layers learn.
    rehearsed_studies : int
        At most so many bundled studies are rehearsed.
    """

    def __init__(
        self,
        checkpoint: str | Path = "radfound-mini",
        layers: int = 8,
        rehearsed_studies: int = 96,
    ):
        self.checkpoint = checkpoint
        self.base = LocalModel.load(checkpoint)
        self.base.model.requires_grad_(False)
        self.base.tune()
        # For questions of a dozen tokens plain products are quicker than a fused kernel's backward pass.
        self.base.model.language_model.set_attn_implementation("eager")
        self.upper = UpperLayers(self.base, layers)
        self._rehearsed_studies = rehearsed_studies
        # By a study's visual tokens; then by question and answer.
        self._known: dict[torch.Tensor, dict[_Tokens, Reading]] = {}
        self._prefixes = PrefixCache(_PREFIX_BYTES)
        self._standings: dict[str, Standing] = {}

    @cached_property
    def rehearsed(self) -> list[Lesson]:
        """Bundled studies with the base model's own answers."""
        return bundled_lessons(self.base, self.checkpoint, self._rehearsed_studies)

    @cached_property
    def exam(self) -> list[Lesson]:
        """Bundled studies with the right answers; none where the checkpoint brings none."""
        return [
            Lesson(
                study.visual.to(self.base.model.device)[None],
                [branch(self.base.processor, "vqa", q, a) for q, a in study.said],
            )
            for study in bundled(self.checkpoint, REGRESSION)
        ]

    def prefixes(self, visual: Sequence[torch.Tensor]) -> list[Prefix]:
        """Return what the language model reads of studies, from their visual tokens."""
        found = {id(each): self._prefixes.get(each) for each in visual}
        new = {id(each): each for each in visual if found[id(each)] is None}
        names = list(new)
        for start in range(0, len(names), _READ):
            some = names[start : start + _READ]
            made = self.base.read_many([new[name] for name in some])
            for name, prefix in zip(some, made, strict=True):
                found[name] = prefix
                self._prefixes.put(new[name], prefix)
        return [prefix for each in visual if (prefix := found[id(each)]) is not None]

    def write(
        self, visual: Sequence[torch.Tensor], questions: Sequence[Sequence[int]], limit: int
    ) -> list[Generated]:
        """Write answers to questions that are token ids, with what is on now."""
        written: list[Generated] = []
        for start in range(0, len(questions), _WRITTEN):
            some = slice(start, start + _WRITTEN)
            written += self.base.write(self.prefixes(visual[some]), questions[some], limit)
        return written

    def read(self, lessons: Sequence[Lesson]) -> list[Reading]:
        """Return the readings of lessons, answer by answer; each is made once."""
        new: dict[torch.Tensor, dict[_Tokens, Branch]] = {}
        for lesson in lessons:
            known = self._known.setdefault(lesson.visual, {})
            unknown = {_tokens(b): b for b in lesson.branches if _tokens(b) not in known}
            if unknown:
                new.setdefault(lesson.visual, {}).update(unknown)
        prefixes = self.prefixes(list(new))
        pairs = zip(prefixes, (list(some.values()) for some in new.values()), strict=True)
        made = iter(self.upper.read(list(pairs)))
        for visual, some in new.items():
            self._known[visual].update({tokens: next(made) for tokens in some})
        return [self._known[e.visual][_tokens(b)] for e in lessons for b in e.branches]

    def read_refused(self, lessons: Sequence[Lesson]) -> list[Reading | None]:
        """Return the readings of what readers replaced, one for each of what `read` returns."""
        some = [Lesson(each.visual, [one for one in each.refused if one]) for each in lessons]
        made = iter(self.read(some))
        return [next(made) if each else None for lesson in lessons for each in lesson.refused]

    def new_adapter(self, rank: int, begin_with: Path | None = None, seed: int = 0) -> None:
        """Put an adapter on the upper layers that is to learn.

        Parameters
        ----------
        rank : int
        begin_with : Path, optional
            The folder of an adapter to go on from; where it is of another shape, a fresh one is made.
        seed : int
            Of a fresh one.
        """
        self.base.load_adapter(None)
        config = lora_config(rank, self.upper.numbers)
        language_model = self.base.model.language_model
        if begin_with is not None and _same_shape(LoraConfig.from_pretrained(begin_with), config):
            adapted = PeftModel.from_pretrained(language_model, str(begin_with), is_trainable=True)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                adapted = get_peft_model(language_model, config)
        self.base.model.language_model = adapted
        self.base.tune()

    def standing(self, store: AdapterStore, adapter: str | None) -> Standing:
        """Return how a published adapter, or the base model, does on the bundled examination."""
        name = _name(store, adapter)
        if name not in self._standings:
            with self.answering_with(store, adapter):
                self._standings[name] = self.examine(adapter or BASE_MODEL, self.exam)
        return self._standings[name]

    def remember(self, store: AdapterStore, adapter: str, standing: Standing) -> None:
        """Keep how an adapter did, which has been published since."""
        self._standings[_name(store, adapter)] = replace(standing, name=adapter)

    @contextmanager
    def answering_with(self, store: AdapterStore, adapter: str | None) -> Iterator[None]:
        """Put a published adapter on, or none, and take it off again."""
        self.base.load_adapter(None if adapter is None else store.path(adapter))
        try:
            yield
        finally:
            self.base.load_adapter(None)

    def examine(self, name: str, exam: Sequence[Lesson]) -> Standing:
        """Return how what is on now does."""
        self.base.tune()  # weights may have been learnt since answers were last written
        return Standing(name, self.mark(exam), self.mark(self._blanked(exam)), self._ends(exam))

    def mark(self, lessons: Sequence[Lesson]) -> Marks:
        """Judge the answers of lessons, with what is on now."""
        deepest = _deepest_layer(self.base)
        if deepest is None or deepest >= self.upper.first:
            return mark(self.upper, self.read(lessons))
        whole = UpperLayers(self.base, self.base.model.config.text_config.num_hidden_layers)
        prefixes = self.prefixes([lesson.visual for lesson in lessons])
        branches = [lesson.branches for lesson in lessons]
        return mark(whole, whole.read(list(zip(prefixes, branches, strict=True))))

    def _blanked(self, exam: Sequence[Lesson]) -> list[Lesson]:
        """Return the same questions and answers about a blank image."""
        return [Lesson(self._blank, [each for lesson in exam for each in lesson.branches])]

    @cached_property
    def _blank(self) -> torch.Tensor:
        pixels = np.zeros((1, 64, 64), np.uint8)
        return self.base.encode(Study((StudyImage(pixels, np.eye(4)),)))

    def _ends(self, exam: Sequence[Lesson]) -> list[bool]:
        """Write some answers, and tell which end by themselves."""
        some = [(lesson.visual, each.question) for lesson in exam for each in lesson.branches]
        some = some[:: max(1, len(some) // _ENDING)][:_ENDING]
        visual, asked = zip(*some, strict=True)
        return [each.complete for each in self.write(visual, asked, _ENDING_TOKENS)]


def _deepest_layer(base: LocalModel) -> int | None:
    """Return the lowest layer that the adapter changes which is on now; None where none is on."""
    if not isinstance(base.model.language_model, PeftModel):
        return None
    layers = base.model.language_model.active_peft_config.layers_to_transform
    return min(layers) if layers else 0


def _name(store: AdapterStore, adapter: str | None) -> str:
    """Return a version's weights' name: two stores number their adapters alike."""
    return store.manifest(adapter)["files"][WEIGHTS_FILE] if adapter else BASE_MODEL


def _same_shape(one: LoraConfig, other: LoraConfig) -> bool:
    names = ("r", "lora_alpha", "layers_to_transform", "use_rslora", "use_dora", "bias")
    same = all(getattr(one, name) == getattr(other, name) for name in names)
    return same and set(one.target_modules or ()) == set(other.target_modules or ())


def _tokens(each: Branch) -> _Tokens:
    return tuple(each.question), tuple(each.answer)
