"""What is known of each study without a language model, kept for heads and wording: a vector and fields."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from cachetools import LRUCache

from radfound.exceptions import StorageError
from radfound.records.durable import make_directory, replacing

logger = logging.getLogger(__name__)

_MOST_IN_MEMORY = 4096
_DIGEST = re.compile(r"[0-9a-f]{64}")


class StudyFeatures:
    """Features and fields by the digest of a study, one small file each. Thread-safe.

    Features belong to one encoder: another revision of the model starts a folder of its own.

    Parameters
    ----------
    root : Path
        Folder, which is made at the first `keep`.
    """

    def __init__(self, root: Path):
        self._root = root
        self._known: LRUCache[str, tuple[np.ndarray, dict[str, str]] | None] = LRUCache(
            _MOST_IN_MEMORY
        )
        self._lock = threading.Lock()

    def keep(self, digest: str, vector: np.ndarray, fields: Mapping[str, str]) -> None:
        """Keep a study's features; a full disk is logged and costs nothing but this."""
        if self._find(digest) is not None:
            return
        content = io.BytesIO()
        np.savez(content, vector=vector.astype(np.float16), fields=json.dumps(dict(fields)))
        try:
            make_directory(self._root)
            with replacing(self._root / f"{digest}.npz") as file:
                file.write(content.getvalue())
        except (OSError, StorageError) as error:
            logger.warning("the features of a study are not kept: %s", error)
            return
        with self._lock:
            self._known[digest] = vector.astype(np.float32), dict(fields)

    def vector(self, digest: str) -> np.ndarray | None:
        """Return a study's features, float32, shape (D,); None if they are not kept."""
        found = self._find(digest)
        return None if found is None else found[0]

    def fields(self, digest: str) -> Mapping[str, str]:
        """Return the fields of a study that are known; empty if none are kept."""
        found = self._find(digest)
        return {} if found is None else found[1]

    def _find(self, digest: str) -> tuple[np.ndarray, dict[str, str]] | None:
        with self._lock:
            if digest in self._known:
                return self._known[digest]
        if not _DIGEST.fullmatch(digest):
            return None
        try:
            with np.load(self._root / f"{digest}.npz") as file:
                found = file["vector"].astype(np.float32), json.loads(str(file["fields"]))
        except (OSError, ValueError, KeyError):
            return None
        with self._lock:
            self._known[digest] = found
        return found
