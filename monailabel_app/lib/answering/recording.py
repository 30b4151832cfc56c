"""Records corrections, with what they leave out: the region of their answer and the hash of their images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from radfound.correction import Correction
from radfound.exceptions import CorrectionError, NotFoundError, RadFoundError
from radfound.records.answers import AnswerJournal
from radfound.records.corrections import CorrectionLog

from .loading import ServedStudies

logger = logging.getLogger(__name__)


def record(
    corrections: Sequence[Correction],
    log: CorrectionLog,
    journal: AnswerJournal,
    studies: ServedStudies,
) -> list[bool]:
    """Append corrections to the log, all or none; False for each that is already there.

    A correction without a region takes the region of its answer.

    Raises
    ------
    CorrectionError
        If an image is not in the datastore, or the id belongs to a different correction.
    """
    corrections = [_with_region(correction, journal) for correction in corrections]
    for correction in corrections:
        _check_recordable(correction, studies)
    return log.extend([_with_image_hash(correction, studies) for correction in corrections])


def _check_recordable(correction: Correction, studies: ServedStudies) -> None:
    for image in correction.images:
        try:
            studies.datastore.check_known(image)
        except NotFoundError as error:
            raise CorrectionError(
                "images: one is not in the datastore, so the correction cannot be trained on; "
                "upload it first with PUT /datastore/image"
            ) from error


def _with_region(correction: Correction, journal: AnswerJournal) -> Correction:
    if correction.region is not None or correction.answer_id is None:
        return correction
    try:
        return replace(correction, region=journal.get(correction.answer_id).region)
    except RadFoundError as error:
        logger.info("a corrected answer is not in the journal: %s", error.code)
        return correction


def _with_image_hash(correction: Correction, studies: ServedStudies) -> Correction:
    """Add the hash of the image content; keep the correction even if the image is unreadable."""
    if correction.image_hash is not None:
        return correction
    try:
        return replace(correction, image_hash=studies.get(correction.images).digest)
    except RadFoundError as error:
        logger.warning("a correction is recorded without image hash: %s", error.code)
        return correction
