"""The live check: whether a yes or no becomes less or more likely with another picture of the same kind.

The text of the answer is scored about reference pictures of the same modality and body region. A model that gives it
the same probability about all of them does not answer from the picture in front of it. The references of RadFound's
own models are visual tokens that are shipped with them; for other models, and for kinds of picture without a
reference, a blank of the study's own shape takes their place. Scores of the references are kept, so that a
question costs one further pass when it is asked for the first time, and none on the next study of this kind.
"""

from __future__ import annotations

import logging
import math
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cachetools import LRUCache

from radfound.engine.competence import DEFAULT_MOVE
from radfound.engine.confidence import calibration_group, length_normalised_probability
from radfound.engine.generated import Generated
from radfound.engine.instead import Instead
from radfound.engine.stream import Stream, Token
from radfound.exceptions import RadFoundError
from radfound.question import CANNOT_TELL, Question
from radfound.study.study import Study

if TYPE_CHECKING:
    import torch

    from radfound.engine.protocol import Backend
    from radfound.fields.model import FieldModel

logger = logging.getLogger(__name__)

NOT_MOVED = "about other pictures of this kind the model gives the same answer just as surely, so it does not come from this one"
REFERENCES = 8
"""Most references of one kind; a pass over eight costs about as much as the first reading of a study."""
_REMEMBERED = 1024
_YES_NO = re.compile(r"\s*(yes|no)\b", re.I)
_MODALITY, _REGION = "Which imaging modality is this?", "Which body region is shown?"


class References(Protocol):
    """Scores a text about shipped pictures of a kind; see `ShippedReferences`."""

    def scores(
        self, kind: tuple[str, str], question: Question, text: str, adapter: str | None
    ) -> list[float] | None:
        """Return the mean log-probability of a text about each reference; None without references of the kind."""


class TokenScorer(Protocol):
    """What a backend must do to score a text about studies that are given as visual tokens."""

    def score_tokens(
        self,
        studies: Sequence[tuple[Hashable, torch.Tensor]],
        question: Question,
        text: str,
        *,
        adapter: str | None,
    ) -> list[float]:
        """Return the mean log-probability of a text about each of several named studies."""


class ShippedReferences:
    """The studies that are shipped with a checkpoint, by the modality and region that the model gave them.

    Parameters
    ----------
    backend : TokenScorer
    folder : str or Path
        The checkpoint, as `radfound.model.checkpoints.bundled` takes it.
    """

    def __init__(self, backend: TokenScorer, folder: str | Path):
        from radfound.model.checkpoints import REPLAY, bundled

        self._backend = backend
        self._of_kind: dict[tuple[str, str], list[tuple[Hashable, torch.Tensor]]] = defaultdict(
            list
        )
        for number, study in enumerate(bundled(folder, REPLAY)):
            stated = dict(study.pairs)
            kind = stated.get(_MODALITY, ""), stated.get(_REGION, "")
            if all(kind) and len(self._of_kind[kind]) < REFERENCES:
                self._of_kind[kind].append((("reference", number), study.visual[None]))

    def scores(
        self, kind: tuple[str, str], question: Question, text: str, adapter: str | None
    ) -> list[float] | None:
        """Return the mean log-probability of a text about each reference; None without references of the kind."""
        studies = self._of_kind.get(kind)
        if not studies:
            return None
        return self._backend.score_tokens(studies, question, text, adapter=adapter)


@dataclass(frozen=True)
class Move:
    """How an answer depends on the picture.

    Parameters
    ----------
    own : float
        Length-normalised probability of the answer about the study.
    others : tuple of float
        The same about each reference.
    """

    own: float
    others: tuple[float, ...]

    @property
    def most(self) -> float:
        """The largest difference, in [0, 1]."""
        return max((abs(self.own - other) for other in self.others), default=0.0)


