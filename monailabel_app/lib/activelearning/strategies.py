"""The two plain strategies; each reply says why the study was chosen."""

from __future__ import annotations

import random
import time
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy


class First(Strategy):
    """The first study by name that has no final label."""

    def __init__(self) -> None:
        super().__init__("First unread study by name")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the choice, or None if everything has been read."""
        images = sorted(datastore.get_unlabeled_images())
        if not images:
            return None
        return {"id": images[0], "reason": f"first by name of {len(images)} unread studies"}


class Random(Strategy):
    """Any study that has no final label, more likely one that was not offered lately."""

    def __init__(self) -> None:
        super().__init__("Random unread study")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the choice, or None if everything has been read."""
        images = datastore.get_unlabeled_images()
        if not images:
            return None
        now = int(time.time())
        weights = [1 + max(0, now - _last_offered(datastore, image)) for image in images]
        chosen = random.choices(images, weights=weights)[0]
        return {"id": chosen, "reason": f"at random from {len(images)} unread studies"}


def _last_offered(datastore: Datastore, image: str) -> int:
    offers = datastore.get_image_info(image).get("strategy")
    times = [offer.get("ts", 0) for offer in offers.values()] if isinstance(offers, dict) else []
    return max((int(ts) for ts in times), default=0)
