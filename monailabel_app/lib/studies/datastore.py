"""MONAI Label datastore for a folder of studies."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radfound.exceptions import NotFoundError, RequestError, StorageError
from radfound.reading.files import (
    DETACHED_SUFFIXES,
    SUFFIXES,
    Source,
    kind_of,
    kind_of_name,
)
from radfound.reading.listing import StudyFolder

from .index import IndexedDatastore, Objects

logger = logging.getLogger(__name__)

INDEX = "datastore_v2.json"
"""MONAI Label's index of images and labels."""

# Files that are not hidden. One pattern for each depth: MONAI Label's watcher matches whole paths.
_WATCHED = ["*/" * depth + "[!.]*" for depth in range(6)]
_LABELS = "labels"
_UPLOADED = [suffix for suffix in SUFFIXES if suffix not in DETACHED_SUFFIXES]
_PAUSE_S = 1.0  # between two scans of a folder into which files are being copied
_SAFE_NAME = re.compile(r"[^/\\\x00-\x1f]{1,200}")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Parts:
    """What an image's id stands for.

    Parameters
    ----------
    paths : tuple of Path
        Files or folders that make up one study together, in the order in which they are shown.
    series : tuple of str
        UIDs of the chosen series of an archive; empty for a folder of studies.
    rule : str or None
        Why these series were chosen.
    """

    paths: tuple[Path, ...]
    series: tuple[str, ...] = ()
    rule: str | None = None


def uploads_path(state: str | Path) -> Path:
    """Return where uploaded images are kept."""
    return Path(state) / ".radfound" / "uploads"


