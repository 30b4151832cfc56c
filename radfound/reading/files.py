"""Files, folders and archives: list them, detect their kind, check that they are safe to open."""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from radfound.exceptions import (
    StorageError,
    StudyTooLargeError,
    StudyUnreadableError,
    UnknownKindError,
    UnsafeArchiveError,
)
from radfound.reading.bounds import check_unpacked
from radfound.reading.other_formats import describe
from radfound.reading.volumes.nifti_header import is_nifti
from radfound.reading.volumes.stored import packing_of, read_head
from radfound.study.study import display_name

MAX_SIDE = 20_000
"""Maximum number of pixels along one side of an image."""
MAX_VOXELS = 2**30
"""Maximum number of voxels of a study, all images together; 1024 slices of 1024 x 1024."""
MAX_FILES = 50_000
"""Maximum number of files in one folder or archive."""
MAX_UNPACKED_BYTES = 8 * 2**30
"""Maximum unpacked size of an archive, bytes."""

FORMATS = "DICOM, NIfTI, NRRD, MetaImage, PNG, JPEG, or a folder or zip of DICOM"

_HEAD_BYTES = 1024
_IGNORED_NAMES = {"__MACOSX", "Thumbs.db", "desktop.ini", "DICOMDIR"}
_BARE_ELEMENTS = 3
_FIRST_GROUPS = (0x0002, 0x0008)
_BARE_GROUPS = (*_FIRST_GROUPS, 0x0010, 0x0018, 0x0020, 0x0028)
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UC", b"UN", b"UR", b"UT")
_PLAIN_FILE_NAME = re.compile(r"[^/\\%]+")
_EXTENSION_KINDS = (
    ((".nii", ".nii.gz"), "NIfTI"),
    ((".dcm", ".dicom", ".ima"), "DICOM"),
    ((".nrrd", ".nhdr"), "NRRD"),
    ((".mha", ".mhd"), "MetaImage"),
    ((".png",), "PNG"),
    ((".jpg", ".jpeg"), "JPEG"),
    ((".zip",), "zip"),
)
SUFFIXES = tuple(end for ends, _ in _EXTENSION_KINDS for end in reversed(ends))
"""File name suffixes of images and zips, in lower case; a longer suffix before its own ending."""
DETACHED_SUFFIXES = (".nhdr", ".mhd")
"""File name suffixes of headers whose voxels are in a separate file."""


@dataclass(frozen=True)
class Source:
    """A file on disk and its name in messages."""

    path: Path
    name: str

    @classmethod
    def of(cls, path: Path) -> Source:
        """Name the file by the last part of its path."""
        return cls(path, display_name(path))


def check_size(name: str, shape: Sequence[int]) -> None:
    """Raise if an image is empty or larger than the limits, before its voxels are loaded.

    Parameters
    ----------
    name : str
    shape : sequence of int
        Sizes in voxels, in the order shown in the message.
    """
    sizes = [int(size) for size in shape]
    shown = " x ".join(f"{size:,}" for size in sizes)
    if not sizes or min(sizes) < 1:
        raise StudyUnreadableError(
            f"{name}: the header says {shown or 'no'} voxels; expected at least one along each "
            "axis; export the image again"
        )
    if max(sizes) > MAX_SIDE:
        raise StudyTooLargeError(
            f"{name}: {shown} voxels; expected at most {MAX_SIDE:,} along each side; "
            "crop or resample it"
        )
    check_voxel_count(name, sizes)


def check_voxel_count(name: str, sizes: Sequence[int]) -> None:
    """Raise StudyTooLargeError if the product of the sizes exceeds `MAX_VOXELS`."""
    count = 1
    for size in sizes:
        count *= int(size)
    if count > MAX_VOXELS:
        raise StudyTooLargeError(
            f"{name}: {count:,} voxels; expected at most {MAX_VOXELS:,}; crop or resample it"
        )


def kind_of(source: Source) -> str | None:
    """Detect a file's kind from its content, not its name; None if unknown."""
    head, is_packed = _read_head(source)
    kind = _kind_of_head(head)
    return None if is_packed and kind != "nifti" else kind


