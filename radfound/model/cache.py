"""Cache folders: built once, atomically, and rebuilt if damaged."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from radfound.exceptions import CheckpointError
from radfound.records.durable import sha256_of

logger = logging.getLogger(__name__)

_SUMS = "sha256.json"


def cache_dir() -> Path:
    """Return the cache folder: `RADFOUND_CACHE`, or the user's cache folder."""
    if chosen := os.environ.get("RADFOUND_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "radfound"


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Return a cached folder, built if it is missing or damaged.

    The folder is built beside `target` and then renamed, so that no process finds it incomplete.

    Parameters
    ----------
    target : Path
    make : callable
        Fills an empty folder.

    Raises
    ------
    CheckpointError
        If the cache cannot be written.
    """
    if is_whole(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f"{target.name}.part-", dir=target.parent))
    except OSError as error:
        raise CheckpointError(
            f"cache folder {target.parent}: cannot be written ({error.strerror}); set RADFOUND_CACHE to a writable folder"
        ) from error
    try:
        (part / "new").mkdir()
        make(part / "new")
        (part / "new" / _SUMS).write_text(json.dumps(_sums(part / "new")), encoding="utf-8")
        if target.exists():
            logger.warning(
                "%s in the cache is damaged or of an older version; made anew", target.name
            )
            os.rename(target, part / "old")
        os.rename(part / "new", target)
    except OSError as error:
        if not is_whole(target):  # otherwise another process was faster
            raise CheckpointError(
                f"cache folder {target.parent}: {error.strerror or error}; free some space"
            ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def is_whole(folder: Path) -> bool:
    """Whether a cached folder is unchanged, by the SHA-256 of each file."""
    try:
        expected = json.loads((folder / _SUMS).read_text(encoding="utf-8"))
        return bool(expected == _sums(folder))
    except (OSError, ValueError):
        return False


def _sums(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir() if path.name != _SUMS}
