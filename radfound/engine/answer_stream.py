"""The stream of one answer as callers see it: text, then the Answer with its confidence."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator

from radfound.engine.confidence import (
    Calibration,
    length_normalised_probability,
    normalised_entropy,
)
from radfound.engine.generated import Generated
from radfound.engine.instead import Instead
from radfound.engine.shown import Shown
from radfound.engine.stream import Stream, Token
from radfound.exceptions import AdapterError, NotFoundError
from radfound.question import Answer, ModelVersion, Question, ShownSlices, split_report
from radfound.study.study import Study

_POLL_S = 0.1
_UNNAMED_PRIOR = "the earlier study was shown too, but this model is not told which of the two is the earlier one"


class AnswerStream:
    """Text of one answer in pieces, then the Answer, for `for` or `async for`.

    An answer that nobody waits for any more, because its stream is cancelled, closed or forgotten, ends.

    Parameters
    ----------
    tokens : Stream
    study : Study
    question : Question
    model : ModelVersion
    vocabulary : int or None
        Scales the entropy.
    calibration : Calibration or None
    cancel : threading.Event, optional
        Cancels the stream when set.
    on_lost : callable, optional
        Called if the backend can no longer use the answer's adapter.
    instead : Instead, optional
        Takes the place of the model's text; it comes as one piece. So does what a checked stream puts in its place.
    no_confidence : str, optional
        Reason of an answer to a question that the calibration gives no confidence.
    """

    def __init__(
        self,
        tokens: Stream,
        study: Study,
        question: Question,
        model: ModelVersion,
        vocabulary: int | None,
        calibration: Calibration | None,
        cancel: threading.Event | None = None,
        on_lost: Callable[[], None] | None = None,
        instead: Instead | None = None,
        no_confidence: str | None = None,
    ):
        self._stream, self._given = tokens, instead
        self._no_confidence = no_confidence
        self._is_told = False  # whether the text instead was given as a piece
        self._study, self._question, self._model = study, question, model
        self._vocabulary, self._calibration = vocabulary, calibration
        self._on_lost = on_lost
        self._began, self._first_ms = time.monotonic(), 0
        self._tokens: list[Token] = []
        self._next = iter(tokens)
        self._next_async = aiter(tokens)
        self._has_ended = False
        self._forgotten = weakref.finalize(self, tokens.cancel)
        self._forgotten.atexit = False
        if cancel is not None:
            watch = threading.Thread(
                target=_cancel_when_set, args=(cancel, weakref.ref(self)), daemon=True
            )
            watch.start()

    @property
    def shown(self) -> Shown | None:
        """What the model was shown, from the first token on; None if it has no recipe."""
        return self._stream.shown

    @property
    def _instead(self) -> Instead | None:
        return self._given or self._stream.instead

    @property
    def has_begun(self) -> bool:
        """Whether the first token has arrived."""
        return bool(self._tokens)

    @property
    def has_ended(self) -> bool:
        """Whether the Answer has been returned, or the stream was cancelled or failed."""
        return self._has_ended

    def cancel(self) -> None:
        """Stop the answer, from any thread; a caller that waits for the next piece gets Cancelled."""
        self._stream.cancel()

    def close(self) -> None:
        """Stop the answer; the stream then has no more pieces."""
        self._has_ended = True
        self._stream.cancel()

    def __iter__(self) -> Iterator[str | Answer]:
        return self

    def __next__(self) -> str | Answer:
        while not self._has_ended:
            try:
                token = next(self._next, None)
            except BaseException as error:
                self._fail(error)
                raise
            if piece := self._take(token):
                return piece
        raise StopIteration

    def __aiter__(self) -> AsyncIterator[str | Answer]:
        return self

    async def __anext__(self) -> str | Answer:
        while not self._has_ended:
            try:
                token = await anext(self._next_async, None)
            except BaseException as error:
                self._fail(error)
                raise
            if piece := self._take(token):
                return piece
        raise StopAsyncIteration

    def _fail(self, error: BaseException) -> None:
        self._has_ended = True
        if isinstance(error, (AdapterError, NotFoundError)) and self._on_lost is not None:
            self._on_lost()

    def _take(self, token: Token | None) -> str | Answer:
        """Return the text of a token, or the Answer at the end."""
        if token is None:
            if self._instead and not self._is_told:
                self._is_told = True
                return self._instead.text
            self._has_ended = True
            return self._answer()
        self._tokens.append(token)
        self._first_ms = self._first_ms or self._since_began()
        return "" if self._instead else token.text

    def _answer(self) -> Answer:
        question, generated = self._question, Generated.of(self._tokens)
        text = generated.text.strip()
        probability = length_normalised_probability(generated.log_probabilities or ())
        confidence = (
            self._calibration.confidence(question.task, question.text, probability)
            if self._calibration
            else None
        )
        answer = Answer(
            task=question.task,
            images=(self._study.id,),
            question=question.text if question.task == "vqa" else None,
            text=text,
            model=self._model,
            sections=split_report(text) if question.task == "report" else None,
            confidence=confidence,
            reason=self._reason(confidence),
            uncertainty=normalised_entropy(generated.entropies or (), self._vocabulary)
            if self._vocabulary
            else None,
            timings_ms={
                "read": 0,
                "encode": self._stream.encode_ms,
                "first_token": self._first_ms,
                "total": self._since_began(),
            },
            finished=generated.complete,
            shown=_slices(self._stream.shown),
        )
        return self._instead.of(answer) if self._instead else answer

    def _reason(self, confidence: float | None) -> str | None:
        """Return what is to be said about the model's own text."""
        # Recipes name the prior study in the prompt; a backend without one cannot.
        is_unnamed = self._study.has_prior and self._stream.shown is None
        lacks = confidence is None and self._question.task == "vqa"
        remarks = (_UNNAMED_PRIOR if is_unnamed else None, self._no_confidence if lacks else None)
        return "; ".join(filter(None, remarks)) or None

    def _since_began(self) -> int:
        return round((time.monotonic() - self._began) * 1000)


def _slices(shown: Shown | None) -> ShownSlices | None:
    if shown is None:
        return None
    captions = [picture.caption for picture in shown.pictures]
    return {"recipe": shown.recipe, "note": shown.note, "slices": captions}


def _cancel_when_set(cancel: threading.Event, stream: weakref.ref[AnswerStream]) -> None:
    while not cancel.wait(_POLL_S):
        found = stream()
        if found is None or found.has_ended:
            return
        del found  # so that a stream that is forgotten ends
    found = stream()
    if found is not None:
        found.cancel()
