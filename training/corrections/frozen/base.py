"""The frozen base model of fine-tuning runs, with everything about it that is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from radfound.engine.generated import Generated
from radfound.engine.local.kv_cache import KVCache, PrefixCache
from radfound.engine.local.model import LocalModel
from radfound.model.checkpoints import REGRESSION, bundled
from radfound.records.adapters import WEIGHTS_FILE, AdapterStore
from radfound.study.study import Study, StudyImage
from training.corrections.frozen.activations import PREFILL_BATCH, Activations, tokens_of
from training.corrections.frozen.examination import Evaluation, Evaluations, Said, sampled
from training.corrections.frozen.kept import Kept, digest_of, key_of
from training.corrections.frozen.lessons import Lesson, bundled_lessons
from training.corrections.frozen.own_answers import OwnAnswers
from training.corrections.frozen.scoring import AnswerScores, score_answers
from training.corrections.frozen.upper_layers import UpperLayers
from training.corrections.frozen.visual_tokens import VISUAL_TOKENS
from training.loop.config import Advance, no_advance
from training.lora import lora_config
from training.packing import Branch, branch

BASE_MODEL = "the base model"
_GENERATE_BATCH = 64  # answers
_PREFIX_BYTES = 512 * 2**20
_STOPS = 32  # answers that are looked at to see whether they stop
_LIMIT = 48  # tokens: the engine's default limit of an answer
OWN_ANSWERS = "own_answers"
_KEPT_BYTES = {OWN_ANSWERS: 64 * 2**20, "evaluations": 16 * 2**20, "activations": 512 * 2**20}
KEPT_FOLDERS = (VISUAL_TOKENS, *_KEPT_BYTES)
"""Folders of what is kept between runs."""


class FrozenBase:
    """A base model in memory, and what does not change from run to run.

    Several runs may share one, one after the other. This is RadFound's own model and not a backend of the engine: it
    is trained, and the gate scores hundreds of answers from activations that are cached below the layers that learn.
    Through the protocol every score would be a forward pass through the whole model.

    Parameters
    ----------
    checkpoint : str or Path
    layers : int
        How many of the language model's upper layers learn.
    replay_studies : int
        Largest number of bundled studies used for replay.
    dtype : torch.dtype, optional
        As for `LocalModel.load`.
    folder : Path, optional
        Where to keep between runs what needs no new corrections; nothing is kept by default.
    """

    def __init__(
        self,
        checkpoint: str | Path = "radfound-mini",
        layers: int = 8,
        replay_studies: int = 96,
        *,
        dtype: torch.dtype | None = None,
        folder: Path | None = None,
    ):
        self.checkpoint = checkpoint
        self.base = LocalModel.load(checkpoint, dtype=dtype)
        self.base.model.requires_grad_(False)
        self.base.tune()
        # For questions of a dozen tokens plain products are quicker than a fused kernel's backward pass.
        self.base.model.language_model.set_attn_implementation("eager")
        self.upper = UpperLayers(self.base, layers)
        self._replay_studies = replay_studies
        self._prefixes = PrefixCache(_PREFIX_BYTES)
        kept = {
            name: Kept(folder / name if folder else None, name.replace("_", " "), most)
            for name, most in _KEPT_BYTES.items()
        }
        self.own = OwnAnswers(self.base, kept[OWN_ANSWERS])
        self.activations = Activations(
            self.upper, self.prefixes, self.base.model.device, kept["activations"]
        )
        self._evaluations = Evaluations(kept["evaluations"])

    @cached_property
    def replay(self) -> list[Lesson]:
        """Bundled studies with the base model's own answers."""
        return bundled_lessons(self.base, self.checkpoint, self._replay_studies)

    @cached_property
    def regression_set(self) -> list[Lesson]:
        """Bundled studies with the right answers; empty where the checkpoint has none."""
        model, processor = self.base.model, self.base.processor
        return [
            Lesson(
                study.visual.to(model.device, model.dtype)[None],
                [branch(processor, "vqa", q, a) for q, a in study.pairs],
            )
            for study in bundled(self.checkpoint, REGRESSION)
        ]

    @cached_property
    def regression_pairs(self) -> list[tuple[int, str, str]]:
        """Number of the study, question and right answer of each branch of the regression set."""
        studies = bundled(self.checkpoint, REGRESSION)
        return [(n, *pair) for n, study in enumerate(studies) for pair in study.pairs]

    def prefixes(self, visual: Sequence[torch.Tensor]) -> list[KVCache]:
        """Return the prefilled keys and values of studies, from their visual tokens."""
        found = {id(each): self._prefixes.get(each) for each in visual}
        new = {id(each): each for each in visual if found[id(each)] is None}
        names = list(new)
        for start in range(0, len(names), PREFILL_BATCH):
            some = names[start : start + PREFILL_BATCH]
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
            generated += self.base.decode(self.prefixes(visual[some]), questions[some], limit)
        return generated

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

    @torch.no_grad()
    def scale_adapter(self, factor: float) -> None:
        """Multiply by a factor what the adapter that is loaded adds to the base model's weights."""
        for name, parameter in self.base.model.language_model.named_parameters():
            if ".lora_B." in name:
                parameter.mul_(factor)
        self.base.tune()

    def prepare(self, advance: Advance = no_advance) -> None:
        """Compute the activations of the bundled studies, or find those of an earlier run."""
        if not self.activations.find(self._activations_key, self._bundled):
            self.activations.of(self._bundled, advance)

    def left_to_compute(self, store: AdapterStore, adapter: str | None) -> int:
        """Return how many answers are left for `prepare`, and for evaluating the base model and an adapter."""
        is_prepared = self.activations.are_kept(self._activations_key)
        left = 0 if is_prepared else sum(len(each.branches) for each in self._bundled)
        for version in dict.fromkeys((None, adapter)):
            if not self._evaluations.are_kept(self._evaluation_key(_weights(store, version))):
                # With the image, with a blank one, and its own.
                left += 3 * len(self.regression_pairs)
        return left

    def keep_activations(self) -> None:
        """Keep the activations of the bundled studies, with all answers that were scored, for later runs."""
        self.activations.keep(self._activations_key, self._bundled)

    @cached_property
    def _bundled(self) -> list[Lesson]:
        """The studies of the regression set, those of replay, and the blank one, each once."""
        known = self.regression_set
        return [*known, *self.replay, *(self._with_blank(known) if known else ())]

    @cached_property
    def _activations_key(self) -> str:
        answers = [[*map(tokens_of, each.branches)] for each in self._bundled]
        visual = digest_of([each.visual for each in self._bundled])
        return key_of(*self._model_key, self.upper.first, visual, answers)

    @property
    def _model_key(self) -> tuple[str, str, str]:
        base = self.base
        return base.name, base.revision, str(base.model.dtype)

    def evaluation_of(
        self, store: AdapterStore, adapter: str | None, advance: Advance = no_advance
    ) -> Evaluation:
        """Evaluate a published adapter, or the base model, on the regression set; each once, also across runs."""
        name = adapter or BASE_MODEL
        key = self._evaluation_key(_weights(store, adapter))
        found = self._evaluations.get(name, key)
        if found is None:
            with self.loaded(store, adapter):
                found = self.evaluate(name, self.regression_set, advance)
            self._evaluations.put(key, found)
        return found

    def keep_evaluation(self, store: AdapterStore, adapter: str, evaluation: Evaluation) -> None:
        """Keep the evaluation of an adapter that has been published since."""
        key = self._evaluation_key(_weights(store, adapter))
        self._evaluations.put(key, replace(evaluation, name=adapter))

    def _evaluation_key(self, weights: str) -> str:
        return key_of(*self._model_key, self._questions_digest, weights, _STOPS, _LIMIT)

    @cached_property
    def _questions_digest(self) -> str:
        lessons = self.regression_set
        answers = [[*map(tokens_of, each.branches)] for each in lessons]
        return key_of(digest_of([each.visual for each in lessons]), answers)

    @contextmanager
    def loaded(self, store: AdapterStore, adapter: str | None) -> Iterator[None]:
        """Load a published adapter, or none, for the length of a block."""
        self.base.load_adapter(None if adapter is None else store.path(adapter))
        try:
            yield
        finally:
            self.base.load_adapter(None)

    def evaluate(
        self, name: str, lessons: Sequence[Lesson], advance: Advance = no_advance
    ) -> Evaluation:
        """Evaluate the adapter that is loaded on lessons with right answers."""
        self.base.tune()  # the weights may have changed since the last answer
        with_image, with_blank = self.score(lessons), self.score(self._with_blank(lessons))
        advance(2 * len(with_image.correct))
        asked = [(lesson.visual, each.question) for lesson in lessons for each in lesson.branches]
        right = [each.answer for lesson in lessons for each in lesson.branches]
        some = sampled(len(asked), _STOPS)
        numbers = range(len(asked)) if self.regression_set else some
        base = self._evaluations.known(self._evaluation_key(BASE_MODEL))
        said = {
            n: Said(self._text(right[n]), with_image.log_probability[n], True)
            for n in numbers
            if with_image.correct[n] and self._is_whole(right[n])
        }
        rest = [n for n in numbers if n not in said]
        drafts = [[self.answer_tokens(base.said[n])] if base and base.said else [] for n in rest]
        said.update(zip(rest, self.answers([asked[n] for n in rest], drafts), strict=True))
        advance(len(said))
        stops = [said[n].complete for n in some]
        own = tuple(said[n] for n in numbers) if self.regression_set else ()
        return Evaluation(name, with_image, with_blank, stops, own)

    def answer_tokens(self, said: Said) -> list[int]:
        """Return the tokens of an answer, with the stop token if it has one."""
        tokens = self.base.processor.answer_ids(said.text)
        return tokens if said.complete else tokens[:-1]

    def answers(
        self,
        asked: Sequence[tuple[torch.Tensor, list[int]]],
        drafts: Sequence[Sequence[list[int]]],
    ) -> list[Said]:
        """Return the answers of the adapter that is loaded.

        An answer of which a draft is known is decided by scoring: where each token of the draft is the likeliest one,
        greedy decoding gives the draft. Only the other answers are generated.

        Parameters
        ----------
        asked : sequence of (visual tokens, question)
        drafts : sequence of (sequence of token ids)
            For each question answers that are likely, with their stop token.
        """
        trials = [
            (number, draft)
            for number, some in enumerate(drafts)
            for draft in some
            if len(draft) == _LIMIT or self._is_whole(draft)
        ]
        lessons = [Lesson(asked[n][0], [Branch(asked[n][1], draft)]) for n, draft in trials]
        scores = self.score(lessons)
        found = {
            number: Said(self._text(draft), mean, self._is_whole(draft))
            for (number, draft), correct, mean in zip(
                trials, scores.correct, scores.log_probability, strict=True
            )
            if correct
        }
        rest = [number for number in range(len(asked)) if number not in found]
        generated = self.generate([asked[n][0] for n in rest], [asked[n][1] for n in rest], _LIMIT)
        for number, answer in zip(rest, generated, strict=True):
            known = answer.log_probabilities or (0.0,)
            mean = sum(known) / len(known)
            found[number] = Said(answer.text.strip(), mean, answer.complete)
        return [found[number] for number in range(len(asked))]

    def _is_whole(self, tokens: Sequence[int]) -> bool:
        """Whether an answer ends with the stop token within the limit."""
        return len(tokens) <= _LIMIT and tokens[-1] == self.base.processor.tokenizer.eos_token_id

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self.base.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        return text.rstrip("\ufffd").strip()  # a character that was cut off

    def score(self, lessons: Sequence[Lesson]) -> AnswerScores:
        """Score the answers of lessons, with the adapter that is loaded."""
        lowest = _lowest_adapted_layer(self.base)
        if lowest is None or lowest >= self.upper.first:
            return score_answers(self.upper, self.activations.of(lessons))
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


def _lowest_adapted_layer(base: LocalModel) -> int | None:
    """Return the lowest layer that the loaded adapter changes; None where none is loaded."""
    if not isinstance(base.model.language_model, PeftModel):
        return None
    layers = base.model.language_model.active_peft_config.layers_to_transform
    return min(layers) if layers else 0


def _weights(store: AdapterStore, adapter: str | None) -> str:
    """Return the hash of an adapter's weights, since two stores may use one id for different adapters."""
    found: str = store.manifest(adapter)["files"][WEIGHTS_FILE] if adapter else BASE_MODEL
    return found


def _same_shape(one: LoraConfig, other: LoraConfig) -> bool:
    names = ("r", "lora_alpha", "layers_to_transform", "use_rslora", "use_dora", "bias")
    same = all(getattr(one, name) == getattr(other, name) for name in names)
    return same and set(one.target_modules or ()) == set(other.target_modules or ())
