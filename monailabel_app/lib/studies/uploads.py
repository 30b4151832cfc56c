"""Temporary files of uploads."""

from __future__ import annotations

import logging
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import filelock

from radfound.records.durable import PRIVATE_FOLDER, has_no_room, open_private
from radfound.exceptions import StorageError
from radfound.reading.files import check_file

logger = logging.getLogger(__name__)

Upload = tuple[str, IO[bytes]]
"""A file's plain name and its content."""

PREFIX = "radfound-"
"""Name prefix of RadFound's files in the temporary folder."""
_LOCK = ".lock"
_STALE_S = 24 * 3600.0


@contextmanager
def received(name: str, content: IO[bytes], *, is_image: bool = True) -> Iterator[Path]:
    """Keep an upload in a folder of its own, removed at the end of the block.

    Raises
    ------
    StudyError
        If an image has, by its content, no format that can be read.
    StorageError
        If the temporary folder is full or cannot be written.
    """
    try:
        with _folder() as folder:
            path = folder / Path(name).name
            with open(path, "xb", opener=open_private) as file:
                shutil.copyfileobj(content, file, 1 << 20)
            if is_image:
                check_file(path)
            yield path
    except OSError as error:
        raise StorageError(
            f"an upload cannot be kept ({error.strerror or error}); "
            + (
                "make room on the server's disk"
                if has_no_room(error)
                else "check the folders of studies and of temporary files on the server"
            )
        ) from error


def remove_stale() -> None:
    """Remove temporary files of killed servers: uploads at once, anything else after a day."""
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        try:
            if path.suffix == _LOCK:
                with filelock.FileLock(path, timeout=0):
                    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
            elif not _lock(path).exists() and time.time() - path.lstat().st_mtime > _STALE_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except filelock.Timeout:  # a running server's
            continue
        except OSError as error:  # another user's
            logger.info("a temporary file stays (%s)", error.strerror)


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a private folder; its lock shows other servers that the folder is in use."""
    folder = Path(tempfile.gettempdir(), PREFIX + secrets.token_hex(8))
    try:
        with filelock.FileLock(_lock(folder)):
            folder.mkdir(PRIVATE_FOLDER)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _lock(folder).unlink(missing_ok=True)


def _lock(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)
