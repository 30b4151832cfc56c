"""Files that are whole or absent, whatever moment the power fails."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"


def make_directory(path: Path) -> None:
    """Make a folder and its parents, and write their entries to the disk."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Write a file's content through to the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Write a folder's entries (names and renames) through to the disk."""
    if os.name == "nt":  # a folder cannot be opened there; NTFS journals its entries itself
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Replace a small file in one step, so that a reader sees the old text or the new one.

    The modification time always grows, even between two calls within one tick of the file
    system's clock, so that a reader may tell versions apart by it.
    """
    try:
        _replace_text(path, text)
    except FileNotFoundError:  # a process that has just started took it for a stray
        _replace_text(path, text)


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder; others make theirs anew."""
    for stray in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if not stray.is_dir():
            stray.unlink(missing_ok=True)


def _replace_text(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(0o644)
        if path.exists():
            before_ns = path.stat().st_mtime_ns
            now_ns = temporary.stat().st_mtime_ns
            later_ns = max(now_ns, before_ns + 1)
            os.utime(temporary, ns=(later_ns, later_ns))
        sync_file(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sha.update(chunk)
    return sha.hexdigest()