def _read_head(source: Source) -> tuple[bytes, bool]:
    """Return a file's first bytes, and whether they were unpacked from a gzip."""
    try:
        with open(source.path, "rb") as file:
            return read_head(file, _HEAD_BYTES), packing_of(file) != "raw"
    except OSError as error:
        raise StudyUnreadableError(
            f"{source.name}: cannot be opened ({error.strerror}); "
            "expected a file that this user may read; check its permissions"
        ) from None


def _kind_of_head(head: bytes) -> str | None:
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if re.match(rb"NRRD(\d{4}|00\.\d\d)", head):
        return "nrrd"
    if is_nifti(head):
        return "nifti"
    if re.match(rb"\s*(ObjectType|NDims|Comment|ObjectSubType)\s*[=:]", head) or (
        re.match(rb"\s*\w+\s*[=:]", head) and re.search(rb"\n\s*NDims\s*[=:]", head)
    ):
        return "metaimage"
    if _begins_with_elements(head):
        return "dicom"
    return None


def _begins_with_elements(head: bytes) -> bool:
    """Whether the file begins with a sequence of DICOM elements, as files without preamble do.

    A single element is no proof: small voxel values look alike.
    """
    place: int = 0
    before: tuple[int, ...] = (0, 0)
    for _ in range(_BARE_ELEMENTS):
        if place + 12 > len(head):
            return False
        tag = struct.unpack_from("<HH", head, place)
        if tag <= before or tag[0] not in (_BARE_GROUPS if place else _FIRST_GROUPS):
            return False
        before = tag
        vr = head[place + 4 : place + 6]
        if vr in _LONG_VRS:
            length, begin = struct.unpack_from("<I", head, place + 8)[0], 12
        elif vr.isalpha() and vr.isupper():
            length, begin = struct.unpack_from("<H", head, place + 6)[0], 8
        else:
            length, begin = struct.unpack_from("<I", head, place + 4)[0], 8
        if length % 2 or length > _HEAD_BYTES:
            return False
        place += begin + length
    return True


def kind_of_name(name: str) -> str | None:
    """Return the format that a file's suffix stands for, for messages; None if there is none."""
    lower = name.lower()
    return next((kind for ends, kind in _EXTENSION_KINDS if lower.endswith(ends)), None)


def check_file(path: Path) -> None:
    """Raise for a file of unknown format, or a zip that is not safe to unpack.

    Raises
    ------
    UnknownKindError
        If the content is of no known kind.
    UnsafeArchiveError, StudyUnreadableError
        As in `unpack_zip`.
    """
    source = Source.of(path)
    kind = kind_of(source)
    if kind is None:
        raise unknown_kind(source)
    if kind == "zip":
        with _open_zip(source) as (_, entries):
            _check_entries(source, entries)


def unknown_kind(source: Source) -> UnknownKindError:
    """Return the error for a file of unsupported format, with a guess at its real format."""
    head, is_packed = _read_head(source)
    found = _describe(head, is_packed)
    if claimed := kind_of_name(source.name):
        return UnknownKindError(
            f"{source.name}: named like {claimed}, but {found}; "
            f"expected {claimed} data; export or copy the file again"
        )
    return UnknownKindError(
        f"{source.name}: {found}; expected {FORMATS}; export the study in one of these"
    )


def _describe(head: bytes, is_packed: bool) -> str:
    found = describe(head)
    if not is_packed:
        if not head:
            return "the file is empty"
        return f"it holds {found or 'data of no known image format'}"
    kind = _kind_of_head(head)
    if kind:
        return f"it holds a {kind.upper()} file packed by gzip; unpack it first"
    if found and found != "text":
        return f"it holds {found}, packed by gzip"
    return "it holds gzip data that are no NIfTI, or are damaged"


