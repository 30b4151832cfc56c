"""MONAI Label scoring method: the model's uncertainty about each study."""

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
    """Asks standard questions about each study that has no answer of the active model yet.

    MONAI Label runs this in a process of its own. Each score is saved at once, so the next run resumes
    after a stopped one. The last line of the output, which `GET /scoring/` returns, is the result as
    JSON.

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
        """Return the settings in a request; RequestError names an invalid one."""
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
            "scored", "known" and "unreadable" (counts), and "skipped": unreadable studies, and why.
        """
        questions, limit = _questions(request.get("questions")), _limit(request.get("limit"))
        without_progress_bars()
        engine = self._service.engine()
        model, can_embed = engine.model_version, engine.backend.describe().abilities.embed
        scores, corrected = self._service.scores, self._service.log.images()
        answered, embedded = scores.answered(model), scores.embedded(model)
        images = sorted(datastore.list_images())
        # Corrected studies need an embedding, as the reference for diversity, but no answers.
        missing = [
            image
            for image in images
            if (can_embed and image not in embedded) or image not in (answered | corrected)
        ]
        skipped: list[dict[str, str]] = []
        for number, image in enumerate(missing[:limit], start=1):
            try:
                self._score(image, () if image in answered | corrected else questions)
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
        study, engine = self._service.studies.get([image]), self._service.engine()
        if engine.backend.describe().abilities.embed:
            self._service.scores.record_embedding(image, engine.model_version, engine.embed(study))
        for question in questions:
            answer = engine.answer(study, "vqa", question, max_new_tokens=_NEW_TOKENS)
            self._service.scores.record_uncertainty(answer)


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
