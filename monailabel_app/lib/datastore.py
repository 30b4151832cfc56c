"""A folder of studies as MONAI Label sees it."""

from __future__ import annotations

import json
import logging
import os
import re
from itertools import islice
from pathlib import Path
from typing import Any

from radfound.exceptions import NotFoundError, RequestError

from .index import IndexedDatastore

logger = logging.getLogger(__name__)

SUFFIXES = (
    ".nii.gz",
    ".nii",
    ".nrrd",
    ".mha",
    ".dcm",
    ".zip",
    ".png",
    ".jpg",
    ".jpeg",
)
_PATTERNS = [f"*{case}" for suffix in SUFFIXES for case in (suffix, suffix.upper())]
# Matches no name in the folder itself; makes MONAI Label's watcher notice a new DICOM folder.
_WATCHED = ["*/*.dcm", "*/*.DCM"]
_SAFE_NAME = re.compile(r"[^/\\\x00-\x1f]{1,200}")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FILES_LOOKED_AT = 32


def uploads_path(state: str | Path) -> Path:
    """Return where uploaded images are kept."""
    return Path(state) / ".radfound" / "uploads"


class StudyDatastore(IndexedDatastore):
    """MONAI Label's local datastore with DICOM folders beside single files, and safe names.

    An image is a file with one of `SUFFIXES` or a folder that holds DICOM files; its id is the
    name without the suffix.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    RequestError
        From every method that writes, if a name would leave the folder or a value has no place
        in the datastore's index.
    NotFoundError
        If there is no image of that name.
    """

    def __init__(
        self,
        path: str,
        uploads: Path | None = None,
        *,
        auto_reload: bool = False,
        read_only: bool = False,
    ):
        super().__init__(
            path,
            uploads or uploads_path(path),
            _PATTERNS + _WATCHED,
            auto_reload=auto_reload,
            read_only=read_only,
        )

    def path_of(self, image_id: str) -> Path:
        """Return where an image lies; ids are looked up, never used as paths."""
        uri = self.get_image_uri(image_id)
        if not uri:
            self.refresh()  # a folder may have arrived unseen
            uri = self.get_image_uri(image_id)
        if not uri:
            raise NotFoundError(
                f"image: {image_id[:80]!r} is not in the datastore; send one of its ids, or upload "
                "the image first with PUT /datastore/image"
            )
        return Path(uri)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Keep an upload under an id that is a plain name; TakenError if that is another image's."""
        name = os.path.basename(image_filename)
        image_id = self.check_name(image_id, name)
        return super().add_image(image_id, image_filename, _checked_info("params", image_info))

    def check_name(self, image_id: str, file_name: str) -> str:
        """Raise if a file of this name could not be saved; return the id that it would have."""
        name, suffix = self._to_id(file_name)
        if suffix.lower() not in SUFFIXES:
            raise RequestError(
                f"file: found a name ending in {suffix or 'nothing'}; expected one of "
                f"{', '.join(SUFFIXES)}; send a DICOM series as a zip"
            )
        image_id = image_id or name
        if not _SAFE_NAME.fullmatch(image_id) or image_id.startswith("."):
            raise RequestError(
                "image: expected a name of at most 200 characters without slashes, "
                "not beginning with a dot"
            )
        return image_id

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Save a label; see `check_label`."""
        self.check_label(image_id, label_tag, label_info)
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def check_label(self, image_id: str, label_tag: str, label_info: object) -> None:
        """Raise if a label could not be saved under these names."""
        self.path_of(image_id)
        if not _TAG.fullmatch(label_tag):
            raise RequestError("tag: expected 1 to 64 letters, digits, - or _, such as final")
        _checked_info("params", label_info)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add to what is known about an image."""
        super().update_image_info(image_id, _checked_info("info", info))

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Add to what is known about a label."""
        super().update_label_info(label_id, label_tag, _checked_info("info", info))

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Return the path of a zip of the labelled images; NotFoundError if there are none."""
        if not self.datalist():
            raise NotFoundError("dataset: no image has a final label yet; save one first")
        return str(super().get_dataset_archive(limit_cases))

    def _to_id(self, file: str) -> tuple[str, str]:
        """Split a name into id and suffix; the id of a folder is its whole name."""
        name, suffix = split_name(file)
        if suffix:
            return name, suffix
        if os.path.isdir(os.path.join(self._datastore.image_path(), file)):
            return file, ""
        return super()._to_id(file)

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        """List the images of a folder, of two with one id the first by name."""
        found = super()._list_files(path, patterns)
        if os.path.realpath(path) == os.path.realpath(self._datastore.image_path()):
            found.update({name: name for name in self._dicom_folders(path)})
        by_id: dict[str, str] = {}
        for name in sorted(found):
            kept = by_id.setdefault(self._to_id(name)[0], name)
            if kept != name:
                logger.warning("an image is left out: another one has the same name without suffix")
        return {name: name for name in by_id.values()}

    def _dicom_folders(self, path: str) -> list[str]:
        reserved = {self._datastore.labels_dir}
        with os.scandir(path) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.is_dir() and not entry.name.startswith(".") and entry.name not in reserved
            ]
        known = self._datastore.objects
        return [name for name in names if name in known or _holds_dicom(Path(path, name))]


def split_name(file: str) -> tuple[str, str]:
    """Split a file's name into id and suffix; the suffix is empty if it is none of `SUFFIXES`."""
    for suffix in SUFFIXES:
        if file.lower().endswith(suffix) and len(file) > len(suffix):
            return file[: -len(suffix)], file[-len(suffix) :]
    return file, ""


def _holds_dicom(folder: Path) -> bool:
    """Whether one of a folder's first files is DICOM by its content."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return any(_is_dicom(file) for file in islice(files, _FILES_LOOKED_AT))


def _is_dicom(file: Path) -> bool:
    try:
        with open(file, "rb") as content:
            return content.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _checked_info(name: str, info: object) -> dict[str, Any]:
    if info is None:
        return {}
    if not isinstance(info, dict):
        raise RequestError(f"{name}: expected a JSON object")
    try:
        json.dumps(info, allow_nan=False).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise RequestError(f"{name}: holds a value that JSON cannot carry") from error
    return info
