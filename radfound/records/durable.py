"""Atomic, durable and private file writes: a power cut leaves a file whole or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".tmp-"
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
"""Modes of files and folders that may hold a patient's data, whatever the umask is."""


def make_directory(path: Path) -> None:
    """Make a private folder and its parents, and sync their entries to the disk."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(PRIVATE_FOLDER, exist_ok=True)
    path.chmod(PRIVATE_FOLDER)  # the umask may have removed bits
    sync_directory(path.parent)


def keep_private(folder: Path) -> None:
    """Make a folder private that an earlier version or another program has created."""
    if folder.is_dir():
        try:
            folder.chmod(PRIVATE_FOLDER)
        except OSError as error:  # owned by another user, or on a read-only disk
            logger.warning("%s: other users may read it (%s)", folder.name, error.strerror)


def sync_directory(path: Path) -> None:
    """Sync a folder's entries (names and renames) to the disk."""
    if os.name == "nt":  # Windows cannot open a folder; NTFS journals the entries
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_private(path: str, flags: int) -> int:
    """Open a file as the `opener` of `open`; a new file is private."""
    return os.open(path, flags, PRIVATE_FILE)


@contextmanager
def replacing(path: Path, *, private: bool = True) -> Iterator[IO[bytes]]:
    """Write a temporary file and rename it to `path` at the end of the block, unless an error was raised.

    Other processes see the old content or the new content. The modification time always grows,
    even between two calls within one tick of the file system's clock, so that it identifies a
    version.

    Parameters
    ----------
    path : Path
    private : bool
        Whether only this user may open the file, whatever the umask is.

    Yields
    ------
    binary file
    """
    temporary = path.with_name(TEMPORARY_PREFIX + secrets.token_hex(8))
    try:
        with open(temporary, "xb", opener=open_private if private else None) as file:
            yield file
            file.flush()
            _date_after(path, temporary)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def replace_text(path: Path, text: str, *, private: bool = True) -> None:
    """Replace a small file in one step; see `replacing`."""
    try:
        _replace_text(path, text, private)
    except FileNotFoundError:  # another process, just started, removed the temporary file
        _replace_text(path, text, private)


def replace_with_copy(path: Path, source: Path, *, private: bool = True) -> None:
    """Replace a file by a copy of another one in one step; see `replacing`."""
    with open(source, "rb") as content, replacing(path, private=private) as file:
        shutil.copyfileobj(content, file, 1 << 20)


def read_json(path: Path, kind: type, what: str) -> Any:
    """Read a small JSON file; a damaged file is set aside and logged.

    Parameters
    ----------
    path : Path
    kind : type
        Expected type of the content: dict or list.
    what : str
        Name of the content, for the log.

    Returns
    -------
    dict or list
        Empty if the file is missing or unusable.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, kind):
            return found
        reason = f"expected a {kind.__name__}"
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError, RecursionError) as error:
        reason = type(error).__name__
    set_aside(path, what, reason)
    return kind()


def set_aside(path: Path, what: str, reason: str) -> None:
    """Rename a damaged file, so that it is neither used nor lost, and log this."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.broken-{stamp}")
    try:
        os.replace(path, aside)
    except OSError as error:
        logger.error(
            "%s: the %s is damaged (%s) and cannot be renamed (%s)",
            path.name,
            what,
            reason,
            error.strerror,
        )
        return
    logger.error(
        "%s: the %s is damaged (%s); kept as %s, a new one is started",
        path.name,
        what,
        reason,
        aside.name,
    )


def has_no_room(error: BaseException | None) -> bool:
    """Whether an error means that the disk or the user's quota is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def remove_temporary_files(folder: Path) -> None:
    """Remove temporary files left in a folder by killed processes; a live process retries its write."""
    for stray in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if not stray.is_dir():
            stray.unlink(missing_ok=True)


def _replace_text(path: Path, text: str, private: bool) -> None:
    with replacing(path, private=private) as file:
        file.write(text.encode("utf-8"))


def _date_after(path: Path, temporary: Path) -> None:
    """Set the modification time of the temporary file later than that of the file it replaces."""
    if path.exists():
        before_ns, now_ns = (each.stat().st_mtime_ns for each in (path, temporary))
        later_ns = max(now_ns, before_ns + 1)
        os.utime(temporary, ns=(later_ns, later_ns))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sha.update(chunk)
    return sha.hexdigest()