def file_beside(source: Source, name: str) -> Path:
    """Return the path of a data file named by a header; the file must be in the header's folder.

    Raises
    ------
    StudyUnreadableError
        If the name leads to another folder (a header could make a server disclose any file), or
        there is no such file.
    """
    name = name.removeprefix("./")
    path = source.path.with_name(name) if _PLAIN_FILE_NAME.fullmatch(name) else None
    if path is None or name in (".", ".."):
        raise StudyUnreadableError(
            f"{source.name}: the voxels are said to be elsewhere; "
            "expected files in the same folder; save header and voxels in one file"
        )
    if not os.path.isfile(path):  # unlike `Path.is_file`, for names of any length
        raise StudyUnreadableError(
            f"{source.name}: the file with the voxels is not there; expected {name!r} in the same "
            "folder; give both, or save header and voxels in one file"
        )
    return path


def list_folder(folder: Path, name: str) -> list[Source]:
    """Return the files of a folder and the folders below it, in a stable order.

    Hidden files and links to folders are skipped.
    """
    sources: list[Source] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(entry for entry in folders if not is_ignored(entry))
        for entry in sorted(files):
            path = Path(parent, entry)
            if not is_ignored(entry) and path.is_file():
                sources.append(Source.of(path))
        if len(sources) > MAX_FILES:
            raise StudyTooLargeError(
                f"{name}: more than {MAX_FILES:,} files; expected one study; name its folder"
            )
    return sources


def is_ignored(name: str) -> bool:
    """Whether a file or folder is skipped: hidden, or created by the operating system."""
    return name.startswith(".") or name in _IGNORED_NAMES


def unpack_zip(source: Source, folder: Path) -> None:
    """Check every entry of an archive, then unpack it into `folder`.

    Raises
    ------
    UnsafeArchiveError
        If an entry leads outside the folder or is a link, or the archive unpacks to far more than
        its own size.
    StudyUnreadableError
        If the archive is damaged, encrypted or compressed by an unsupported method.
    """
    with _open_zip(source) as (archive, entries):
        _check_entries(source, entries)
        for entry in entries:
            archive.extract(entry, folder)


@contextmanager
def _open_zip(source: Source) -> Iterator[tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]]:
    """Open an archive and list its files; its errors become StudyUnreadableError."""
    try:
        with zipfile.ZipFile(source.path) as archive:
            yield archive, [entry for entry in archive.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"{source.name}: no room to unpack it; make room in the temporary folder"
            ) from None
        raise StudyUnreadableError(
            f"{source.name}: the zip is truncated or damaged ({type(error).__name__}); "
            "expected a whole archive; copy or make it again"
        ) from None
    except (RuntimeError, NotImplementedError):
        raise StudyUnreadableError(
            f"{source.name}: the zip is encrypted or packed by an unknown method; "
            "expected plain zip; pack it again without a password"
        ) from None


def _check_entries(source: Source, entries: Sequence[zipfile.ZipInfo]) -> None:
    for entry in entries:
        # ZipInfo.filename is already converted to the system's separators; check the raw name.
        raw = entry.orig_filename.replace("\\", "/")
        path = PurePosixPath(raw)
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", raw):
            raise UnsafeArchiveError(
                f"{source.name}: the entry {path.name!r} would be written outside the archive's "
                "own folder; expected relative names without '..'; pack the files again"
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise UnsafeArchiveError(
                f"{source.name}: the entry {path.name!r} is a symbolic link; "
                "expected files; pack the files themselves"
            )
    if len(entries) > MAX_FILES:
        raise UnsafeArchiveError(
            f"{source.name}: {len(entries):,} entries; expected at most {MAX_FILES:,}; "
            "pack one study only"
        )
    unpacked = sum(entry.file_size for entry in entries)
    packed = source.path.stat().st_size
    if unpacked > MAX_UNPACKED_BYTES:
        raise UnsafeArchiveError(
            f"{source.name}: unpacks to {unpacked / 2**20:,.0f} MiB; "
            f"expected at most {MAX_UNPACKED_BYTES // 2**20:,} MiB; give the folder instead"
        )
    check_unpacked(source.name, packed, unpacked, UnsafeArchiveError)