class LiveCheck:
    """Finds yes/no answers that do not depend on the picture. Thread-safe.

    Parameters
    ----------
    backend : Backend
        With the ability to score.
    references : References, optional
    fields : FieldModel, optional
        Tells the kind of a study's picture; without it a blank is the reference.
    least_move : float
        Answers whose probability moves less do not depend on the picture.
    """

    def __init__(
        self,
        backend: Backend,
        references: References | None = None,
        fields: FieldModel | None = None,
        least_move: float = DEFAULT_MOVE,
    ):
        self.least_move = least_move
        self._backend, self._references, self._fields = backend, references, fields
        self._known: LRUCache[Hashable, tuple[float, ...]] = LRUCache(_REMEMBERED)
        self._lock = threading.Lock()

    def applies(self, question: Question) -> bool:
        """Whether answers to a question are checked."""
        return calibration_group(question.task, question.text) == "closed"

    def is_checked(self, answer: Generated) -> bool:
        """Whether an answer says yes or no."""
        return bool(_YES_NO.match(answer.text))

    def judge(
        self, study: Study, question: Question, answer: Generated, adapter: str | None
    ) -> Instead | None:
        """Return what to answer in place of a yes or no that does not depend on the picture; None to leave it.

        A check that fails leaves the answer as it is.
        """
        if not self.is_checked(answer):
            return None
        try:
            move = self.move(study, question, answer, adapter)
        except RadFoundError as error:
            logger.warning("the live check of an answer failed: %s", error)
            return None
        return None if move.most >= self.least_move else Instead(CANNOT_TELL, "model", NOT_MOVED)

    def move(
        self, study: Study, question: Question, answer: Generated, adapter: str | None
    ) -> Move:
        """Score an answer about the references; errors as for the backend's `score`."""
        text = answer.text.strip()
        own = length_normalised_probability(answer.log_probabilities or ())
        if own is None:
            own = math.exp(self._backend.score(study, question, text, adapter=adapter))
        return Move(own, self._others(study, question, text, adapter))

    def _others(
        self, study: Study, question: Question, text: str, adapter: str | None
    ) -> tuple[float, ...]:
        """Return the probability of a text about each reference of the study's kind, or about a blank."""
        found = None
        references = self._references
        if references is not None and (kind := self._kind(study)) is not None:
            plain = replace(question, region=None)
            found = self._remembered(
                (kind, plain, text, adapter),
                lambda: references.scores(kind, plain, text, adapter),
            )
        if found is None:
            shapes = tuple(image.voxels.shape for image in study.images)
            found = self._remembered(
                (shapes, question, text, adapter),
                lambda: [self._backend.score(study.blanked(), question, text, adapter=adapter)],
            )
        assert found is not None  # the blank is always scored
        return found

    def _remembered(
        self, key: Hashable, score: Callable[[], list[float] | None]
    ) -> tuple[float, ...] | None:
        with self._lock:
            found = self._known.get(key)
        if found is None and (scores := score()) is not None:
            found = tuple(map(math.exp, scores))
            with self._lock:
                self._known[key] = found
        return found

    def _kind(self, study: Study) -> tuple[str, str] | None:
        if self._fields is None:
            return None
        values = self._fields.reading(study).values
        return (
            (values["modality"], values["region"])
            if {"modality", "region"} <= set(values)
            else None
        )


def checked_stream(tokens: Stream, judge: Callable[[Generated], Instead | None]) -> Stream:
    """Return a stream that holds a yes or no back until the answer is complete and judged.

    Its `instead` is then what takes the place of the text, if anything does. Other answers pass at once.
    """
    checked = Stream(on_cancel=tokens.cancel)
    threading.Thread(target=_check, args=(tokens, checked, judge), daemon=True).start()
    return checked


def _check(tokens: Stream, checked: Stream, judge: Callable[[Generated], Instead | None]) -> None:
    held: list[Token] = []
    is_held = True
    try:
        for token in tokens:
            checked.shown, checked.encode_ms = tokens.shown, tokens.encode_ms
            if not is_held:
                checked.put(token)
                continue
            held.append(token)
            is_held = _may_be_yes_or_no("".join(each.text for each in held))
            if not is_held:
                _release(held, checked)
        if is_held:
            checked.instead = judge(Generated.of(held))
            _release(held, checked)
        checked.end()
    except BaseException as error:
        checked.fail(error)


def _release(tokens: Sequence[Token], stream: Stream) -> None:
    for token in tokens:
        stream.put(token)


def _may_be_yes_or_no(text: str) -> bool:
    """Whether an answer that begins so says yes or no, or may still come to it."""
    begun = text.lstrip().lower()
    return bool(_YES_NO.match(text)) or any(word.startswith(begun) for word in ("yes", "no"))
