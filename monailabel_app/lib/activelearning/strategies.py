"""MONAI Label strategies that choose the study to read next; each reply gives the reason."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from radfound.exceptions import PacsUnreachableError, RadFoundError, StudyUnreadableError
from radfound.records.ranking import (
    Choice,
    at_random,
    by_both,
    by_diversity,
    by_name,
    by_uncertainty,
)

from ..answering.service import RadFoundService
from .leases import Leases

logger = logging.getLogger(__name__)

_SKIPPED_NAMED = 10
_REASONS_NAMED = 3

Ranking = Callable[[Sequence[str], RadFoundService], list[Choice]]

_chance = random.Random()

RANKINGS: dict[str, tuple[str, Ranking]] = {
    "random": (
        "Random unread study",
        lambda images, _: at_random(images, _chance),
    ),
    "first": (
        "First unread study by name",
        lambda images, _: by_name(images),
    ),
    "uncertainty": (
        "Unread study that the model is least certain of",
        lambda images, service: by_uncertainty(images, service.scores.scores(), _chance),
    ),
    "diversity": (
        "Unread study that is most unlike those corrected",
        lambda images, service: by_diversity(
            images, service.scores.scores(), service.log.images(), _chance
        ),
    ),
    "hybrid": (
        "Unread study that is typical of uncertain and uncorrected ones",
        lambda images, service: by_both(
            images, service.scores.scores(), service.log.images(), _chance
        ),
    ),
}


class NextStudy(Strategy):
    """The highest-ranked study that is unread, not leased to another reader, and readable.

    A study counts as read once it has a final label or a correction.

    Parameters
    ----------
    service : RadFoundService
    leases : Leases
        Shared by all strategies.
    description : str
    rank : callable
        Maps the ids of the unread studies to choices, best first.
    """

    def __init__(self, service: RadFoundService, leases: Leases, description: str, rank: Ranking):
        super().__init__(description)
        self._service = service
        self._leases = leases
        self._rank = rank

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the choice, or None if everything has been read.

        Returns
        -------
        dict or None
            "id", "reason" and "skipped": higher-ranked studies that cannot be read, and why.

        Raises
        ------
        StudyUnreadableError
            If no unread study can be read.
        PacsUnreachableError
            If the studies are in an archive that cannot be reached.
        """
        reader = str(request.get("client_id") or "")
        corrected = self._service.log.images()
        unread = [image for image in datastore.get_unlabeled_images() if image not in corrected]
        taken = self._leases.taken(reader)
        free = [image for image in unread if image not in taken]
        skipped: list[dict[str, str]] = []
        for choice in self._rank(free, self._service) if free else ():
            if self._take(choice.image, reader, skipped):
                return _reply(choice.image, choice.reason, skipped)
        for image in sorted(taken.intersection(unread)):
            if self._take(image, reader, skipped, shared=True):
                reason = f"each of {len(unread)} unread studies is with another reader, so is this"
                return _reply(image, reason, skipped)
        if skipped:
            named = "; ".join(each["reason"] for each in skipped[:_REASONS_NAMED])
            raise StudyUnreadableError(
                f"none of {len(unread)} unread studies can be read; the first: {named}"
            )
        return None

    def _take(
        self, image: str, reader: str, skipped: list[dict[str, str]], shared: bool = False
    ) -> bool:
        try:
            self._service.studies.get([image])  # loads the study for the reader's first question
        except PacsUnreachableError:  # nor can the next one be fetched
            raise
        except RadFoundError as error:
            logger.warning("skipped a study that cannot be read: %s", error.code)
            skipped.append({"id": image, "reason": str(error)})
            return False
        return self._leases.take(image, reader, shared=shared)


def _reply(image: str, reason: str, skipped: list[dict[str, str]]) -> dict[str, Any]:
    if skipped:
        reason += f"; {len(skipped)} before it cannot be read"
    return {"id": image, "reason": reason, "skipped": skipped[:_SKIPPED_NAMED]}


def strategies(service: RadFoundService) -> dict[str, NextStudy]:
    """Return every strategy by its name."""
    leases = Leases()
    return {name: NextStudy(service, leases, *each) for name, each in RANKINGS.items()}
