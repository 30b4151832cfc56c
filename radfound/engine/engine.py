"""The engine: answers questions about studies with one model and its adapters."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radfound.engine.confidence import (
    Calibration,
    length_normalised_probability,
    normalised_entropy,
)
from radfound.engine.local.backend import LocalModel, Prompt, StudyModel
from radfound.engine.local.kv_cache import KVCache, PrefixCache
from radfound.engine.local.scheduler import Scheduler
from radfound.engine.local.sequence import Token
from radfound.exceptions import AdapterError, NotFoundError, RadFoundError, RequestError
from radfound.model.attribution import Evidence
from radfound.model.processing_radfound import split_report
from radfound.question import TASKS, Answer, ModelVersion, Turn
from radfound.records.adapters import AdapterStore
from radfound.study.region import Box, Plane, region_from_json
from radfound.study.study import Study
from radfound.wire import MAX_NEW_TOKENS

logger = logging.getLogger(__name__)

_RETRY_S = 60.0
_MAX_FALLBACKS = 4
MAX_PROMPT_TOKENS = 2048
"""Limit for a question with its history; a shorter model context lowers it."""
MAX_EVIDENCE_TOKENS = 256
"""The same with an evidence map, whose backward pass needs as much memory as training."""


@dataclass(frozen=True)
class _Refused:
    """An active adapter that cannot be used."""

    adapter: str
    reason: str
    until: float  # monotonic time of the next attempt: the adapter may have been repaired


_Key = tuple[str, Box | Plane | None]


@dataclass(frozen=True)
class _Start:
    version: ModelVersion
    calibration: Calibration | None
    encode_ms: int


class Engine:
    """Answers questions about studies with the active adapter.

    Thread-safe: requests are decoded in one batch. The adapter is switched once all sequences that started
    with the previous adapter have ended.

    Parameters
    ----------
    model : StudyModel
    adapters : AdapterStore, optional
        The active adapter is looked up here before each answer.
    cached_studies : int
        Number of encoded studies to cache.
    prefix_bytes : int
        Memory limit of the prefix cache (KV caches of studies).
    """

    def __init__(
        self,
        model: StudyModel,
        *,
        adapters: AdapterStore | None = None,
        cached_studies: int = 32,
        prefix_bytes: int = 256 * 2**20,
    ):
        self.model = model
        self._adapters = adapters
        self._adapter: str | None = None
        self._refused: _Refused | None = None
        self._encoded: OrderedDict[_Key, Any] = OrderedDict()
        self._cached_studies = cached_studies
        self.prefixes = PrefixCache(prefix_bytes)
        self._scheduler = Scheduler(model.batch(), self._follow_active_adapter)

    @classmethod
    def load(
        cls,
        checkpoint: str | Path = "radfound-mini",
        *,
        adapters: AdapterStore | None = None,
        device: str | None = None,
    ) -> Engine:
        """Return an engine for a checkpoint, named as for `radfound.model.checkpoints.load`."""
        model = LocalModel.load(checkpoint, device)
        model.tune()
        return cls(model, adapters=adapters)

    @property
    def model_version(self) -> ModelVersion:
        """Model version of the running sequences; if the scheduler is idle, of the next answer."""

        def current() -> ModelVersion:
            self._follow_active_adapter(self._scheduler.is_idle)
            return self._version()

        return self._scheduler.call(current)

    def next_adapter(self) -> tuple[str | None, str | None]:
        """Return the adapter of the next answer and, if it is not the active one, the reason; never blocks."""
        if self._adapters is None:
            return None, None
        try:
            active = self._adapters.active()
        except RadFoundError as error:
            return self._adapter, str(error)
        refused = self._refused
        if refused is not None and refused.adapter == active:
            return self._adapter, refused.reason
        return active, None

    def answer(
        self,
        study: Study,
        task: str = "vqa",
        question: str | None = None,
        *,
        history: Sequence[Turn] = (),
        region: Box | Plane | None = None,
        max_new_tokens: int | None = None,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """Return the answer to a question, or a caption or report.

        Parameters
        ----------
        study : Study
        task : {"vqa", "caption", "report"}
        question : str, needed for "vqa"
        history : sequence of Turn
            Earlier turns about the same study, oldest first.
        region : Box or Plane, optional
            Part of the study that the question is about.
        max_new_tokens : int, optional
            1 to 512; the default is 48 for an answer, 80 for a caption, 160 for a report.
        cancel : threading.Event, optional
            Stops the answer when set.

        Raises
        ------
        RequestError
            If an argument is wrong.
        StudyError
            If the study cannot be used.
        Cancelled
            If `cancel` was set before the answer was complete.
        """
        for piece in self.stream(
            study,
            task,
            question,
            history=history,
            region=region,
            max_new_tokens=max_new_tokens,
            cancel=cancel,
        ):
            if isinstance(piece, Answer):
                return piece
        raise AssertionError("a stream ends with its Answer")

    def stream(
        self,
        study: Study,
        task: str = "vqa",
        question: str | None = None,
        *,
        history: Sequence[Turn] = (),
        region: Box | Plane | None = None,
        max_new_tokens: int | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[str | Answer]:
        """Yield the text in pieces, then the Answer; parameters and errors as for `answer`."""
        limit = _token_limit(task, max_new_tokens)
        region = region_from_json(region)
        prompt = Prompt(task, question, tuple(history))
        question_ids = self._question_ids(prompt, limit)
        began = time.monotonic()
        start: _Start | None = None

        def prepare() -> tuple[KVCache, list[int]]:
            nonlocal start
            ready = time.monotonic()
            prefix = self._prefix(study, region)
            # The calibration was fitted to the base model and does not hold for an adapter.
            calibration = self.model.calibration if self._adapter is None else None
            start = _Start(self._version(), calibration, _since(ready))
            return prefix, question_ids

        tokens: list[Token] = []
        first_ms = 0
        for token in self._scheduler.stream(prepare, limit, cancel):
            tokens.append(token)
            first_ms = first_ms or _since(began)
            if token.text:
                yield token.text
        assert start is not None
        yield _answer(
            study, prompt, tokens, start.version, self.model.vocabulary, start.calibration,
            {"read": 0, "encode": start.encode_ms, "first_token": first_ms, "total": _since(began)},
        )  # fmt: skip

    def check(
        self,
        task: str,
        question: str | None = None,
        *,
        history: Sequence[Turn] = (),
        max_new_tokens: int | None = None,
        images: int = 1,
        evidence: bool = False,
    ) -> None:
        """Raise RequestError if a request exceeds the model's limits, before its study is loaded.

        Parameters
        ----------
        task, question, history, max_new_tokens
            As `answer` takes them.
        images : int
            Number of images in the study.
        evidence : bool
            Whether an evidence map is requested too.
        """
        if images > self.model.max_images:
            raise RequestError(
                f"images: found {images}; the model reads at most {self.model.max_images} at once; choose fewer"
            )
        self._question_ids(
            Prompt(task, question, history), _token_limit(task, max_new_tokens), evidence
        )

    def evidence(
        self,
        study: Study,
        answer: Answer,
        *,
        history: Sequence[Turn] = (),
        region: Box | Plane | None = None,
    ) -> Evidence:
        """Return the evidence maps of an answer, with the adapter that gave the answer.

        Parameters
        ----------
        study : Study
        answer : Answer
            An answer of this engine about that study.
        history, region
            Those of the original question.

        Raises
        ------
        RequestError
            If other base weights gave the answer, or the prompt is too long.
        AdapterError, NotFoundError
            If that adapter can no longer be used.
        """
        if answer.model.revision != self.model.revision:
            raise RequestError(
                f"answer: given by base model {answer.model.revision}, but {self.model.revision} is loaded; "
                "ask again"
            )
        prompt = Prompt(answer.task, answer.question, tuple(history))
        self._question_ids(prompt, 0, with_evidence=True)

        def compute() -> Evidence:
            with self._using_adapter(answer.model.adapter):
                return self.model.evidence(study, region_from_json(region), prompt, answer.text)

        return self._scheduler.call(compute)

    def embed(self, study: Study) -> np.ndarray:
        """Return the embedding of a study: float32, shape (D,), length 1."""
        return self._scheduler.call(
            lambda: self.model.embed(self._encode(_key(study, None), study))
        )

    def _question_ids(
        self, prompt: Prompt, new_tokens: int, with_evidence: bool = False
    ) -> list[int]:
        """Return the token ids of a question with its history; RequestError if they do not fit."""
        ids = self.model.question_ids(prompt)
        most = MAX_EVIDENCE_TOKENS if with_evidence else MAX_PROMPT_TOKENS
        allowed = min(most, self.model.room - new_tokens)
        if len(ids) > allowed:
            part, advice = (
                ("history", "leave out the oldest turns")
                if prompt.history
                else ("question", "shorten it")
            )
            raise RequestError(
                f"{part}: the prompt has {len(ids):,} tokens; at most {allowed:,} fit beside the study "
                f"and an answer of {new_tokens}; {advice}"
            )
        return ids

    def _prefix(self, study: Study, region: Box | Plane | None) -> KVCache:
        key = _key(study, region)
        prefix = self.prefixes.get(key)
        if prefix is None:
            prefix = self.model.prefill(self._encode(key, study, region))
            self.prefixes.put(key, prefix)
        return prefix

    def _encode(self, key: _Key, study: Study, region: Box | Plane | None = None) -> Any:
        if key not in self._encoded:
            self._encoded[key] = self.model.encode(study, region)
            while len(self._encoded) > self._cached_studies:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(key)
        return self._encoded[key]

    def _version(self) -> ModelVersion:
        return ModelVersion(self.model.name, self.model.revision, self._adapter)

    def _follow_active_adapter(self, is_idle: bool) -> bool:
        """Switch to the active adapter once the scheduler is idle; return whether requests may be admitted.

        If the active adapter cannot be used, the previous one stays.
        """
        if self._adapters is None:
            return True
        try:
            active = self._adapters.active()
        except RadFoundError as error:
            logger.error("%s; answering with %s", error, self._adapter or "the base model")
            return True
        if active == self._adapter or self._is_refused(active):
            return True
        if not is_idle:
            return False
        try:
            self._use(active)
        except (AdapterError, NotFoundError) as error:
            assert active is not None
            self._use_former(self._adapters, active)
            self._refused = _Refused(active, str(error), time.monotonic() + _RETRY_S)
            logger.error("%s; answering with %s", error, self._adapter or "the base model")
        return True

    def _is_refused(self, adapter: str | None) -> bool:
        refused = self._refused
        if refused is None or refused.adapter != adapter:
            return False
        return time.monotonic() < refused.until

    def _use_former(self, store: AdapterStore, refused: str) -> None:
        """Use the most recent former adapter that loads, or the base model."""
        former = [name for name in dict.fromkeys(store.former()) if name != refused]
        for adapter in former[:_MAX_FALLBACKS]:
            try:
                return self._use(adapter)
            except (AdapterError, NotFoundError) as error:
                logger.error("%s", error)
        self._use(None)

    def _restore(self, adapter: str | None) -> None:
        try:
            self._use(adapter)
        except (AdapterError, NotFoundError):
            self._use(None)

    @contextmanager
    def _using_adapter(self, adapter: str | None) -> Iterator[None]:
        """Use an adapter between two decoding steps; running sequences keep theirs."""
        current = self._adapter
        if adapter == current:
            yield
            return
        if adapter is not None and self._adapters is None:
            raise NotFoundError(f"adapter {adapter}: this engine has no adapters; ask again")
        try:
            self._use(adapter)
            yield
        finally:
            self._restore(current)

    def _use(self, adapter: str | None) -> None:
        folder = None
        if adapter is not None and self._adapters is not None:
            folder = self._adapters.path(adapter)
            base = self._adapters.manifest(adapter).get("base_revision")
            if base not in (None, self.model.revision):
                raise AdapterError(
                    f"adapter {adapter}: trained on base model {base}, but {self.model.revision} is loaded; train it again"
                )
        self.model.load_adapter(folder)
        self._adapter, self._refused = adapter, None


def _token_limit(task: str, requested: int | None) -> int:
    if requested is None:
        return TASKS.get(task, TASKS["vqa"]).max_new_tokens
    if not 1 <= requested <= MAX_NEW_TOKENS:
        raise RequestError(f"max_new_tokens: found {requested}; expected 1 to {MAX_NEW_TOKENS}")
    return requested


def _key(study: Study, region: Box | Plane | None) -> _Key:
    return study.digest, region


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _answer(
    study: Study,
    prompt: Prompt,
    tokens: list[Token],
    version: ModelVersion,
    vocabulary: int,
    calibration: Calibration | None,
    timings: dict[str, int],
) -> Answer:
    probability = length_normalised_probability([token.log_probability for token in tokens])
    text = "".join(token.text for token in tokens).strip()
    return Answer(
        task=prompt.task,
        images=(study.id,),
        question=prompt.question if prompt.task == "vqa" else None,
        text=text,
        model=version,
        sections=split_report(text) if prompt.task == "report" else None,
        confidence=calibration.confidence(prompt.task, prompt.question, probability)
        if calibration
        else None,
        uncertainty=normalised_entropy([token.entropy for token in tokens], vocabulary),
        timings_ms=timings,
        finished=bool(tokens) and tokens[-1].last,
    )
