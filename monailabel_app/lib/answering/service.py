"""The app's service: answers, corrections and studies, for every route and task."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from radfound.correction import Correction
from radfound.exceptions import (
    Busy,
    Cancelled,
    CorrectionError,
    NotFoundError,
    RadFoundError,
    RequestError,
)
from radfound.question import Answer
from radfound.reading import read_study
from radfound.records.adapters import AdapterStore
from radfound.records.answers import AnswerJournal
from radfound.records.corrections import CorrectionLog
from radfound.records.scores import ScoreBook
from radfound.study.region import Box, Plane
from radfound.study.study import Study
from radfound.wire import AskRequest, parse_ask

from ..lifecycle.quiet import without_progress_bars
from ..metrics import Metrics
from ..studies.datastore import Parts
from ..studies.sessions import StudySessions
from ..studies.uploads import Upload, received
from .priors import check_same_patient, joined
from .shelf import Selection, StudyShelf, version_of

if TYPE_CHECKING:
    from radfound.engine.engine import Engine
    from radfound.model.attribution import Evidence

logger = logging.getLogger(__name__)

T = TypeVar("T")

EVIDENCE_NAME = "evidence.nrrd"

_ANSWER_THREADS = 8
_LOADER_THREADS = 4
_MAX_WAITING = 128
_STOP_GRACE_S = 5.0


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


class RadFoundService:
    """Studies, engine, corrections and adapters of one folder of studies.

    The engine is loaded at the first answer, because MONAI Label also builds the app in every
    training process, which does not need it.

    Parameters
    ----------
    datastore : StudyDatastore
    log : CorrectionLog
    adapters : AdapterStore
    journal : AnswerJournal
    scores : ScoreBook
    checkpoint : str
    device : str, optional
    sessions : StudySessions, optional
        None if MONAI Label's sessions are turned off.
    """

    def __init__(
        self,
        datastore: Any,
        log: CorrectionLog,
        adapters: AdapterStore,
        journal: AnswerJournal,
        scores: ScoreBook,
        *,
        checkpoint: str = "radfound-mini",
        device: str | None = None,
        sessions: StudySessions | None = None,
    ):
        self.datastore = datastore
        self.sessions = sessions
        self.log = log
        self.adapters = adapters
        self.journal = journal
        self.scores = scores
        self.checkpoint = checkpoint
        self.metrics = Metrics()
        self.metrics.watch(self)
        # Own threads, so that answers neither stall the event loop nor exhaust the server's pool.
        # A queued answer holds no thread and does not block the loading of other studies.
        self.readers = ThreadPoolExecutor(_LOADER_THREADS, thread_name_prefix="radfound-load")
        self._answer_pool = ThreadPoolExecutor(
            _ANSWER_THREADS, thread_name_prefix="radfound-answer"
        )
        self._answers: dict[threading.Event, bool] = {}  # cancel event: whether it runs
        self._answers_lock = threading.Lock()
        self._device = device
        self._shelf = StudyShelf()
        self._engine: Engine | None = None
        self._loading = threading.Lock()

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._engine is not None

    def engine(self) -> Engine:
        """Return the engine; the first call loads the model and may raise CheckpointError."""
        with self._loading:
            if self._engine is None:
                from radfound.engine.engine import Engine

                without_progress_bars()
                self._engine = Engine.load(
                    self.checkpoint, adapters=self.adapters, device=self._device
                )
            return self._engine

    def adapter(self) -> tuple[str | None, str | None]:
        """Return the adapter of the next answer and, if it is not the active one, why; never blocks."""
        if self._engine is not None:
            return self._engine.next_adapter()
        try:
            return self.adapters.active(), None
        except RadFoundError as error:
            return None, str(error)

    @property
    def running(self) -> int:
        """Number of answers being generated."""
        with self._answers_lock:
            return sum(self._answers.values())

    @property
    def waiting(self) -> int:
        """Number of queued questions."""
        with self._answers_lock:
            return len(self._answers) - sum(self._answers.values())

    def cache_counts(self) -> dict[tuple[str, str], int]:
        """Return the hits and misses of each cache by (cache, "hit" or "miss")."""
        counts = {("study", "hit"): self._shelf.hits, ("study", "miss"): self._shelf.misses}
        if self._engine is not None:
            prefixes = self._engine.prefixes
            counts |= {("prefix", "hit"): prefixes.hits, ("prefix", "miss"): prefixes.misses}
        return counts

    def close(self) -> None:
        """Start no more answers; cancel the running ones after a grace period."""
        self.readers.shutdown(wait=False, cancel_futures=True)
        self._answer_pool.shutdown(wait=False, cancel_futures=False)
        with self._answers_lock:
            for cancel, has_begun in self._answers.items():
                if not has_begun:
                    cancel.set()
        timer = threading.Timer(_STOP_GRACE_S, self._cancel_all)
        timer.daemon = True
        timer.start()

    def _cancel_all(self) -> None:
        with self._answers_lock:
            for cancel in self._answers:
                cancel.set()

    def begin(self, work: Callable[[], T], cancel: threading.Event) -> Future[T]:
        """Queue an answer for the next free thread.

        Raises
        ------
        Busy
            If the queue is full or the server is stopping.
        """
        with self._answers_lock:
            if len(self._answers) >= _ANSWER_THREADS + _MAX_WAITING:
                raise Busy(f"{_MAX_WAITING} questions wait already; ask again in a while")
            self._answers[cancel] = False

        def run() -> T:
            _check(cancel)
            with self._answers_lock:
                self._answers[cancel] = True
            return work()

        try:
            future = self._answer_pool.submit(run)
        except RuntimeError as error:
            self._forget(cancel)
            raise Busy("the server is stopping; ask again when it is back") from error
        future.add_done_callback(lambda _: self._forget(cancel))
        return future

    def _forget(self, cancel: threading.Event) -> None:
        with self._answers_lock:
            self._answers.pop(cancel, None)

    # Questions --------------------------------------------------------------------------------

    def inquire(
        self,
        task: str,
        params: object,
        *,
        image: str = "",
        session_id: str = "",
        upload: Upload | None = None,
        cancel: threading.Event | None = None,
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
        cancel : threading.Event, optional

        Raises
        ------
        RadFoundError
            RequestError, NotFoundError or what `read_study` raises.
        """
        _check(cancel)
        ask = parse_ask(params)
        selection, prior = _selection(params), _prior(params)
        if task == "vqa" and ask.question is None:
            raise RequestError("question: missing; expected a question in params")
        images = (session_id,) if session_id else _unique(image, ask.images)
        began = time.monotonic()
        self.engine().check(
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

    def stream(
        self, inquiry: Inquiry, cancel: threading.Event | None = None
    ) -> Iterator[str | Answer]:
        """Yield the text piece by piece, then the Answer."""
        ask = inquiry.ask
        pieces = self.engine().stream(
            inquiry.study,
            inquiry.task,
            ask.question if inquiry.task == "vqa" else None,
            history=ask.history,
            region=ask.region,
            max_new_tokens=ask.max_new_tokens,
            cancel=cancel,
        )
        with closing(pieces):  # type: ignore[type-var]
            for piece in pieces:
                if isinstance(piece, Answer):
                    piece = _as_requested(piece, inquiry)
                    self._note(piece, ask.region)
                else:
                    self.metrics.note_token()
                yield piece

    def answer(self, inquiry: Inquiry, cancel: threading.Event | None = None) -> Answer:
        """Return the whole answer."""
        _check(cancel)
        with closing(self.stream(inquiry, cancel)) as pieces:  # type: ignore[type-var]
            for piece in pieces:
                if isinstance(piece, Answer):
                    logger.info("answered: %s in %d ms", piece.task, piece.timings_ms["total"])
                    return piece
        raise RadFoundError("the model stopped without an answer; try again")

    def answer_with_evidence(
        self, inquiry: Inquiry, cancel: threading.Event | None = None
    ) -> tuple[Answer, Evidence]:
        """Return the whole answer and its evidence maps."""
        answer = self.answer(inquiry, cancel)
        _check(cancel)
        began = time.monotonic()
        evidence = self.engine().evidence(
            inquiry.study, answer, history=inquiry.ask.history, region=inquiry.ask.region
        )
        took_ms = round((time.monotonic() - began) * 1000)
        timings = {**answer.timings_ms, "evidence": took_ms}
        return replace(answer, evidence=EVIDENCE_NAME, timings_ms=timings), evidence

    def _note(self, answer: Answer, region: Box | Plane | None) -> None:
        """Record an answer in the journal and the scores; a failure here does not stop the answer."""
        self.metrics.note_answer(answer)
        try:
            self.journal.record(answer, region)
            self.scores.note(answer)
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
        return [self.log.append(correction) for correction in hashed]

    def _check_recordable(self, correction: Correction) -> None:
        for image in correction.images:
            try:
                self.datastore.check_known(image)
            except NotFoundError as error:
                raise CorrectionError(
                    "images: one is not in the datastore, so the correction cannot be trained on; "
                    "upload it first with PUT /datastore/image"
                ) from error
        try:
            known = self.log.get(correction.id)
        except NotFoundError:
            return
        if not known.says_the_same_as(correction):
            raise CorrectionError(
                f"id: a different correction is already recorded as {correction.id}; "
                "give an edit an id of its own"
            )

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


def _selection(params: object) -> Selection:
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


def _check(cancel: threading.Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled("the caller has gone")
