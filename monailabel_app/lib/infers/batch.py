"""Answers about many studies, as the batch inference of MONAI Label."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

from radfound.exceptions import NotFoundError, StudyError

logger = logging.getLogger(__name__)

Infer = Callable[[dict[str, Any], Datastore], dict[str, Any]]

_SKIPPED_NAMED = 10


class RadFoundBatch(BatchInferTask):
    """Goes through the studies and passes over those that cannot be read.

    The last line of its output, which `GET /batch/infer` shows, is JSON: how many were answered
    about and how many cannot be read, and why.
    """

    def __call__(
        self, request: Mapping[str, Any], datastore: Datastore, infer: Infer
    ) -> dict[str, Any]:
        """Answer about each study.

        Returns
        -------
        dict
            By a study's id, what `infer` returns, or "skipped": why the study cannot be read.
        """
        found: dict[str, Any] = super().__call__(request, datastore, _passing_over(infer))
        reasons = {image: each["skipped"] for image, each in found.items() if "skipped" in each}
        skipped = [{"id": image, "reason": reason} for image, reason in reasons.items()]
        report = {
            "answered": sum("params" in each for each in found.values()),
            "unreadable": len(skipped),
            "skipped": skipped[:_SKIPPED_NAMED],
        }
        logger.info("batch %s", json.dumps(report))
        return found


def _passing_over(infer: Infer) -> Infer:
    def answer(request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        try:
            return infer(request, datastore)
        except (NotFoundError, StudyError) as error:
            return {"skipped": str(error)}

    return answer
