"""The app's service: answers, corrections and studies, for every route and task."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from radfound.correction import Correction
from radfound.exceptions import Busy, RadFoundError, RequestError
from radfound.question import Answer, WorkedExample
from radfound.records.adapters import AdapterStore
from radfound.records.answers import AnswerJournal
from radfound.records.corrections import CorrectionLog
from radfound.records.scores import ScoreBook
from radfound.study.region import Box, Plane
from radfound.study.study import Study
from radfound.wire import answer_from_json, parse_ask

from ..metrics import Metrics
from ..studies.datastore import Parts
from ..studies.sessions import StudySessions
from .features import StudyFeatures
from .inquiry import Inquiry, Place, Source
from .loading import ServedStudies
from .models import ServedModels
from .open_answers import OpenAnswer, OpenAnswers
from .recording import record
from .shown import ShownPictures
from .taught import applied, examples_for, recalled

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from radfound.engine.engine import Engine
    from radfound.study.evidence_map import Evidence
    from radfound.teaching import Teaching

logger = logging.getLogger(__name__)

EVIDENCE_NAME = "evidence.nrrd"

_LOADER_THREADS = 4


class RadFoundService:
    """Studies, models, corrections and adapters of one folder of studies.

    Parameters
    ----------
    datastore : StudyDatastore
    log : CorrectionLog
    models : ServedModels
    journal : AnswerJournal
    scores : ScoreBook
    sessions : StudySessions, optional
        None if MONAI Label's sessions are turned off.
    teaching : Teaching, optional
        Applies corrections to answers before any training.
    features : StudyFeatures, optional
        What teaching knows of each study.
    """

    def __init__(
        self,
        datastore: Any,
        log: CorrectionLog,
        models: ServedModels,
        journal: AnswerJournal,
        scores: ScoreBook,
        *,
        sessions: StudySessions | None = None,
        teaching: Teaching | None = None,
        features: StudyFeatures | None = None,
    ):
        self.datastore = datastore
        self.studies = ServedStudies(datastore, sessions)
        self.teaching = teaching
        self.features = features or StudyFeatures(log.path.parent / "features")
        self.log = log
        self.models = models
        self.journal = journal
        self.scores = scores
        self.metrics = Metrics()
        self.metrics.watch(self)
        # Own threads, so that loading a study neither stalls the event loop nor exhausts the server's pool.
        self.readers = ThreadPoolExecutor(_LOADER_THREADS, thread_name_prefix="radfound-load")
        self.open_answers = OpenAnswers()
        self.shown = ShownPictures()

    @property
    def is_loaded(self) -> bool:
        """Whether a model is in memory."""
        return bool(self.models.loaded())

    def engine(self, model: str | None = None) -> Engine:
        """Return the engine of a model; the first call loads it and may raise CheckpointError."""
        return self.models.engine(model)

    @property
    def adapters(self) -> AdapterStore:
        """The adapters of the default model."""
        return self.models.adapters()

    @property
    def running(self) -> int:
        """Number of answers being generated."""
        return self.open_answers.running

    @property
    def waiting(self) -> int:
        """Number of queued questions."""
        return self.open_answers.waiting

    def cache_counts(self) -> dict[tuple[str, str], int]:
        """Return the hits and misses of each cache by (cache, "hit" or "miss")."""
        shelf = self.studies.shelf
        counts = {("study", "hit"): shelf.hits, ("study", "miss"): shelf.misses}
        # Models in this process have a prefix cache here; servers of models count their own.
        for engine in self.models.loaded().values():
            prefixes = getattr(engine.backend, "prefixes", None)
            if prefixes is not None:
                counts[("prefix", "hit")] = counts.get(("prefix", "hit"), 0) + prefixes.hits
                counts[("prefix", "miss")] = counts.get(("prefix", "miss"), 0) + prefixes.misses
        return counts

    def close(self) -> None:
        """Start no more answers; cancel the running ones after a grace period."""
        self.readers.shutdown(wait=False, cancel_futures=True)
        self.open_answers.stop()

    # Questions --------------------------------------------------------------------------------

    def inquire(self, task: str, params: object, **place: Unpack[Place]) -> Inquiry:
        """Check a request and load its study.

        Parameters
        ----------
        task : {"vqa", "caption", "report"}
        params : object
            As received; `images`, `series`, `volume` and `prior` (the id of an earlier study of the
            patient) select what is loaded.
        image, session_id, upload
            See `Place`.

        Raises
        ------
        RadFoundError
            RequestError, NotFoundError or what `read_study` raises.
        """
        ask = parse_ask(params)
        source = Source.of(params, ask.images, place)
        if task == "vqa" and ask.question is None:
            raise RequestError("question: missing; expected a question in params")
        began = time.monotonic()
        for model in ask.models or (ask.model,):
            self.engine(model).check(
                task,
                ask.question,
                history=ask.history,
                max_new_tokens=ask.max_new_tokens,
                images=source.count,
                evidence=ask.evidence,
            )
        loaded = time.monotonic()
        found = self.studies.load(source)
        ended = time.monotonic()
        load_ms, read_ms = (round(1000 * seconds) for seconds in (loaded - began, ended - loaded))
        return Inquiry(task, found.images, found.study, ask, load_ms, read_ms, found.parts)

    async def inquire_soon(self, task: str, params: object, **place: Unpack[Place]) -> Inquiry:
        """Do what `inquire` does in a loader's thread; Busy if the server is stopping."""
        try:
            future = self.readers.submit(partial(self.inquire, task, params, **place))
        except RuntimeError as error:
            raise Busy("the server is stopping; ask again when it is back") from error
        return await asyncio.wrap_future(future)

    # Answers ----------------------------------------------------------------------------------

    def answer(self, inquiry: Inquiry) -> Answer:
        """Return the whole answer; blocks the calling thread."""
        answer = self.open_answers.open()
        try:
            self._start(answer, inquiry)
            for piece in answer.stream:
                if isinstance(piece, Answer):
                    return self._finished(piece, inquiry, answer)
                self.metrics.note_token()
        finally:
            self.open_answers.close(answer)
        raise AssertionError("a stream ends with its Answer")

    async def begin(self, inquiry: Inquiry) -> OpenAnswer:
        """Queue a question; `pieces` yields its answer.

        Raises
        ------
        Busy
            If the queue is full or the server is stopping.
        """
        answer = self.open_answers.open()
        try:
            # In a thread: a new adapter may have to be loaded, or the hash of a large volume computed.
            await asyncio.to_thread(self._start, answer, inquiry)
        except BaseException:
            self.open_answers.close(answer)
            raise
        return answer

    async def pieces(
        self, answer: OpenAnswer, inquiry: Inquiry
    ) -> AsyncGenerator[str | Answer, None]:
        """Yield the text piece by piece, then the Answer; closing the iterator cancels the answer."""
        try:
            async for piece in answer.stream:
                if isinstance(piece, Answer):
                    piece = await asyncio.to_thread(self._finished, piece, inquiry, answer)
                else:
                    self.metrics.note_token()
                yield piece
        finally:
            self.open_answers.close(answer)

    async def answer_soon(self, inquiry: Inquiry) -> Answer:
        """Return the whole answer without blocking a thread."""
        async for piece in self.pieces(await self.begin(inquiry), inquiry):
            if isinstance(piece, Answer):
                return piece
        raise AssertionError("a stream ends with its Answer")

    async def answer_with_evidence(self, inquiry: Inquiry) -> tuple[Answer, Evidence | None]:
        """Return the whole answer and its evidence maps; None if it has none of its own."""
        answer = await self.answer_soon(inquiry)
        if answer.evidence_note:
            return answer, None
        began = time.monotonic()
        evidence = await asyncio.to_thread(
            self.engine(inquiry.ask.model).evidence,
            inquiry.study,
            answer,
            history=inquiry.ask.history,
            region=inquiry.ask.region,
        )
        took_ms = round((time.monotonic() - began) * 1000)
        timings = {**answer.timings_ms, "evidence": took_ms}
        return replace(answer, evidence=EVIDENCE_NAME, timings_ms=timings), evidence

    def explain(self, params: Mapping[str, Any]) -> tuple[Study, Evidence]:
        """Return the study of an answer and the language model's evidence maps of it, or of a given text.

        Parameters
        ----------
        params : mapping
            "answer", and if wanted "text", a sentence of it; "history", "region", "series", "volume" and "prior"
            as in its question.

        Raises
        ------
        RadFoundError
            RequestError, NotFoundError, what `read_study` and `Engine.evidence` raise.
        """
        answer = answer_from_json(params.get("answer"))
        text = params.get("text")
        if text is not None and not isinstance(text, str):
            raise RequestError("text: expected a sentence of the answer")
        ask = parse_ask({key: params[key] for key in ("history", "region") if key in params})
        engine = self.models.engine_of(answer.model)
        study = self.studies.load(Source.of(params, answer.images)).study
        return study, engine.evidence(
            study, answer, text=text, history=ask.history, region=ask.region
        )

    def _start(self, answer: OpenAnswer, inquiry: Inquiry) -> None:
        ask, question = inquiry.ask, inquiry.question
        engine = answer.hold(self.models.use(ask.model))
        if self.teaching is not None and inquiry.wants_teaching:
            found = recalled(
                self.teaching, inquiry.study, inquiry.images, question, engine.model_version
            )
            if found is not None:
                answer.stream = found
                return
        answer.stream = engine.stream(
            inquiry.study,
            inquiry.task,
            question.text,
            history=ask.history,
            region=ask.region,
            max_new_tokens=ask.max_new_tokens,
            model_only=ask.model_only,
            examples=self._examples(engine, inquiry),
        )

    def _examples(self, engine: Engine, inquiry: Inquiry) -> tuple[WorkedExample, ...]:
        if self.teaching is None:
            return ()
        measured = self.models.measured(inquiry.ask.model)
        return examples_for(self.teaching, engine, inquiry, measured, self.studies.get)

    def _finished(self, answer: Answer, inquiry: Inquiry, source: OpenAnswer) -> Answer:
        """Return an answer as the caller gets it, and record it."""
        is_own = answer.source in ("model", "field")
        if self.teaching is not None and is_own and inquiry.wants_teaching:
            if self.teaching.takes_features(inquiry.question):
                self._keep_features(inquiry)
            answer = self._taught(answer, inquiry)
        with suppress(RuntimeError):  # the server is stopping
            self.readers.submit(self._keep_features, inquiry)
        answer = _as_requested(answer, inquiry)
        self.shown.keep(answer.id, source.stream.shown)
        logger.info("answered: %s in %d ms", answer.task, answer.timings_ms["total"])
        self._note(answer, inquiry.ask.region)
        return answer

    def _keep_features(self, inquiry: Inquiry) -> None:
        """Keep what is known of a study without the language model, for heads and wording."""
        try:
            engine = self.engine(inquiry.ask.model)
            if engine.fields is None:
                return
            reading = engine.fields.reading(inquiry.study.present)
            self.features.keep(
                inquiry.study.digest, reading.vector, reading.values, reading.all_chances
            )
        except RadFoundError as error:
            logger.info("the features of a study are not kept: %s", error.code)

    def _taught(self, answer: Answer, inquiry: Inquiry) -> Answer:
        """Apply what corrections of other studies teach: a head's answer, or the department's wording."""
        assert self.teaching is not None
        found = self.teaching.after_answer(
            inquiry.study.digest, inquiry.images, inquiry.question, answer.text
        )
        return answer if found is None else applied(answer, found)

    def _note(self, answer: Answer, region: Box | Plane | None) -> None:
        """Record an answer in the journal and the scores; a failure here does not stop the answer."""
        self.metrics.note_answer(answer)
        try:
            self.journal.record(answer, region)
            self.scores.record_uncertainty(answer)
        except RadFoundError as error:
            logger.warning("an answer is not on record: %s", error)

    # Corrections ------------------------------------------------------------------------------

    def record(self, corrections: Sequence[Correction]) -> list[bool]:
        """Append corrections to the log, all or none; see `recording.record`."""
        return record(corrections, self.log, self.journal, self.studies)


def _as_requested(answer: Answer, inquiry: Inquiry) -> Answer:
    """Return an answer with the caller's image ids and with times since the request began."""
    timings = dict(answer.timings_ms)
    timings["read"] = inquiry.read_ms
    for key in ("first_token", "total"):
        timings[key] = timings.get(key, 0) + inquiry.load_ms + inquiry.read_ms
    parts = inquiry.parts or Parts(())
    return replace(
        answer,
        images=inquiry.images,
        timings_ms=timings,
        series=parts.series,
        series_rule=parts.rule,
    )
