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
    """Batch inference over the studies; unreadable studies are skipped.

    The last line of the output, which `GET /batch/infer` returns, is JSON: the number of answered and
    of unreadable studies, and why the latter cannot be read.
    """

    def __call__(
        self, request: Mapping[str, Any], datastore: Datastore, infer: Infer
    ) -> dict[str, Any]:
        """Answer about each study.

        Returns
        -------
        dict
            By study id, the result of `infer`, or "skipped": why the study cannot be read.
        """
        results: dict[str, Any] = super().__call__(request, datastore, _skipping(infer))
        reasons = {image: row["skipped"] for image, row in results.items() if "skipped" in row}
        skipped = [{"id": image, "reason": reason} for image, reason in reasons.items()]
        report = {
            "answered": sum("params" in row for row in results.values()),
            "unreadable": len(skipped),
            "skipped": skipped[:_SKIPPED_NAMED],
        }
        logger.info("batch %s", json.dumps(report))
        return results


def _skipping(infer: Infer) -> Infer:
    def answer(request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        try:
            return infer(request, datastore)
        except (NotFoundError, StudyError) as error:
            return {"skipped": str(error)}

    return answer
