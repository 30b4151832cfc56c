"""What no adapter changes of questions and answers, computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from radfound.engine.local.kv_cache import KVCache
from training.corrections.frozen.activation_tensors import packed, unpacked
from training.corrections.frozen.kept import Kept
from training.corrections.frozen.lessons import Lesson
from training.corrections.frozen.upper_layers import CachedAnswer, UpperLayers
from training.loop.config import Advance, no_advance
from training.packing import Branch

PREFILL_BATCH = 16  # studies

Tokens = tuple[tuple[int, ...], tuple[int, ...]]


class Activations:
    """The activations of answers, in memory; those of some lessons are kept between runs.

    Parameters
    ----------
    upper : UpperLayers
    prefixes : callable
        Returns the prefilled keys and values of studies, from their visual tokens.
    device : torch.device
    kept : Kept
    """

    def __init__(
        self,
        upper: UpperLayers,
        prefixes: Callable[[Sequence[torch.Tensor]], list[KVCache]],
        device: torch.device,
        kept: Kept,
    ):
        self._upper, self._prefixes, self._device, self._kept = upper, prefixes, device, kept
        # By a study's visual tokens, then by question and answer.
        self._cached: dict[torch.Tensor, dict[Tokens, CachedAnswer]] = {}
        self._on_disk = 0  # number of answers

    def of(self, lessons: Sequence[Lesson], advance: Advance = no_advance) -> list[CachedAnswer]:
        """Return the activations of all answers of the lessons, in order; each is computed once."""
        new: dict[torch.Tensor, dict[Tokens, Branch]] = {}
        for lesson in lessons:
            cached = self._cached.setdefault(lesson.visual, {})
            missing = {tokens_of(b): b for b in lesson.branches if tokens_of(b) not in cached}
            if missing:
                new.setdefault(lesson.visual, {}).update(missing)
        # Part by part: the prefixes of all studies together may not fit into the prefix cache.
        for some in _parts(list(new), PREFILL_BATCH):
            branches = [list(new[visual].values()) for visual in some]
            pairs = list(zip(self._prefixes(some), branches, strict=True))
            computed = iter(self._upper.precompute(pairs))
            for visual in some:
                self._cached[visual].update({tokens: next(computed) for tokens in new[visual]})
            advance(sum(map(len, branches)))
        return [self._cached[e.visual][tokens_of(b)] for e in lessons for b in e.branches]

    def of_rejected(self, lessons: Sequence[Lesson]) -> list[CachedAnswer | None]:
        """Return those of the texts that readers replaced; None for each answer without one."""
        some = [Lesson(each.visual, [one for one in each.rejected if one]) for each in lessons]
        computed = iter(self.of(some))
        return [next(computed) if each else None for lesson in lessons for each in lesson.rejected]

    def are_kept(self, key: str) -> bool:
        """Whether those of some lessons were kept under a key, by this run or an earlier one."""
        return bool(self._on_disk) or self._kept.has(key)

    def keep(self, key: str, lessons: Sequence[Lesson]) -> None:
        """Keep all activations about the studies of some lessons for later runs."""
        cached = [list(self._cached.get(each.visual, {}).values()) for each in lessons]
        count = sum(map(len, cached))
        if count > self._on_disk and all(cached):
            self._kept.put(key, packed(cached))
            self._on_disk = count

    def find(self, key: str, lessons: Sequence[Lesson]) -> bool:
        """Load what an earlier run kept, unless that was done; return whether there is anything."""
        if self._on_disk:
            return True
        kept = self._kept.get(key)
        if kept is None:
            return False
        try:
            studies = unpacked(kept, self._device)
            known = [{tokens_of(each.branch): each for each in some} for some in studies]
            for lesson, some in zip(lessons, known, strict=True):
                if not some.keys() >= set(map(tokens_of, lesson.branches)):
                    raise ValueError("some answers are missing")
        except (KeyError, ValueError, RuntimeError, StopIteration):
            self._kept.drop(key)
            return False
        self._cached.update(
            {lesson.visual: some for lesson, some in zip(lessons, known, strict=True)}
        )
        self._on_disk = sum(map(len, studies))
        return True


def tokens_of(each: Branch) -> Tokens:
    """Return a question and an answer as a key."""
    return tuple(each.question), tuple(each.answer)


def _parts(some: list[torch.Tensor], size: int) -> Iterator[list[torch.Tensor]]:
    for start in range(0, len(some), size):
        yield some[start : start + size]
