"""RadFound's own model behind the protocol, with its scheduler, caches and adapters."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from cachetools import LRUCache

from radfound.engine.chat import too_long
from radfound.engine.local.kv_cache import KVCache, PrefixCache
from radfound.engine.local.model import LocalModel
from radfound.engine.local.scheduler import MAX_RUNNING, Request, Scheduler
from radfound.engine.protocol import Abilities, Description
from radfound.engine.stream import Stream
from radfound.exceptions import AdapterError, NotFoundError, RequestError
from radfound.question import Question
from radfound.study.evidence_map import Evidence
from radfound.study.region import Box, Plane
from radfound.study.study import Study, StudyImage
from radfound.wire import MAX_NEW_TOKENS

logger = logging.getLogger(__name__)

RECIPE = "radfound"
MAX_PROMPT_TOKENS = 2048
"""Limit for a question with its history; a shorter model context lowers it."""
MAX_EVIDENCE_TOKENS = 256
"""The same with an evidence map, whose backward pass needs as much memory as training."""
CACHED_STUDIES = 32
PREFIX_BYTES = 256 * 2**20

_ABILITIES = Abilities(
    "all", score=True, choose=True, embed=True, evidence=True, adapters="while running"
)
_PROBE = Question("vqa", "What is the most important finding in this study?")


class LocalBackend:
    """RadFound's own model in this process. Thread-safe.

    Parameters
    ----------
    model : LocalModel
        From now on only the backend may use it.
    max_running : int
        Most answers decoded in one batch.
    cached_studies : int
        Number of studies whose visual tokens are cached.
    prefix_bytes : int
        Memory limit of the prefix cache (KV caches of studies).
    """

    def __init__(
        self,
        model: LocalModel,
        *,
        max_running: int = MAX_RUNNING,
        cached_studies: int = CACHED_STUDIES,
        prefix_bytes: int = PREFIX_BYTES,
    ):
        self.model = model
        self.prefixes = PrefixCache(prefix_bytes)
        self._encoded: LRUCache[Hashable, torch.Tensor] = LRUCache(cached_studies)
        self._folders: dict[str, Path] = {}
        self._loaded: str | None = None
        self._scheduler = Scheduler(model.batch(), self._load, max_running)

    @classmethod
    def load(
        cls, checkpoint: str | Path = "radfound-mini", device: str | None = None, **options: int
    ) -> LocalBackend:
        """Load a checkpoint, named as for `radfound.model.checkpoints.load`; options as for the class."""
        model = LocalModel.load(checkpoint, device)
        model.tune()
        return cls(model, **options)

    def describe(self) -> Description:
        """Return the model's description; never blocks."""
        model = self.model
        return Description(
            name=model.name,
            revision=model.revision,
            context_tokens=model.context_tokens,
            max_images=model.max_images,
            vocabulary=model.vocabulary,
            recipe=RECIPE,
            abilities=_ABILITIES,
        )

    # Answers ----------------------------------------------------------------------------------

    def check(
        self, question: Question, limit: int, *, images: int = 1, evidence: bool = False
    ) -> None:
        """Raise RequestError if a question is too long, before its study is loaded."""
        if images > self.model.max_images:
            raise RequestError(
                f"images: found {images}; the model reads at most {self.model.max_images} at once; choose fewer"
            )
        self._question_ids(question, limit, evidence)

    def stream(
        self, study: Study, question: Question, *, adapter: str | None, limit: int
    ) -> Stream:
        """Queue a question and return its stream at once; errors are raised from the stream."""
        stream = Stream()
        try:
            ids = self._question_ids(question, limit)
        except RequestError as error:
            stream.fail(error)
            return stream

        def prepare() -> tuple[KVCache, list[int]]:
            began = time.monotonic()
            prefix = self._prefix(study, question.region)
            stream.encode_ms = round((time.monotonic() - began) * 1000)
            return prefix, ids

        self._scheduler.submit(Request(stream, adapter, prepare, limit))
        return stream

    def score(self, study: Study, question: Question, text: str, *, adapter: str | None) -> float:
        """Return the mean log-probability of the tokens of `text` as the answer, stop token included."""

        def compute() -> float:
            [answer] = self._log_probabilities(study, question, [text], adapter)
            return float(answer.mean())

        return self._scheduler.call(compute)

    def score_tokens(
        self,
        studies: Sequence[tuple[Hashable, torch.Tensor]],
        question: Question,
        text: str,
        *,
        adapter: str | None,
    ) -> list[float]:
        """Return the mean log-probability of a text as the answer about each of several studies, in one pass.

        Parameters
        ----------
        studies : sequence of (name, tensor)
            The name is that of its prefix in the cache; the visual tokens are of shape (1, T, width).
        question : Question
        text : str
        adapter : str or None
        """

        def compute() -> list[float]:
            with self._using(adapter):
                prefixes = [self._prefix_of_tokens(*study) for study in studies]
                found = self.model.log_probabilities_about(prefixes, question, text)
                return [float(answer.mean()) for answer in found]

        return self._scheduler.call(compute)

    def choose(
        self, study: Study, question: Question, options: Sequence[str], *, adapter: str | None
    ) -> Mapping[str, float]:
        """Return the probability of each option as the answer; they add up to 1.

        An option's probability is that of its spellings together ("yes", "Yes", "yes." and "Yes."), each as
        a complete answer, given that the answer is one of the options.

        Raises
        ------
        RequestError
            If there are fewer than two options, or two that differ in spelling only.
        """
        spellings = {option: _spellings(option) for option in options}
        texts = [text for some in spellings.values() for text in some]
        if len(spellings) < 2 or len(set(texts)) < len(texts):
            raise RequestError(
                f"options: found {len(options)}; expected two or more that differ in more than case and full stop"
            )

        def compute() -> list[float]:
            found = self._log_probabilities(study, question, texts, adapter)
            return [float(answer.sum()) for answer in found]

        totals = torch.tensor(self._scheduler.call(compute)).double().softmax(0)
        parts = totals.split([len(some) for some in spellings.values()])
        return {option: float(part.sum()) for option, part in zip(spellings, parts, strict=True)}

    def tokens(self, study: Study) -> np.ndarray:
        """Return the visual tokens of a study: float32, shape (T, D)."""

        def compute() -> np.ndarray:
            found: np.ndarray = self._encode(study, None)[0].float().cpu().numpy()
            return found

        return self._scheduler.call(compute)

    def embed(self, study: Study) -> np.ndarray:
        """Return the embedding of a study: float32, shape (D,), length 1."""
        return self._scheduler.call(lambda: self.model.embed(self._encode(study, None)))

    def evidence(
        self,
        study: Study,
        question: Question,
        text: str,
        *,
        adapter: str | None,
        before: str = "",
    ) -> Evidence:
        """Return the evidence maps for `text` as the answer, or as its part after `before`."""
        self._question_ids(question, 0, with_evidence=True)
        count = len(self.model.processor.answer_ids(before + text))
        if count > MAX_NEW_TOKENS + 1:
            raise RequestError(
                f"text: found {count} tokens with what comes before; at most {MAX_NEW_TOKENS} fit; send a shorter one"
            )

        def compute() -> Evidence:
            with self._using(adapter):
                return self.model.evidence(study, question, text, before)

        return self._scheduler.call(compute)

    def close(self) -> None:
        """Cancel all answers and forget what is cached."""
        self._scheduler.cancel_all()
        self._scheduler.call(self._encoded.clear)

    def _log_probabilities(
        self, study: Study, question: Question, texts: Sequence[str], adapter: str | None
    ) -> list[torch.Tensor]:
        with self._using(adapter):
            prefix = self._prefix(study, question.region)
            return self.model.log_probabilities(prefix, question, texts)

    def _question_ids(
        self, question: Question, limit: int, with_evidence: bool = False
    ) -> list[int]:
        """Return the token ids of a question with its history; RequestError if they do not fit."""
        ids = self.model.question_ids(question)
        most = MAX_EVIDENCE_TOKENS if with_evidence else MAX_PROMPT_TOKENS
        allowed = min(most, self.model.room - limit)
        if len(ids) > allowed:
            fits = f"at most {allowed:,} fit beside the study and an answer of {limit}"
            raise too_long(question, len(ids), fits)
        return ids

    def _prefix(self, study: Study, region: Box | Plane | None) -> KVCache:
        """Return the KV cache of system prompt and study, which no adapter changes."""
        key = study.digest, region
        prefix = self.prefixes.get(key)
        if prefix is None:
            prefix = self.model.prefill(self._encode(study, region))
            self.prefixes.put(key, prefix)
        return prefix

    def _prefix_of_tokens(self, name: Hashable, tokens: torch.Tensor) -> KVCache:
        prefix = self.prefixes.get(name)
        if prefix is None:
            model = self.model.model
            prefix = self.model.prefill(tokens.to(model.device, model.dtype))
            self.prefixes.put(name, prefix)
        return prefix

    def _encode(self, study: Study, region: Box | Plane | None) -> torch.Tensor:
        key = study.digest, region
        encoded = self._encoded.get(key)
        if encoded is None:
            encoded = self._encoded[key] = self.model.encode(study, region)
        return encoded

    # Adapters ---------------------------------------------------------------------------------

    def use_adapter(self, adapter: str, folder: Path) -> None:
        """Make an adapter available under an id; does nothing if it already is.

        Raises
        ------
        AdapterError
            If it is damaged, does not fit, or does not change the model's probabilities.
        """
        if adapter not in self._folders:
            self._scheduler.call(lambda: self._add(adapter, folder))

    def drop_adapter(self, adapter: str) -> None:
        """Forget an adapter; does nothing if it is unknown."""
        self._folders.pop(adapter, None)

    def _add(self, adapter: str, folder: Path) -> None:
        current = self._loaded
        self._folders[adapter] = folder
        try:
            self._load(adapter)
            self._check_effect(adapter)
        except BaseException:
            self._folders.pop(adapter, None)
            self._load(current)
            raise
        if not self._scheduler.is_idle:
            self._load(current)

    def _check_effect(self, adapter: str) -> None:
        """Raise AdapterError if the loaded adapter leaves the logits of a fixed question as they are."""
        prefix = self._blank
        changed = self.model.question_logits(prefix, _PROBE)
        with self.model.without_adapter():
            unchanged = self.model.question_logits(prefix, _PROBE)
        if not bool(changed.isfinite().all()):
            raise AdapterError(
                f"adapter {adapter}: the model's probabilities are not finite with it; train it again"
            )
        if bool((changed == unchanged).all()):
            raise AdapterError(
                f"adapter {adapter}: does not change the model's probabilities; activate another or train it again"
            )

    @cached_property
    def _blank(self) -> KVCache:
        blank = Study((StudyImage(np.zeros((1, 8, 8), np.uint8), np.eye(4)),))
        return self.model.prefill(self.model.encode(blank))

    @contextmanager
    def _using(self, adapter: str | None) -> Iterator[None]:
        """Use an adapter between two decoding steps; running sequences keep theirs."""
        current = self._loaded
        try:
            self._load(adapter)
            yield
        finally:
            if not self._scheduler.is_idle:
                self._load(current)

    def _load(self, adapter: str | None) -> None:
        folder = None if adapter is None else self._folders.get(adapter)
        if adapter is not None and folder is None:
            raise NotFoundError(f"adapter {adapter}: unknown to the model; ask again")
        if adapter == self._loaded:
            return
        self._loaded = None  # also if the next line fails
        self.model.load_adapter(folder)
        self._loaded = adapter


def _spellings(option: str) -> tuple[str, ...]:
    """Return an option in the ways in which a model may write it, all different."""
    text = option.strip().removesuffix(".")
    if not text:
        raise RequestError("options: one is empty; expected text")
    cased = (text, text[0].upper() + text[1:], text[0].lower() + text[1:])
    return tuple(dict.fromkeys(form + end for form in cased for end in ("", ".")))
