"""The engine: answers questions about studies with one backend and its adapters."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radfound.engine.active_adapter import ActiveAdapter
from radfound.engine.answer_stream import AnswerStream
from radfound.engine.competence import DEFAULT_MOVE, Competence
from radfound.engine.confidence import Calibration
from radfound.engine.instead import Instead
from radfound.engine.protocol import Backend
from radfound.engine.silence.live import LiveCheck, ShippedReferences, checked_stream
from radfound.engine.stream import ended_stream
from radfound.exceptions import RequestError
from radfound.question import (
    CANNOT_TELL,
    IN_THE_FILE,
    TASKS,
    Answer,
    ModelVersion,
    Question,
    Turn,
    WorkedExample,
)
from radfound.records.adapters import AdapterStore
from radfound.study.evidence_map import Evidence
from radfound.study.region import Box, Plane, region_from_json
from radfound.study.study import Study
from radfound.wire import MAX_NEW_TOKENS

if TYPE_CHECKING:
    from radfound.fields.model import FieldModel

_NOT_SEEN = "on held-out questions of this kind its answers did not depend on the picture"
_OF_THE_PRESENT = "about the present study alone"
_NO_CONFIDENCE = "no confidence: too few answers to such questions could be checked when this adapter was trained"


class Engine:
    """Answers questions about studies with the active adapter. Thread-safe.

    Parameters
    ----------
    backend : Backend
    adapters : AdapterStore, optional
        The active adapter is looked up here before each answer.
    calibration : Calibration, optional
        Of the base model's probabilities; an adapter has its own in its folder.
    name : str
        The model's name in answers; the backend's own if empty.
    fields : FieldModel, optional
        Answers what can be seen without a language model; see `_instead`.
    free_text : bool
        Whether the language model writes captions and reports although `fields` could.
    competence : Competence, optional
        Which kinds of question the base model answers by looking.
    live : LiveCheck, optional
        Checks the yes/no answers that are left to the model.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        adapters: AdapterStore | None = None,
        calibration: Calibration | None = None,
        name: str = "",
        fields: FieldModel | None = None,
        free_text: bool = False,
        competence: Competence | None = None,
        live: LiveCheck | None = None,
    ):
        self.backend = backend
        self._name = name
        self.fields, self._free_text = fields, free_text
        self._competence, self._live = competence, live
        self.calibration = calibration
        self._adapters = ActiveAdapter(backend, adapters)

    @classmethod
    def load(
        cls,
        checkpoint: str | Path = "radfound-mini",
        *,
        adapters: AdapterStore | None = None,
        device: str | None = None,
        name: str = "",
        free_text: bool = False,
    ) -> Engine:
        """Return an engine for a checkpoint, named as for `radfound.model.checkpoints.load`."""
        from radfound.engine.local.backend import LocalBackend
        from radfound.model.checkpoints import shipped_folder

        backend = LocalBackend.load(checkpoint, device)
        revision = backend.describe().revision
        calibration = Calibration.read(shipped_folder(checkpoint), revision)
        competence = Competence.read(shipped_folder(checkpoint), revision)
        fields = load_fields(shipped_folder(checkpoint))
        return cls(
            backend,
            adapters=adapters,
            calibration=calibration,
            name=name,
            fields=fields,
            free_text=free_text,
            competence=competence,
            live=LiveCheck(
                backend,
                ShippedReferences(backend, checkpoint),
                fields,
                competence.least_move if competence else DEFAULT_MOVE,
            ),
        )

    @property
    def model_version(self) -> ModelVersion:
        """Model version of the next answer."""
        return self._version(self._adapters.current())

    def next_adapter(self) -> tuple[str | None, str | None]:
        """Return the adapter of the next answer and, if it is not the active one, the reason; never blocks."""
        return self._adapters.next()

    # Answers ----------------------------------------------------------------------------------

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
        model_only: bool = False,
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
        model_only : bool
            Whether the language model answers by itself, although classifiers could or it was measured not to see.

        Raises
        ------
        RequestError
            If an argument is wrong.
        StudyError
            If the study cannot be used.
        Cancelled
            If `cancel` was set before the answer was complete.
        """
        stream = self.stream(
            study,
            task,
            question,
            history=history,
            region=region,
            max_new_tokens=max_new_tokens,
            cancel=cancel,
            model_only=model_only,
        )
        *_, answer = stream
        assert isinstance(answer, Answer)
        return answer

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
        model_only: bool = False,
        examples: Sequence[WorkedExample] = (),
    ) -> AnswerStream:
        """Queue a question and return the stream of its text, which ends with the Answer.

        Iterate over it with `for` or `async for`; parameters and errors as for `answer`. `examples` are shown before
        the study by backends that can.
        """
        limit = _token_limit(task, max_new_tokens)
        asked = Question(task, question, tuple(history), region_from_json(region), tuple(examples))
        adapter = self._adapters.current()
        instead, is_asked = (None, True) if model_only else self._instead(study, asked)
        tokens = ended_stream()
        if is_asked:
            tokens = self.backend.stream(study, asked, adapter=adapter, limit=limit)
            live = None if model_only or instead else self._live
            if live is not None and live.applies(asked):
                judge = partial(live.judge, study, asked, adapter=adapter)
                tokens = checked_stream(tokens, judge)
        return AnswerStream(
            tokens,
            study,
            asked,
            self._version(adapter),
            self.backend.describe().vocabulary,
            # The base model's calibration does not hold for an adapter, which has its own.
            self.calibration if adapter is None else self._adapters.calibration(adapter),
            cancel,
            None if adapter is None else partial(self._adapters.forget, adapter),
            instead,
            None if adapter is None else _NO_CONFIDENCE,
        )

    def _instead(self, study: Study, question: Question) -> tuple[Instead | None, bool]:
        """Return what is answered in place of the model's text, and whether the model is asked at all.

        Classifiers answer the questions that they are better at, and write captions and reports. Where neither
        they nor the model see what is asked, the answer says so, and the model's guess is kept beside it. This
        holds with an adapter too: corrections teach words, and no sight.
        """
        if question.task != "vqa" and self._free_text:
            return None, True
        found = self.fields.answer(study.present, question) if self.fields else None
        if found is not None:
            alone = _OF_THE_PRESENT if study.has_prior else None
            reason = found.reason or (IN_THE_FILE if found.source == "file" else alone)
            return Instead(found.text, "field", reason, found.confidence), found.silent
        if self._competence is None or self._competence.looks(question.task, question.text):
            return None, True
        return Instead(CANNOT_TELL, "model", _NOT_SEEN), True

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
        self.backend.check(
            Question(task, question, tuple(history)),
            _token_limit(task, max_new_tokens),
            images=images,
            evidence=evidence,
        )

    def evidence(
        self,
        study: Study,
        answer: Answer,
        *,
        text: str | None = None,
        history: Sequence[Turn] = (),
        region: Box | Plane | None = None,
    ) -> Evidence:
        """Return the language model's evidence maps of an answer, with the adapter that gave the answer.

        They are the language model's also where the answer is not; `Answer.evidence_note` says so.

        Parameters
        ----------
        study : Study
        answer : Answer
            An answer of this engine about that study.
        text : str, optional
            A part of the answer, such as a sentence of a report, or another text: the maps are then of this
            text, given what comes before it in the answer.
        history, region
            Those of the original question.

        Raises
        ------
        RequestError
            If the answer says that the model cannot tell, other base weights gave it, the prompt or the text is
            too long, the text is empty, or the model has no evidence maps.
        AdapterError, NotFoundError
            If that adapter can no longer be used.
        """
        if answer.text == CANNOT_TELL:
            raise RequestError(f"evidence: {answer.evidence_note}")
        if text is not None and not text.strip():
            raise RequestError("text: empty; expected a sentence of the answer, or leave it out")
        revision = self.backend.describe().revision
        if answer.model.revision != revision:
            raise RequestError(
                f"answer: given by base model {answer.model.revision}, but {revision} is loaded; ask again"
            )
        adapter = answer.model.adapter
        if adapter is not None:
            self._adapters.make_available(adapter)
        question = Question(answer.task, answer.question, tuple(history), region_from_json(region))
        before, _, _ = answer.text.partition(text) if text and text in answer.text else ("", "", "")
        return self.backend.evidence(
            study, question, text or answer.text, adapter=adapter, before=before
        )

    def embed(self, study: Study) -> np.ndarray:
        """Return the embedding of a study: float32, shape (D,), length 1."""
        return self.backend.embed(study)

    def close(self) -> None:
        """Cancel all answers and release the model."""
        self.backend.close()

    def _version(self, adapter: str | None) -> ModelVersion:
        model = self.backend.describe()
        return ModelVersion(self._name or model.name, model.revision, adapter)


def load_fields(folder: Path) -> FieldModel | None:
    """Return the classifiers beside a checkpoint; None if it has none."""
    from radfound.fields.files import JSON_FILE
    from radfound.fields.model import FieldModel

    return FieldModel.load(folder) if (folder / JSON_FILE).is_file() else None


def _token_limit(task: str, requested: int | None) -> int:
    if requested is None:
        return TASKS.get(task, TASKS["vqa"]).max_new_tokens
    if not 1 <= requested <= MAX_NEW_TOKENS:
        raise RequestError(f"max_new_tokens: found {requested}; expected 1 to {MAX_NEW_TOKENS}")
    return requested