class StudyDatastore(IndexedDatastore):
    """MONAI Label's local datastore with the studies that `StudyFolder` finds, and safe names.

    The id of a study is its path in the folder without a suffix of `SUFFIXES`. If two studies share
    that id, the second by name keeps its suffix.

    Parameters
    ----------
    path : str
        The folder of studies.
    uploads : Path, optional
        The folder for uploaded images; by default one in the state folder.
    state : str, optional
        Folder for labels and the index; by default the folder of studies.
    auto_reload, read_only : bool
        As in MONAI Label.

    Raises
    ------
    StorageError
        If the folder for labels and index cannot be written.
    RequestError
        From every method that writes, if a name would leave the folder or the index cannot hold a
        value.
    NotFoundError
        If there is no image of that name.
    """

    def __init__(
        self,
        path: str,
        uploads: Path | None = None,
        *,
        state: str | None = None,
        auto_reload: bool = False,
        read_only: bool = False,
    ):
        self._folder = StudyFolder(path, reserved=(INDEX, _LABELS))
        self._looked_s = 0.0
        self._next_look: threading.Timer | None = None
        super().__init__(
            path,
            uploads or uploads_path(state or path),
            _WATCHED,
            state=state,
            auto_reload=auto_reload,
            read_only=read_only,
        )
        if auto_reload:
            # The kind of a file without a suffix is known only when its content is complete.
            self._handler.on_closed = self._on_any_event
            if state is not None:
                self._watch(path)

    def path_of(self, image_id: str) -> Path:
        """Return the path of an image; ids are looked up, never used as paths."""
        uri = self.get_image_uri(image_id)
        if not uri:
            self.refresh()  # the watcher may have missed a new folder
            uri = self.get_image_uri(image_id)
        if not uri:
            raise NotFoundError(
                f"image: {image_id[:80]!r} is not in the datastore; send one of its ids, or upload "
                "the image first with PUT /datastore/image"
            )
        return Path(uri)

    def parts(self, image_id: str, series: str | None = None) -> Parts:
        """Return the files of an image; `series` matters only to an archive's datastore."""
        return Parts((self.path_of(image_id),))

    def title_of(self, image_id: str) -> str:
        """Return what readers recognize a study by in a list."""
        return image_id

    def check_known(self, image_id: str) -> None:
        """Raise NotFoundError unless the datastore has an image of this id."""
        self.path_of(image_id)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Store an upload under a plain name; TakenError if the id belongs to another image."""
        name = os.path.basename(image_filename)
        image_id = self.check_name(image_id, name)
        return super().add_image(image_id, image_filename, _checked_info("params", image_info))

    def check_name(self, image_id: str, file_name: str) -> str:
        """Return the id for a file of this name; RequestError if the name cannot be stored."""
        name, suffix = self._to_id(file_name)
        if suffix.lower() not in _UPLOADED:
            raise RequestError(
                f"file: found a name ending in {suffix or 'nothing'}; expected one of "
                f"{', '.join(_UPLOADED)}; send a DICOM series as a zip"
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
        """Raise if a label cannot be saved under these names."""
        self.check_known(image_id)
        self._check_label_names(label_tag, label_info)

    def _check_label_names(self, label_tag: str, label_info: object) -> None:
        if not _TAG.fullmatch(label_tag):
            raise RequestError("tag: expected 1 to 64 letters, digits, - or _, such as final")
        _checked_info("params", label_info)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Update an image's metadata."""
        super().update_image_info(image_id, _checked_info("info", info))

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Update a label's metadata."""
        super().update_label_info(label_id, label_tag, _checked_info("info", info))

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Return the path of a zip of the labelled images; NotFoundError if there are none."""
        if not self.datalist():
            raise NotFoundError("dataset: no image has a final label yet; save one first")
        return str(super().get_dataset_archive(limit_cases))

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return an image's metadata; `name` is the file's base name."""
        info = dict(super().get_image_info(image_id))
        return info | ({"name": os.path.basename(info["name"])} if "name" in info else {})

    def _to_id(self, file: str) -> tuple[str, str]:
        """Split the name of an upload or a label into id and suffix."""
        name, suffix = split_name(file)
        return (name, suffix) if suffix else super()._to_id(file)

    def _originals(self, known: Objects, taken: Collection[str]) -> Iterator[tuple[str, str]]:
        names = {id + entry.image.ext: (id, entry.image.ext) for id, entry in known.items()}
        ids = set(taken)
        for name in self._folder.studies(names.keys()):
            stem, suffix = split_name(name)
            if name in names:
                yield names[name]
            elif stem not in ids:
                ids.add(stem)
                yield stem, suffix
            else:
                yield name, ""

    # Watching ---------------------------------------------------------------------------------

    def _watch(self, folder: str) -> None:
        try:
            self._observer.schedule(self._handler, folder, recursive=True)
        except OSError as error:  # more folders than the system can watch
            logger.warning("new studies are found only when requested (%s)", error.strerror)

    def _on_any_event(self, event: Any) -> None:
        """Scan the folder again, once for many files that arrive together."""
        paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        if self._datastore_config_path in paths:
            with suppress(StorageError):  # retried at the next change
                self._init_from_datastore_file()
            return
        if not any(map(self._is_of_a_study, paths)):
            return
        wait_s = self._looked_s + _PAUSE_S - time.monotonic()
        if wait_s <= 0:
            super()._on_any_event(event)
        elif self._next_look is None or not self._next_look.is_alive():
            self._next_look = threading.Timer(wait_s, super()._on_any_event, (event,))
            self._next_look.daemon = True
            self._next_look.start()

    def refresh(self) -> None:
        """Update the index from the disk."""
        super().refresh()
        self._looked_s = time.monotonic()

    def _is_of_a_study(self, path: str) -> bool:
        """Whether a change at this path may concern a study or a copied label."""
        parts = Path(os.path.relpath(path, self._datastore.image_path())).parts
        labels = os.path.abspath(self._datastore.label_path(None))
        if os.path.commonpath((labels, os.path.abspath(path))) == labels:
            return bool(split_name(path)[1])
        return not any(part.startswith(".") for part in parts)


def split_name(file: str) -> tuple[str, str]:
    """Split a file's name into id and suffix; the suffix is empty if not one of `SUFFIXES`."""
    for suffix in SUFFIXES:
        if file.lower().endswith(suffix) and len(file) > len(suffix):
            return file[: -len(suffix)], file[-len(suffix) :]
    return file, ""


def is_dicom_by_another_name(path: Path) -> bool:
    """Whether a file is DICOM without the suffix .dcm, by which clients recognize it."""
    kind = kind_of_name(path.name)
    if kind is None:
        return path.is_file() and kind_of(Source.of(path)) == "dicom"
    return kind == "DICOM" and not path.name.lower().endswith(".dcm")


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
