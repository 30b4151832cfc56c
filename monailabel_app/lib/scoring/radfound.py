"""How uncertain the model is about each study, as a scoring method of MONAI Label."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod

from radfound.correction import MAX_QUESTION_CHARS
from radfound.exceptions import RadFoundError, RequestError

from ..answering.service import RadFoundService
from ..lifecycle.quiet import without_progress_bars

logger = logging.getLogger(__name__)

QUESTIONS = (
    "Is this study normal?",
    "What is the most important finding?",
    "Which organ is abnormal?",
)
_NEW_TOKENS = 24
_SKIPPED_NAMED = 10
_MOST_QUESTIONS = 16


class RadFoundScoring(ScoringMethod):
    """Asks standard questions about each study that the model has not answered about.

    MONAI Label runs it in a process of its own. Each score is kept as soon as it is there, so a run
    that is stopped is not lost, and the next one goes on. The last line of its output, which
    `GET /scoring/` shows, is what it returns, as JSON.

    Parameters
    ----------
    service : RadFoundService
    """

    def __init__(self, service: RadFoundService):
        super().__init__(
            "Uncertainty about standard questions, and embedding, of each unread study"
        )
        self._service = service

    def check(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings in a request; RequestError names one that is wrong."""
        checks = {"questions": _questions, "limit": _limit}
        return {key: check(request[key]) for key, check in checks.items() if key in request}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score the studies that have no score of the active model yet.

        Parameters
        ----------
        request : mapping
            "questions" (list of text) and "limit" (of studies), both optional.
        datastore : Datastore

        Returns
        -------
        dict
            "scored", "known" and "unreadable" (counts), and "skipped": what could not be read, why.
        """
        questions, limit = _questions(request.get("questions")), _limit(request.get("limit"))
        without_progress_bars()
        model = self._service.engine().model_version
        scores, corrected = self._service.scores, self._service.log.images()
        judged, placed = scores.judged(model), scores.placed(model)
        images = sorted(datastore.list_images())
        # Corrected studies need a place, to measure the others against, and no new answers.
        missing = [
            each for each in images if each not in placed or each not in (judged | corrected)
        ]
        skipped: list[dict[str, str]] = []
        for number, image in enumerate(missing[:limit], start=1):
            try:
                self._score(image, () if image in judged | corrected else questions)
            except RadFoundError as error:
                skipped.append({"id": image, "reason": str(error)})
            logger.info("scored %d of %d studies", number, len(missing[:limit]))
        report = {
            "scored": len(missing[:limit]) - len(skipped),
            "known": len(images) - len(missing),
            "unreadable": len(skipped),
            "skipped": skipped[:_SKIPPED_NAMED],
        }
        logger.info("scoring %s", json.dumps(report))
        return report

    def _score(self, image: str, questions: tuple[str, ...]) -> None:
        study, engine = self._service.study([image]), self._service.engine()
        self._service.scores.place(image, engine.model_version, engine.embed(study))
        for question in questions:
            answer = engine.answer(study, "vqa", question, max_new_tokens=_NEW_TOKENS)
            self._service.scores.note(answer)


def _questions(value: object) -> tuple[str, ...]:
    if value is None:
        return QUESTIONS
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= _MOST_QUESTIONS:
        raise RequestError(f"questions: expected a list of 1 to {_MOST_QUESTIONS} questions")
    if not all(
        isinstance(each, str) and each.strip() and len(each) <= MAX_QUESTION_CHARS for each in value
    ):
        raise RequestError(
            f"questions: expected text of at most {MAX_QUESTION_CHARS:,} characters each"
        )
    return tuple(value)


def _limit(value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise RequestError("limit: expected a whole number of studies, from 1")
    return value
