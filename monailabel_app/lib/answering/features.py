"""What is known of each study without a language model, kept for heads and wording."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cachetools import LRUCache

from radfound.exceptions import StorageError
from radfound.records.durable import make_directory, replacing

logger = logging.getLogger(__name__)

_MOST_IN_MEMORY = 4096
_DIGEST = re.compile(r"[0-9a-f]{64}")


class _Known(NamedTuple):
    vector: np.ndarray
    fields: Mapping[str, str]
    chances: Mapping[str, Mapping[str, float]]


class StudyFeatures:
    """Features, fields and their chances by the digest of a study, one small file each. Thread-safe.

    What other classifiers have said of a study is replaced when the study is asked about again.

    Parameters
    ----------
    root : Path
        Folder, which is made at the first `keep`.
    """

    def __init__(self, root: Path):
        self._root = root
        self._known: LRUCache[str, _Known] = LRUCache(_MOST_IN_MEMORY)
        self._lock = threading.Lock()

    def keep(
        self,
        digest: str,
        vector: np.ndarray,
        fields: Mapping[str, str],
        chances: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Keep what is known of a study; a full disk is logged and costs nothing but this.

        Parameters
        ----------
        digest : str
        vector : float array, shape (D,)
        fields : mapping of str to str
            The fields that are named.
        chances : mapping of str to mapping
            For each field and finding, the probability of each class.
        """
        kept, new = self._find(digest), _Known(vector.astype(np.float16), fields, chances)
        if kept is not None and _same(kept, new):
            return
        content = io.BytesIO()
        stored = {"fields": json.dumps(dict(fields)), "chances": json.dumps(chances)}
        np.savez(content, vector=new.vector, **stored)
        try:
            make_directory(self._root)
            with replacing(self._root / f"{digest}.npz") as file:
                file.write(content.getvalue())
        except (OSError, StorageError) as error:
            logger.warning("the features of a study are not kept: %s", error)
            return
        with self._lock:
            self._known[digest] = _Known(new.vector.astype(np.float32), dict(fields), dict(chances))

    def vector(self, digest: str) -> np.ndarray | None:
        """Return a study's features, float32, shape (D,); None if they are not kept."""
        found = self._find(digest)
        return None if found is None else found.vector

    def fields(self, digest: str) -> Mapping[str, str]:
        """Return the fields of a study that are known; empty if none are kept."""
        found = self._find(digest)
        return {} if found is None else found.fields

    def chances(self, digest: str) -> Mapping[str, Mapping[str, float]]:
        """Return the probability of each class of each field and finding; empty if none are kept."""
        found = self._find(digest)
        return {} if found is None else found.chances

    def _find(self, digest: str) -> _Known | None:
        with self._lock:
            if digest in self._known:
                return self._known[digest]
        if not _DIGEST.fullmatch(digest):
            return None
        try:
            with np.load(self._root / f"{digest}.npz") as file:
                # Files of earlier versions hold no chances.
                chances = json.loads(str(file["chances"])) if "chances" in file.files else {}
                fields = json.loads(str(file["fields"]))
                found = _Known(file["vector"].astype(np.float32), fields, chances)
        except (OSError, ValueError, KeyError):
            return None
        with self._lock:
            self._known[digest] = found
        return found


def _same(one: _Known, other: _Known) -> bool:
    same_words = one.fields == other.fields and one.chances == other.chances
    return same_words and np.array_equal(one.vector, other.vector)
