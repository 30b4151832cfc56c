"""The backend of any Hugging Face vision-language model."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from radfound.engine.chat import instruction, prompt_key, too_long
from radfound.engine.hidden import HiddenText
from radfound.engine.protocol import Abilities, Description
from radfound.engine.recipes import Recipe, recipe_for
from radfound.engine.shown import Shown
from radfound.engine.stream import Stream
from radfound.engine.transformers.adapters import Adapters
from radfound.engine.transformers.decoding import AnswerRow, Decoder, PieceDecoder
from radfound.engine.transformers.loading import Loaded, load
from radfound.engine.transformers.prefixes import Key, Prefix, Prefixes, branch, prefill
from radfound.engine.transformers.prompts import PicturesPart, Prompts, image_token_of
from radfound.engine.transformers.worker import Request, Worker
from radfound.exceptions import RequestError, UnsupportedError
from radfound.question import Question
from radfound.study.study import Study

if TYPE_CHECKING:
    from radfound.study.evidence_map import Evidence

PREFIX_BYTES = 2 * 2**30
_PROBE = "Is there a fracture? Answer yes or no."


class TransformersBackend:
    """A Hugging Face vision-language model in this process; implements `Backend`.

    Questions about one study share the KV cache of its pictures, so that a follow-up prefills its own
    words alone. The cache differs by adapter, because an adapter changes every token of the prompt.

    Parameters
    ----------
    loaded : Loaded
    name : str
        Name in answers.
    recipe : Recipe
    prefix_bytes : int
        Memory limit of the KV caches of studies.
    """

    def __init__(
        self, loaded: Loaded, name: str, recipe: Recipe, *, prefix_bytes: int = PREFIX_BYTES
    ):
        self.model, self.processor = loaded.model, loaded.processor
        self.recipe = recipe
        self._image_token = image_token_of(loaded.model)
        self.prompts = Prompts(loaded.processor, recipe, self._image_token)
        self._tokenizer = loaded.processor.tokenizer
        text = loaded.model.config.get_text_config()
        self._description = Description(
            name=name,
            revision=loaded.revision,
            context_tokens=getattr(text, "max_position_embeddings", None),
            max_images=recipe.max_images,
            vocabulary=text.vocab_size,
            recipe=recipe.name,
            abilities=Abilities(
                probabilities="all",
                score=True,
                choose=True,
                embed=True,
                adapters="while running",
                examples=not recipe.single,
            ),
        )
        self._stops = _stop_tokens(loaded.model, self._tokenizer)
        eos = self._tokenizer.eos_token_id
        self.stop_token = eos if eos in self._stops else min(self._stops)
        """The token that ends an answer."""
        marks = {mark for pair in recipe.hidden for mark in pair}
        self._silent = frozenset(
            token
            for token, word in zip(
                self._tokenizer.all_special_ids, self._tokenizer.all_special_tokens, strict=True
            )
            if word not in marks
        )
        self.prefixes = Prefixes(prefix_bytes)
        # Whether the words after the pictures are tokenised alike without the pictures; known after the first.
        self._is_separable = True
        self._decoder = Decoder(loaded.model, self._stops)
        self._adapters = Adapters(loaded.model, self.prompts.text_only(_PROBE))
        self._worker = Worker(self._decoder, self._adapters)
        self._preparing = ThreadPoolExecutor(2, "radfound-pictures")

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        name: str | None = None,
        recipe: str | Recipe | None = None,
        device: str | None = None,
        dtype: str = "bfloat16",
        bits: int | None = None,
        prefix_bytes: int = PREFIX_BYTES,
    ) -> TransformersBackend:
        """Load a model from a folder of safetensors.

        Parameters
        ----------
        folder : str or Path
        name : str, optional
            Name in answers; the folder's by default.
        recipe : str or Recipe, optional
            By default the one that fits the model's name or type.
        device, dtype, bits
            As `radfound.engine.transformers.loading.load` takes them; errors too.
        prefix_bytes : int
            Memory limit of the KV caches of studies.
        """
        folder = Path(folder)
        loaded = load(folder, device=device, dtype=dtype, bits=bits)
        if not isinstance(recipe, Recipe):
            recipe = recipe_for(
                recipe, model=name or folder.name, model_type=loaded.model.config.model_type
            )
        return cls(loaded, name or folder.name, recipe, prefix_bytes=prefix_bytes)

    def describe(self) -> Description:
        """Return the model's description."""
        return self._description

    def check(
        self, question: Question, limit: int, *, images: int = 1, evidence: bool = False
    ) -> None:
        """Raise RequestError if a question is too long, as the protocol says."""
        if evidence:
            raise _no_evidence(self._description.name)
        self.recipe.check_images(images)
        turns = [text for turn in question.history for text in (turn.question, turn.answer)]
        text = "\n".join([*turns, instruction(question)])
        found = len(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        room = (self._description.context_tokens or math.inf) - limit
        if found >= room:
            raise too_long(question, found, f"fewer than {room:,} fit beside an answer of {limit}")

    def stream(
        self, study: Study, question: Question, *, adapter: str | None, limit: int
    ) -> Stream:
        """Queue a question and return its stream at once; errors are raised from the stream."""
        stream = Stream(on_cancel=self._worker.wake)
        self._preparing.submit(self._prepare_stream, stream, study, question, adapter, limit)
        return stream

    def score(self, study: Study, question: Question, text: str, *, adapter: str | None) -> float:
        """Return the mean log-probability of the tokens of `text` as the answer, stop token included."""
        [logs] = self._score_all(study, question, [text], adapter)
        return sum(logs) / len(logs)

    def choose(
        self, study: Study, question: Question, options: Sequence[str], *, adapter: str | None
    ) -> Mapping[str, float]:
        """Return the probability of each option as the whole answer; they add up to 1.

        The probabilities of an option's spellings with small and capital letters are added.
        """
        if len(set(options)) < 2:
            raise RequestError(f"options: found {len(set(options))}; expected two or more")
        spellings = [
            list(dict.fromkeys((option, option.lower(), option.capitalize(), option.upper())))
            for option in options
        ]
        logs = iter(self._score_all(study, question, [*chain(*spellings)], adapter))
        totals = [np.logaddexp.reduce([sum(next(logs)) for _ in some]) for some in spellings]
        shares = np.exp(np.array(totals) - max(totals))
        return dict(zip(options, (shares / shares.sum()).tolist(), strict=True))

    def embed(self, study: Study) -> np.ndarray:
        """Return the mean hidden state of a study's pictures without adapter: float32, shape (D,), length 1."""
        prepared = self._prepare(study, Question("caption"), None, 0)
        prefix = self._worker.call(lambda: self._prefix(prepared.key, prepared.part, None))
        return prefix.embedding

    def evidence(
        self,
        study: Study,
        question: Question,
        text: str,
        *,
        adapter: str | None,
        before: str = "",
    ) -> Evidence:
        """Raise UnsupportedError: no evidence maps are computed for other models than RadFound's own."""
        raise _no_evidence(self._description.name)

    def use_adapter(self, adapter: str, folder: Path) -> None:
        """Load an adapter of the language model under an id; errors as the protocol says."""
        self._worker.call(lambda: self._adapters.load(adapter, Path(folder)))

    def drop_adapter(self, adapter: str) -> None:
        """Unload an adapter, once no answer uses it; does nothing if it is unknown."""
        while not self._worker.call(lambda: self._drop(adapter)):
            time.sleep(0.05)

    def close(self) -> None:
        """Cancel all answers and release the model."""
        self._worker.close()
        self._preparing.shutdown(wait=True, cancel_futures=True)
        self.prefixes.clear()

    def _drop(self, adapter: str) -> bool:
        if self._worker.is_using(adapter):
            return False
        self._adapters.drop(adapter)
        self.prefixes.drop_adapter(adapter)
        return True

    def _prepare_stream(
        self, stream: Stream, study: Study, question: Question, adapter: str | None, limit: int
    ) -> None:
        try:
            if stream.is_cancelled:
                return
            began = time.monotonic()
            prepared = self._prepare(study, question, adapter, limit)
            stream.shown = prepared.shown
            stream.encode_ms = _since(began)
            row = self._row(stream, prepared.shown, question, adapter, limit)

            def prefix() -> Prefix:
                began = time.monotonic()
                found = self._prefix(prepared.key, prepared.part, prepared.prefix)
                stream.encode_ms += _since(began)
                return found

            self._worker.submit(Request(row, prefix, prepared.rest))
        except Exception as error:  # raised from the stream, whatever it is
            stream.fail(error)

    def _row(
        self, stream: Stream, shown: Shown, question: Question, adapter: str | None, limit: int
    ) -> AnswerRow:
        marks = self.recipe.hidden
        hidden = HiddenText(marks, bool(marks) and self.prompts.begins_hidden(shown, question))
        text = PieceDecoder(self._tokenizer, self._silent)
        return AnswerRow(stream, adapter, limit, hidden, self.recipe.hidden_tokens, text)

    def _prepare(
        self, study: Study, question: Question, adapter: str | None, limit: int
    ) -> _Prepared:
        """Return the prompt of a question; processes the pictures only if their prefix is not cached.

        Worked examples are left out where they do not fit into the context.
        """
        shown = self.recipe.show(study, question)
        key: Key = (prompt_key(study, question), question.region, adapter)
        prefix = self.prefixes.get(key)
        part = None
        if prefix is None:
            part, rest = self.prompts.pictures_part(shown, question)
            count = len(part.ids)
            self._is_separable &= rest == self.prompts.rest(shown, question)
        else:
            count = len(prefix.ids)
            rest = (
                self.prompts.rest(shown, question)
                if self._is_separable
                else self.prompts.pictures_part(shown, question)[1]
            )
        try:
            self._check_context(shown, count, len(rest) + limit)
        except RequestError:
            if not question.examples:
                raise
            return self._prepare(study, replace(question, examples=()), adapter, limit)
        return _Prepared(shown, key, prefix, part, rest)

    def _check_context(self, shown: Shown, pictures: int, others: int) -> None:
        context = self._description.context_tokens
        if context is None or pictures + others <= context:
            return
        count = len(shown.pictures)
        fits = max(0, int((context - others) * count // pictures))
        raise RequestError(
            f"study: {count} pictures take {pictures:,} tokens, and the question with its answer {others:,}; the model "
            f"takes {context:,}, so that {fits} pictures fit; ask about a region, or lower max_slices of the recipe"
        )

    def _prefix(self, key: Key, part: PicturesPart | None, known: Prefix | None) -> Prefix:
        """Return a prefix, prefilled if it is not known; runs on the worker."""
        found = known or self.prefixes.get(key)
        if found is None:
            assert part is not None
            self._adapters.use(key[2])
            found = prefill(self.model, part, self._image_token)
            self.prefixes.keep(key, found)
        return found

    def _score_all(
        self, study: Study, question: Question, texts: Sequence[str], adapter: str | None
    ) -> list[list[float]]:
        """Return the log-probabilities of the tokens of each text as the answer, stop token included."""
        prepared = self._prepare(study, question, adapter, 0)
        answers = [
            [*self.prompts.answer(prepared.shown, question, text, prepared.rest), self.stop_token]
            for text in texts
        ]

        def compute() -> list[list[float]]:
            self._adapters.use(adapter)
            prefix = self._prefix(prepared.key, prepared.part, prepared.prefix)
            self._adapters.use(adapter)
            cache, start = prefix.branch(), len(prefix.ids)
            first = self._decoder.extend(cache, start, prefix.shift, prepared.rest)
            start += len(prepared.rest)
            found = []
            for answer in answers:
                logits = first
                if len(answer) > 1:
                    more = self._decoder.extend(
                        branch(cache), start, prefix.shift, answer[:-1], keep=len(answer) - 1
                    )
                    logits = torch.cat([first, more])
                targets = torch.tensor(answer, device=logits.device)[:, None]
                found.append(logits.log_softmax(-1).gather(-1, targets)[:, 0].tolist())
            return found

        return self._worker.call(compute)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A question with its pictures, ready for the worker."""

    shown: Shown
    key: Key
    prefix: Prefix | None
    part: PicturesPart | None
    rest: list[int]


def _stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    named = getattr(model.generation_config, "eos_token_id", None)
    found = {named} if isinstance(named, int) else set(named or ())
    return frozenset(found | {tokenizer.eos_token_id} - {None})


def _no_evidence(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"evidence: {name} has no evidence maps; ask for the answer alone, or ask radfound-mini"
    )


def _since(began: float) -> int:
    return round(1000 * (time.monotonic() - began))
