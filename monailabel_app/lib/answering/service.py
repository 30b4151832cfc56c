"""The app's service: answers, corrections and studies, for every route and task."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radfound.correction import Correction
from radfound.exceptions import (
    Busy,
    CorrectionError,
    NotFoundError,
    RadFoundError,
    RequestError,
)
from radfound.question import Answer, Question, WorkedExample
from radfound.reading import read_study
from radfound.records.adapters import AdapterStore
from radfound.records.answers import AnswerJournal
from radfound.records.corrections import CorrectionLog
from radfound.records.scores import ScoreBook
from radfound.study.region import Box, Plane
from radfound.study.study import Study
from radfound.teaching.examples import ExamplesGain, worked_examples
from radfound.wire import AskRequest, answer_from_json, parse_ask

from ..metrics import Metrics
from ..studies.datastore import Parts
from ..studies.sessions import StudySessions
from ..studies.uploads import Upload, received
from .features import StudyFeatures
from .models import ServedModels
from .open_answers import OpenAnswer, OpenAnswers
from .priors import check_same_patient, joined
from .shelf import Selection, StudyShelf, version_of
from .shown import ShownPictures
from .taught import applied, recalled

if TYPE_CHECKING:
    from radfound.engine.engine import Engine
    from radfound.study.evidence_map import Evidence
    from radfound.teaching import Teaching

logger = logging.getLogger(__name__)

EVIDENCE_NAME = "evidence.nrrd"

_LOADER_THREADS = 4


@dataclass(frozen=True)
class Inquiry:
    """A validated request and its loaded study.

    Parameters
    ----------
    task : {"vqa", "caption", "report"}
    images : tuple of str
        The caller's ids of the study's images.
    study : Study
    ask : AskRequest
    load_ms, read_ms : int
        Time to load the model and the study.
    parts : Parts or None
        What the study was made from, if it is from the datastore.
    """

    task: str
    images: tuple[str, ...]
    study: Study
    ask: AskRequest
    load_ms: int
    read_ms: int
    parts: Parts | None = None

    @property
    def wants_teaching(self) -> bool:
        """Whether readers' corrections may answer."""
        return self.ask.recall and not self.ask.model_only

    @property
    def question(self) -> Question:
        """The question as a model gets it."""
        text = self.ask.question if self.task == "vqa" else None
        return Question(self.task, text, self.ask.history, self.ask.region)


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
        self.sessions = sessions
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
        self._shelf = StudyShelf()

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
        counts = {("study", "hit"): self._shelf.hits, ("study", "miss"): self._shelf.misses}
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

    def inquire(
        self,
        task: str,
        params: object,
        *,
        image: str = "",
        session_id: str = "",
        upload: Upload | None = None,
    ) -> Inquiry:
        """Check a request and load its study.

        Parameters
        ----------
        task : {"vqa", "caption", "report"}
        params : object
            As received; `images`, `series`, `volume` and `prior` (the id of an earlier study of the
            patient) select what is loaded.
        image : str
            Id in the datastore.
        session_id, upload : str, (file name, content)
            Alternatives to `image`; an upload takes precedence over a session, a session over an image.

        Raises
        ------
        RadFoundError
            RequestError, NotFoundError or what `read_study` raises.
        """
        ask = parse_ask(params)
        selection, prior = selection_of(params), _prior(params)
        if task == "vqa" and ask.question is None:
            raise RequestError("question: missing; expected a question in params")
        images = (session_id,) if session_id else _unique(image, ask.images)
        began = time.monotonic()
        for model in ask.models or (ask.model,):
            self.engine(model).check(
                task,
                ask.question,
                history=ask.history,
                max_new_tokens=ask.max_new_tokens,
                images=len(images) + bool(prior),
                evidence=ask.evidence,
            )
        loaded = time.monotonic()
        parts: Parts | None = None
        if upload is not None:
            study = _read_upload(upload, selection)
            images = (study.id,)
        elif session_id:
            study = self._shelf.get([self._session_path(session_id)], session_id, selection)
        else:
            parts = self.parts(images, selection)
            study = self._shelf.get(parts.paths, images[0], selection)
            if prior:
                study, parts = self._with_prior(study, parts, prior)
        ended = time.monotonic()
        load_ms, read_ms = (round(1000 * seconds) for seconds in (loaded - began, ended - loaded))
        return Inquiry(task, images, study, ask, load_ms, read_ms, parts)

    async def inquire_soon(
        self,
        task: str,
        params: object,
        *,
        image: str = "",
        session_id: str = "",
        upload: Upload | None = None,
    ) -> Inquiry:
        """Do what `inquire` does in a loader's thread; Busy if the server is stopping."""
        try:
            future = self.readers.submit(
                self.inquire, task, params, image=image, session_id=session_id, upload=upload
            )
        except RuntimeError as error:
            raise Busy("the server is stopping; ask again when it is back") from error
        return await asyncio.wrap_future(future)

    def study(self, images: Sequence[str], selection: Selection | None = None) -> Study:
        """Return one study made of images of the datastore, one view each."""
        selection = selection or Selection()
        return self._shelf.get(self.parts(images, selection).paths, images[0], selection)

    def parts(self, images: Sequence[str], selection: Selection) -> Parts:
        """Return the files or folders that make up images of the datastore."""
        if not images:
            raise RequestError("image: missing; expected image, session_id or a file")
        found = [self.datastore.parts(image, selection.series) for image in images]
        return joined(found)

    def _with_prior(self, study: Study, parts: Parts, prior: str) -> tuple[Study, Parts]:
        """Add an earlier study of the patient, whose images are marked as prior."""
        earlier = self.parts((prior,), Selection())
        check_same_patient(parts.paths, earlier.paths)
        images = self._shelf.get(earlier.paths, prior, Selection()).images
        marked = tuple(replace(image, prior=True) for image in images)
        return Study(study.images + marked, id=study.id), joined([parts, earlier])

    def version(self, image: str) -> str:
        """Return a version key of an image's file; the key changes with the file."""
        return repr(version_of(self._image_path(image)))

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
        selection = selection_of(params)
        parts = self.parts(answer.images, selection)
        study = self._shelf.get(parts.paths, answer.images[0], selection)
        if prior := _prior(params):
            study, _ = self._with_prior(study, parts, prior)
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
        """Return corrected studies to show before a question; none unless they were measured to help this model."""
        model = engine.backend.describe()
        question = inquiry.question
        if (
            self.teaching is None
            or not (inquiry.wants_teaching and model.abilities.examples)
            or question.task != "vqa"
            or question.region is not None
            or engine.model_version.adapter is not None  # the base model was measured
        ):
            return ()
        try:
            gain = ExamplesGain.read(self.models.measured(inquiry.ask.model), model.revision)
        except RadFoundError as error:
            logger.warning("no worked examples are shown: %s", error)
            return ()
        if gain is None or not gain.wins:
            return ()
        return worked_examples(
            self.teaching.memory.asked(question),
            inquiry.study,
            self.study,
            self.teaching.features,
            confirm=self.teaching.confirm,
            count=gain.count,
        )

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
            reading = engine.fields.reading(inquiry.study)
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
        """Append corrections to the log, all or none; False for each that is already there.

        A correction without a region takes the region of its answer.

        Raises
        ------
        CorrectionError
            If an image is not in the datastore, or the id belongs to a different correction.
        """
        corrections = [self._with_region(correction) for correction in corrections]
        for correction in corrections:
            self._check_recordable(correction)
        hashed = [self._with_image_hash(correction) for correction in corrections]
        return self.log.extend(hashed)

    def _check_recordable(self, correction: Correction) -> None:
        for image in correction.images:
            try:
                self.datastore.check_known(image)
            except NotFoundError as error:
                raise CorrectionError(
                    "images: one is not in the datastore, so the correction cannot be trained on; "
                    "upload it first with PUT /datastore/image"
                ) from error

    def _with_region(self, correction: Correction) -> Correction:
        if correction.region is not None or correction.answer_id is None:
            return correction
        try:
            return replace(correction, region=self.journal.get(correction.answer_id).region)
        except RadFoundError as error:
            logger.info("a corrected answer is not in the journal: %s", error.code)
            return correction

    def _with_image_hash(self, correction: Correction) -> Correction:
        """Add the hash of the image content; keep the correction even if the image is unreadable."""
        if correction.image_hash is not None:
            return correction
        try:
            return replace(correction, image_hash=self.study(correction.images).digest)
        except RadFoundError as error:
            logger.warning("a correction is recorded without image hash: %s", error.code)
            return correction

    # Paths ------------------------------------------------------------------------------------

    def _image_path(self, image: str) -> Path:
        path: Path = self.datastore.path_of(image)
        return path

    def _session_path(self, session_id: str) -> Path:
        if self.sessions is None:
            raise RequestError("session_id: sessions are turned off on this server")
        return self.sessions.path_of(session_id)


def _read_upload(upload: Upload, selection: Selection) -> Study:
    with received(*upload) as path:
        return read_study(path, series=selection.series, volume=selection.volume)


def selection_of(params: object) -> Selection:
    """Return the series and volume that a request names; RequestError if they are of the wrong kind."""
    series = params.get("series") if isinstance(params, Mapping) else None
    volume = params.get("volume") if isinstance(params, Mapping) else None
    if series is not None and not isinstance(series, str):
        raise RequestError("series: expected text, a series number or instance UID")
    if volume is not None and (isinstance(volume, bool) or not isinstance(volume, int)):
        raise RequestError("volume: expected a whole number, from 0")
    return Selection(series, volume)


def _prior(params: object) -> str:
    prior = params.get("prior") if isinstance(params, Mapping) else None
    if prior is not None and not isinstance(prior, str):
        raise RequestError("prior: expected text, the id of an earlier study of the patient")
    return prior or ""


def _unique(image: str, others: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([image, *others] if image else others))


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
