"""MONAI Label's local datastore with an index that survives kills, full disks and concurrent writers."""

from __future__ import annotations

import filecmp
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from monailabel.datastore.local import (
    DataModel,
    ImageLabelModel,
    LocalDatastore,
    LocalDatastoreModel,
)
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from radfound.records.durable import (
    TEMPORARY_PREFIX,
    has_no_room,
    make_directory,
    remove_temporary_files,
    replace_text,
    replace_with_copy,
    set_aside,
    sha256_of,
)
from radfound.exceptions import RadFoundError, StorageError

logger = logging.getLogger(__name__)

_LOCK_TIMEOUT_S = 60.0
_REMOVED = "removed"  # a folder beside uploads: the SHA-256 of each removed upload, by its id

Objects = dict[str, ImageLabelModel]
"""Entries of the index by image id."""


class ProtectedError(RadFoundError):
    """A study was not uploaded to this server, so the server does not remove it."""

    code = "original_protected"
    http_status = 403


class TakenError(RadFoundError):
    """The id already belongs to another image."""

    code = "image_exists"
    http_status = 409


class IndexedDatastore(LocalDatastore):
    """Datastore with a folder of originals, which are never changed, a folder of uploads, and labels.

    MONAI Label rewrites its index in place from one process's copy. Here each change starts from the
    index on the disk, under a file lock shared with other servers of the folder, and replaces the
    index atomically; threads that read get the index before or after the change. A damaged index is
    set aside and rebuilt from images and labels.

    Parameters
    ----------
    path : str
        The folder of originals.
    uploads : Path
        Made at the first upload.
    extensions : sequence of str
        Patterns of image files.
    state : str, optional
        The folder of `labels` and the index; by default the folder of originals.
    auto_reload, read_only : bool
        As in MONAI Label.

    Raises
    ------
    StorageError
        From every method that writes, if the disk is full or the folder cannot be written.
    """

    _datastore: LocalDatastoreModel

    def __init__(
        self,
        path: str,
        uploads: Path,
        extensions: Sequence[str],
        *,
        state: str | None = None,
        auto_reload: bool = False,
        read_only: bool = False,
    ):
        self._uploads = uploads
        self._threads = threading.RLock()
        self._processes = FileLock(os.path.join(state or path, ".lock"), timeout=_LOCK_TIMEOUT_S)
        self._version: tuple[int, int, int] | None = None
        try:
            super().__init__(
                state or path,
                images_dir=os.path.abspath(path) if state else ".",
                extensions=extensions,
                auto_reload=auto_reload,
                read_only=read_only,
            )
        except OSError as error:
            raise _unwritable(error) from error
        if not read_only:
            self._remove_temporary_files()
        if auto_reload:
            self._handler.on_moved = self._on_moved

    # Reading ----------------------------------------------------------------------------------

    def image_path(self, image_id: str) -> Path | None:
        """Return the path of an image; None if there is no such image."""
        entry = self._datastore.objects.get(image_id)
        return self._place(image_id, entry.image.ext) if entry else None

    def upload_files(self) -> list[str]:
        """Return the names of the uploaded files, sorted."""
        try:
            names = os.listdir(self._uploads)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if not name.startswith("."))

    def get_image_uri(self, image_id: str) -> str:
        """Return the path of an image; empty if there is no such image."""
        path = self.image_path(image_id)
        return os.path.realpath(path) if path else ""

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return an image's metadata and path."""
        entry = self._datastore.objects.get(image_id)
        return {**entry.image.info, "path": self.get_image_uri(image_id)} if entry else {}

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Return the path of each image with a final label, and of the label."""
        tag = DefaultLabelTag.FINAL.value
        return [
            {"image": self.get_image_uri(each), "label": self.get_label_uri(each, tag)}
            for each in self.get_labeled_images()
        ]

    def _place(self, image_id: str, suffix: str) -> Path:
        """Return the path of an image: an upload takes precedence over an original added later."""
        name = self._filename(image_id, suffix)
        upload = self._uploads / name
        return upload if upload.exists() else Path(self._datastore.image_path(), name)

    # Writing ----------------------------------------------------------------------------------

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Store an upload.

        Raises
        ------
        TakenError
            If the id is, or was, used for different content; the same content may be sent again.
        """
        source = Path(image_filename)
        name, suffix = self._to_id(source.name)
        image_id = image_id or name
        with self._changing() as objects:
            self._reconcile(objects)
            self._check_free(image_id, source, objects.get(image_id))
            if image_id not in objects:
                make_directory(self._uploads)
                replace_with_copy(self._uploads / self._filename(image_id, suffix), source)
                objects[image_id] = ImageLabelModel(image=self._new(image_id, suffix, image_info))
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Remove an upload and its labels; ProtectedError for anything else."""
        with self._changing() as objects:
            self._reconcile(objects)
            entry = _entry(objects, image_id)
            upload = self._uploads / self._filename(image_id, entry.image.ext)
            if not upload.exists():
                raise ProtectedError(
                    "image: not an upload of this server; originals are never removed by it, "
                    "remove the file where it comes from"
                )
            make_directory(self._tombstone(image_id).parent)
            replace_text(self._tombstone(image_id), sha256_of(upload))
            for tag in entry.labels:
                self._label_path(image_id, tag, entry).unlink(missing_ok=True)
            upload.unlink()
            del objects[image_id]

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Save a label, replacing the previous one."""
        source = Path(label_filename)
        _, suffix = self._to_id(source.name)
        with self._changing() as objects:
            entry = _entry(objects, image_id)
            entry.labels[label_tag] = self._new(image_id, suffix, label_info)
            path = self._label_path(image_id, label_tag, entry)
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_with_copy(path, source, private=False)
        return image_id

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label; of a symbolic link, the link only."""
        with self._changing() as objects:
            if self._datastore.label(label_id, label_tag):
                path = self._label_path(label_id, label_tag, objects[label_id])
                path.unlink(missing_ok=True)
            self._reconcile(objects)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Update an image's metadata."""
        with self._changing() as objects:
            _entry(objects, image_id).image.info.update(info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Update a label's metadata."""
        with self._changing() as objects:
            label = _entry(objects, label_id).labels.get(label_tag)
            if label is None:
                raise LabelNotFoundException(f"Label: {label_id} Tag: {label_tag} not found")
            label.info.update(info)

    def _check_free(self, image_id: str, source: Path, entry: ImageLabelModel | None) -> None:
        """Raise TakenError if an id is, or was, used for different content."""
        # A file may exist without an entry: on some disks names are not case-sensitive.
        path = self._place(image_id, entry.image.ext if entry else self._to_id(source.name)[1])
        tombstone = self._tombstone(image_id)
        if entry is not None or path.exists():
            is_free = path.is_file() and filecmp.cmp(path, source, shallow=False)
        else:
            is_free = not tombstone.exists() or tombstone.read_text() == sha256_of(source)
        if is_free:
            return
        raise TakenError(
            "image: the name belongs to another image, and corrections may be about that one; "
            "upload this one under another name"
        )

    def _tombstone(self, image_id: str) -> Path:
        return self._uploads.with_name(f"{self._uploads.name}-{_REMOVED}") / image_id

    def _new(self, image_id: str, suffix: str, info: dict[str, Any] | None = None) -> DataModel:
        name = self._filename(image_id, suffix)
        return DataModel(info={**(info or {}), "ts": int(time.time()), "name": name}, ext=suffix)

    def _label_path(self, image_id: str, tag: str, entry: ImageLabelModel) -> Path:
        name = self._filename(image_id, entry.labels[tag].ext)
        return Path(self._datastore.label_path(tag), name)

    # The index --------------------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[Objects]:
        """Give the caller a copy of the newest index to change; save it as a whole or not at all.

        Entries are shared with the current index: get one to change from `_entry`.
        """
        with self._locked():
            self._load()
            objects = dict(self._datastore.objects)
            yield objects
            if objects != self._datastore.objects:
                self._save(objects)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other writers out; the system releases the lock when its process dies."""
        try:
            with self._threads, self._processes:
                yield
        except Timeout as error:
            raise StorageError(
                f"the list of images: another process has been writing for {_LOCK_TIMEOUT_S:.0f} s; "
                "try again"
            ) from error
        except OSError as error:
            raise _unwritable(error) from error

    def _load(self) -> None:
        """Load the index that another process has written; called with the lock held."""
        path = Path(self._datastore_config_path)
        version = _version(path)
        if version == self._version or version is None:
            return
        try:
            found = LocalDatastoreModel.model_validate_json(path.read_bytes())
        except (IsADirectoryError, PermissionError, ValueError) as error:
            set_aside(path, "list of images", type(error).__name__)
            return  # the next change writes this process's index
        self._datastore = self._datastore.model_copy(update={"objects": found.objects})
        self._version = version

    def _save(self, objects: Objects) -> None:
        """Write the index; called with the lock held."""
        path = Path(self._datastore_config_path)
        changed = self._datastore.model_copy(update={"objects": objects})
        replace_text(path, changed.model_dump_json(indent=2, exclude={"base_path"}), private=False)
        self._datastore, self._version = changed, _version(path)

    def _reconcile(self, objects: Objects) -> None:
        """Bring the index into line with the images and labels on the disk."""
        images = self._images_on_disk(objects)
        labels = self._labels_on_disk(images)
        before = dict(objects)
        objects.clear()
        for image_id, suffix in images.items():
            objects[image_id] = self._reconciled(
                image_id, suffix, labels[image_id], before.get(image_id)
            )

    def _reconciled(
        self,
        image_id: str,
        suffix: str,
        labels: dict[str, list[str]],
        known: ImageLabelModel | None,
    ) -> ImageLabelModel:
        """Return an image's index entry, given the suffixes of its labels by tag."""
        image = known.image if known and known.image.ext == suffix else self._new(image_id, suffix)
        before = known.labels if known else {}
        entry = ImageLabelModel(
            image=image,
            labels={
                tag: before[tag]
                if tag in before and before[tag].ext in suffixes
                else self._new(image_id, suffixes[-1])
                for tag, suffixes in labels.items()
            },
        )
        return known if known == entry else entry  # the same object if nothing changed

    def _images_on_disk(self, known: Objects) -> dict[str, str]:
        """Return the suffix of each image by id; if two share an id, the known one or an upload."""
        uploads = [self._to_id(name) for name in self.upload_files()]
        found: dict[str, str] = {}
        for image_id, suffix in (*uploads, *self._originals(known, known.keys() | dict(uploads))):
            if image_id in known and self._place(image_id, known[image_id].image.ext).exists():
                suffix = known[image_id].image.ext
            if self._place(image_id, suffix).exists():
                found.setdefault(image_id, suffix)
        return found

    def _originals(self, known: Objects, taken: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield id and suffix of each original; `taken` holds ids already in use."""
        raise NotImplementedError

    def _labels_on_disk(self, images: dict[str, str]) -> dict[str, dict[str, list[str]]]:
        """Return label suffixes by image id and tag, the newest label last."""
        found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for folder in filter(Path.is_dir, Path(self._datastore.label_path(None)).iterdir()):
            for file in sorted(_files_in(folder), key=lambda each: each.stat().st_mtime_ns):
                name = Path(file.path).relative_to(folder).as_posix()
                image_id = _owner(name, images)
                if image_id is not None:
                    found[image_id][folder.name].append(name[len(image_id) :])
        return found

    def _remove_temporary_files(self) -> None:
        """Remove partial files of killed servers; running servers write with the lock held."""
        with self._locked():
            folders = Path(self._datastore.label_path(None)).iterdir()
            for folder in (self._uploads, Path(self._datastore_path), *folders):
                remove_temporary_files(folder)

    # Called by MONAI Label's constructor and watcher -------------------------------------------

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        with self._locked():
            self._load()

    def _update_datastore_file(self, lock: bool = True) -> None:
        with self._locked():
            self._save(self._datastore.objects)

    def _reconcile_datastore(self) -> None:
        with self._locked():
            self._load()
            objects = dict(self._datastore.objects)
            self._reconcile(objects)
            if objects == self._datastore.objects:
                return
            try:
                self._save(objects)
            except OSError as error:
                if not has_no_room(error):
                    raise
                logger.warning("the disk is full: the list of images is not saved")
                self._datastore = self._datastore.model_copy(update={"objects": objects})

    def _on_any_event(self, event: Any) -> None:
        try:
            self.refresh()
        except StorageError as error:  # would end the watcher thread
            logger.warning("the list of images stays as it was: %s", error)

    def _on_modify_event(self, event: Any) -> None:
        if event.src_path == self._datastore_config_path:
            self._on_any_event(event)

    def _on_moved(self, event: Any) -> None:
        is_written = os.path.basename(event.src_path).startswith(TEMPORARY_PREFIX)
        if not is_written or event.dest_path == self._datastore_config_path:
            self._on_any_event(event)


def _entry(objects: Objects, image_id: str) -> ImageLabelModel:
    """Return a copy of an entry, for changes."""
    if image_id not in objects:
        raise ImageNotFoundException("image: not in the datastore; send one of its ids")
    objects[image_id] = objects[image_id].model_copy(deep=True)
    return objects[image_id]


def _files_in(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Yield the files of a folder and its subfolders: the id of a study may be a path."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files_in(entry.path)
            elif entry.is_file() and _is_text(entry.name):
                yield entry


def _owner(label: str, images: dict[str, str]) -> str | None:
    """Return the image that a label file belongs to: the longest id that its name begins with."""
    stem = label
    while stem and stem not in images:
        stem = stem.rpartition(".")[0]
    return stem or None


def _is_text(name: str) -> bool:
    """Whether a name can be stored in the index, which is JSON."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _unwritable(error: OSError) -> StorageError:
    return StorageError(
        f"the folder of studies cannot be written ({error.strerror or error}); labels and the list of "
        "images are kept there; check that the disk is not full, and make it writable or link the "
        "studies into a folder that is"
    )
