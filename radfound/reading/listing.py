"""Find the studies in a folder, for a server's list of studies.

A file is an image by its suffix (`SUFFIXES`) or, without a known suffix, by its content. Hidden files,
macOS's `._` companions and `DICOMDIR` are ignored.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from radfound.exceptions import StudyUnreadableError
from radfound.reading.files import Source, is_ignored, kind_of, kind_of_name
from radfound.reading.identity import identity_of

logger = logging.getLogger(__name__)

MAX_LISTED = 200_000
"""Maximum number of files and folders in one scan of the tree."""
MAX_LOOKED_INTO = 20_000
"""Maximum number of files without a known suffix opened in one scan; the next scan opens more."""
MAX_DEPTH = 12

# After this many files without an image in a row, the rest of a folder is skipped.
_MISSES = 64
_PICTURES = ("png", "jpeg")


@dataclass
class _Folder:
    """A folder of the tree: its images that are not DICOM, and one of its DICOM files."""

    path: str
    images: list[tuple[str, str]] = field(default_factory=list)
    dicom: str | None = None
    folders: list[_Folder] = field(default_factory=list)

    def tree(self) -> Iterator[_Folder]:
        yield self
        yield from chain.from_iterable(folder.tree() for folder in self.folders)


class StudyFolder:
    """The studies of a folder and its subfolders, each loadable by `read_study`.

    A study is an image file, a zip, or a folder in the root whose DICOM files, at any depth, belong
    to one DICOM study. If they belong to several, each subfolder is searched separately. Images
    beside DICOM files are studies of their own, except pictures, which are logos and previews there.
    Results are cached per file until the file changes.

    Parameters
    ----------
    root : path
    reserved : collection of str
        Names in the root that are skipped.
    """

    def __init__(self, root: str | os.PathLike[str], reserved: Collection[str] = ()):
        self._root = Path(root)
        self._reserved = frozenset(reserved)
        self._kinds: dict[str, tuple[Hashable, str | None]] = {}
        self._uids: dict[str, tuple[Hashable, str]] = {}
        self._left_out: tuple[bool, int] = (False, 0)

    def studies(self, known: Collection[str] = ()) -> list[str]:
        """Return the paths of the studies, relative to the root, with `/`, in a stable order.

        Parameters
        ----------
        known : collection of str
            Paths known to be studies, which are not opened again.
        """
        scan = _Scan(self._root, self._reserved, frozenset(known), self._kinds)
        root = scan.at("", self._root)
        found = [path for path, _ in root.images]
        for folder in root.folders:
            found += self._studies_of(folder, scan.known)
        self._kinds = scan.kinds
        self._warn(scan)
        return found

    def _studies_of(self, folder: _Folder, known: Collection[str]) -> list[str]:
        tree = list(folder.tree())
        dicom = [each.dicom for each in tree if each.dicom]
        if not dicom:
            return [path for each in tree for path, _ in each.images]
        if folder.path in known or folder.dicom or self._is_one_study(dicom):
            volumes = [path for each in tree for path, kind in each.images if kind not in _PICTURES]
            return [folder.path, *volumes]
        own = [path for path, kind in folder.images if kind not in _PICTURES]
        return own + [path for each in folder.folders for path in self._studies_of(each, known)]

    def _is_one_study(self, paths: list[str]) -> bool:
        """Whether DICOM files of several folders are of one study, by the UIDs that they have."""
        first = ""
        for path in paths if len(paths) > 1 else ():
            uid = self._study_uid(path)
            first = first or uid
            if uid and uid != first:
                return False
        return True

    def _study_uid(self, path: str) -> str:
        file = self._root / path
        try:
            version = _version(file.stat())
        except OSError:
            return ""
        if self._uids.get(path, (None, ""))[0] != version:
            self._uids[path] = (version, identity_of(Source.of(file)).study_uid)
        return self._uids[path][1]

    def _warn(self, scan: _Scan) -> None:
        """Log once that entries are left out; the log never holds a file's name."""
        left_out = (scan.is_cut, scan.unnameable)
        if left_out == self._left_out:
            return
        self._left_out = left_out
        if scan.unnameable:
            logger.warning(
                "%d files or folders are left out: their names are not UTF-8; rename them",
                scan.unnameable,
            )
        if scan.is_cut:
            logger.warning(
                "the folder of studies exceeds the limits of one scan (%d entries, %d opened files, "
                "%d levels); some studies may be left out; serve a part of it",
                *(MAX_LISTED, MAX_LOOKED_INTO, MAX_DEPTH),
            )


class _Scan:
    """One scan of the tree, bounded in entries, opened files and depth."""

    def __init__(
        self,
        root: Path,
        reserved: Collection[str],
        known: Collection[str],
        kinds: dict[str, tuple[Hashable, str | None]],
    ):
        self._root, self._reserved, self._before = root, reserved, kinds
        self.known = known
        self.kinds: dict[str, tuple[Hashable, str | None]] = {}
        self.is_cut = False
        self.unnameable = 0
        self._entries = self._opened = 0

    def at(self, path: str, place: Path, depth: int = 0) -> _Folder:
        """Return a folder with its files and subfolders."""
        found, misses = _Folder(path), 0
        for entry in self._list(place):
            below = f"{path}/{entry.name}" if path else entry.name
            if not path and entry.name in self._reserved:
                continue
            try:
                # Links to folders may leave the tree or form loops; only those in the root are followed.
                if entry.is_dir(follow_symlinks=not path):
                    if depth < MAX_DEPTH:
                        found.folders.append(self.at(below, Path(entry.path), depth + 1))
                    self.is_cut |= depth == MAX_DEPTH
                    continue
                may_open = not path or (found.dicom is None and misses < _MISSES)
                kind = self._kind(below, entry, may_open) if entry.is_file() else None
            except OSError:  # removed meanwhile, or a broken link
                continue
            misses = 0 if kind else misses + 1
            if kind == "dicom" and path:
                found.dicom = found.dicom or below
            elif kind:
                found.images.append((below, kind))
        return found

    def _list(self, place: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(place) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            logger.warning("a folder is left out: it cannot be listed (%s)", error.strerror)
            return []
        nameable = [entry for entry in found if _is_utf8(entry.name)]
        self.unnameable += len(found) - len(nameable)
        kept = [entry for entry in nameable if not is_ignored(entry.name)]
        room = max(0, MAX_LISTED - self._entries)
        self._entries += len(kept)
        self.is_cut |= len(kept) > room
        return kept[:room]

    def _kind(self, path: str, entry: os.DirEntry[str], may_open: bool) -> str | None:
        if kind := kind_of_name(entry.name):
            return kind.lower()
        if path in self.known:
            return "file"
        if not may_open:
            return None
        version = _version(entry.stat())
        found = self._before.get(path)
        if found is None or found[0] != version:
            if self._opened >= MAX_LOOKED_INTO:
                self.is_cut = True
                return None
            self._opened += 1
            found = (version, _kind_by_content(Path(entry.path)))
        self.kinds[path] = found
        return found[1]


def _kind_by_content(path: Path) -> str | None:
    try:
        return kind_of(Source.of(path))
    except StudyUnreadableError:
        return None


def _version(stat: os.stat_result) -> Hashable:
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
