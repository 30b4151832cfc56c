"""MONAI Label datastore for the studies of an archive."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from radfound.exceptions import NotFoundError, RadFoundError
from radfound.records.durable import TEMPORARY_PREFIX

from ..studies.datastore import Parts, StudyDatastore
from ..studies.index import Objects
from .archive import Archive, SeriesRow, State, is_uid
from .cache import SeriesCache
from .listing import MAX_AGE_S, StudyList
from .selection import choose
from .settings import PacsSettings

_REMEMBERED = 20_000


class PacsDatastore(StudyDatastore):
    """The studies of an archive, uploads beside them, and labels.

    An image's id is the UID of a study or of one series. Images are fetched when they are needed, as
    DICOM folders. The index holds the list of the newest successful request, so that the server starts
    and counts without the archive.

    Parameters
    ----------
    state : Path
        Folder of the index, labels, uploads and fetched images.
    uploads : Path
    settings : PacsSettings

    Raises
    ------
    PacsError
        From `path_of` and `parts`, if images cannot be fetched; from the lists, if none was ever received.
    """

    def __init__(self, state: Path, uploads: Path, settings: PacsSettings):
        self.settings = settings
        self.archive = Archive(settings)
        self.cache = SeriesCache(
            state / ".radfound" / "pacs" / "images", settings.cache_bytes, self.archive.instances
        )
        self._list = StudyList(self.archive, settings, self._reconcile_datastore)
        self._series: dict[str, tuple[float, list[SeriesRow]]] = {}  # by study
        self._study_of: dict[str, str] = {}  # by series
        self._peeks: dict[tuple[str, int | None], tuple[str, tuple[str, ...]]] = {}
        self._remembering = threading.Lock()
        super().__init__(str(state), uploads)

    @property
    def connection(self) -> State:
        """State of the connection, at most half a minute old while somebody asks; never waits."""
        self._list.need(wait=False)
        return self.archive.state

    # Images -----------------------------------------------------------------------------------

    def path_of(self, image_id: str) -> Path:
        """Return the folder of a study or series, fetched if necessary, or the path of an upload."""
        upload = self._upload_of(image_id)
        if upload is not None:
            return upload
        paths = self.parts(image_id).paths
        return paths[0] if image_id == paths[0].name else paths[0].parent

    def parts(self, image_id: str, series: str | None = None) -> Parts:
        """Return the folders of the series that a question about an image is about, fetched if necessary.

        Parameters
        ----------
        image_id : str
            UID of a study or of a series, or the id of an upload.
        series : str, optional
            Series instance UID or number, in place of the rule of `selection.choose`.
        """
        upload = self._upload_of(image_id)
        if upload is not None:
            return Parts((upload,))
        study_uid = self.study_of(image_id)
        if image_id != study_uid:
            series = series or image_id
        rows = self.series_of(study_uid)
        chosen = choose(rows, self.peek, self.settings.series, series)
        paths = tuple(self.cache.get(row) for row in chosen.series)
        return Parts(paths, tuple(row.uid for row in chosen.series), chosen.rule)

    def study_of(self, image_id: str) -> str:
        """Return the UID of the study that an id belongs to; NotFoundError if there is none."""
        self._list.need(wait=False)
        if image_id in (self._list.rows or ()):
            return image_id
        if not is_uid(image_id):
            raise _unknown(image_id)
        known = self._study_of.get(image_id)
        if known is not None:
            return known
        query = {**self.settings.query, "StudyInstanceUID": image_id}
        if any(row.uid == image_id for row in self.archive.studies(query)):
            return image_id
        row = self.archive.find_series(image_id)
        if row is None or not self._is_served(row.study_uid):
            raise _unknown(image_id)
        with self._remembering:
            self._study_of[image_id] = row.study_uid
            _forget_oldest(self._study_of)
        return row.study_uid

    def series_of(self, study_uid: str) -> list[SeriesRow]:
        """Return the series of a study; the list is at most half a minute old."""
        asked_s, rows = self._series.get(study_uid, (-float("inf"), []))
        if time.monotonic() - asked_s > MAX_AGE_S:
            rows = self.archive.series_of(study_uid)
            if not rows:
                raise _unknown(study_uid)
            with self._remembering:
                self._series[study_uid] = (time.monotonic(), rows)
                _forget_oldest(self._series)
        return rows

    def forget_series(self, study_uid: str) -> None:
        """Ask for the series of a study again the next time, because something arrived."""
        with self._remembering:
            self._series.pop(study_uid, None)

    def peek(self, row: SeriesRow) -> tuple[str, tuple[str, ...]]:
        """Return SOP class and image type of one instance of a series."""
        key = (row.uid, row.instances)
        if key not in self._peeks:
            found = self.archive.first_instance(row)
            with self._remembering:
                self._peeks[key] = found
                _forget_oldest(self._peeks)
        return self._peeks[key]

    def check_known(self, image_id: str) -> None:
        """Raise NotFoundError unless the id is known; fetches no image."""
        if image_id not in self._datastore.objects and self._upload_of(image_id) is None:
            self.study_of(image_id)

    def _is_served(self, study_uid: str) -> bool:
        if study_uid in (self._list.rows or ()):
            return True
        query = {**self.settings.query, "StudyInstanceUID": study_uid}
        return any(row.uid == study_uid for row in self.archive.studies(query))

    def _upload_of(self, image_id: str) -> Path | None:
        entry = self._datastore.objects.get(image_id)
        if entry is None or not entry.image.ext:
            return None
        upload = self._uploads / self._filename(image_id, entry.image.ext)
        return upload if upload.exists() else None

    # Lists ------------------------------------------------------------------------------------

    def need_list(self) -> None:
        """Renew the list if it is older than half a minute; raises if none was ever received."""
        self._list.need()
        if self._list.rows is None and self._list.error and not self._datastore.objects:
            raise self._list.error

    def refresh(self) -> None:
        """Ask the archive for its list now."""
        self._list.refresh()

    def list_images(self) -> list[str]:
        """Return the ids of all studies and uploads."""
        self.need_list()
        return list(self._datastore.objects)

    def title_of(self, image_id: str) -> str:
        """Return modality, description and date of a study, or the id of an upload."""
        row = (self._list.rows or {}).get(image_id)
        return row.title if row is not None else image_id

    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: list[str] | None = None
    ) -> list[str]:
        """Return the ids of the studies and uploads without a final label."""
        self.need_list()
        return list(super().get_unlabeled_images(label_tag, labels))

    def status(self) -> dict[str, Any]:
        """Return the counts of the newest list; never waits for the archive."""
        self._list.need(wait=False)
        tags: dict[str, int] = {}
        for entry in self._datastore.objects.values():
            for tag in entry.labels:
                tags[tag] = tags.get(tag, 0) + 1
        return {
            "total": len(self._datastore.objects),
            "completed": len(self.get_labeled_images()),
            "label_tags": tags,
        }

    # Labels -----------------------------------------------------------------------------------

    def check_label(self, image_id: str, label_tag: str, label_info: object) -> None:
        """Raise if a label cannot be saved under these names."""
        self.check_known(image_id)
        self._check_label_names(label_tag, label_info)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Save a label; that of a series is kept with its study."""
        if image_id not in self._datastore.objects:
            image_id = self.study_of(image_id)
            with self._changing() as objects:
                if image_id not in objects:  # newer than the list
                    objects[image_id] = self._reconciled(image_id, "", {}, None)
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Return the path of a zip with the labelled images, fetched if necessary, and their labels."""
        labelled = self.get_labeled_images()
        if not labelled:
            raise NotFoundError("dataset: no image has a final label yet; save one first")
        number, name = tempfile.mkstemp(suffix=".zip")
        try:
            with os.fdopen(number, "wb") as file, zipfile.ZipFile(file, "x") as archive:
                for image_id in labelled[: limit_cases or None]:
                    for path in self.parts(image_id).paths:
                        _pack(archive, path, f"image/{image_id}")
                    label = Path(self.get_label_uri(image_id, "final"))
                    archive.write(label, f"label/{label.name}")
                archive.writestr("metadata.json", json.dumps(self.json()))
        except BaseException:
            os.unlink(name)
            raise
        return name

    # Called by the index ----------------------------------------------------------------------

    def _place(self, image_id: str, suffix: str) -> Path:
        upload = self._uploads / self._filename(image_id, suffix)
        if suffix and upload.exists():
            return upload
        return self.cache.folder_of(image_id)

    def _images_on_disk(self, known: Objects) -> dict[str, str]:
        """Return the suffix of each upload, and an empty one for each study of the archive."""
        uploads = dict(self._to_id(name) for name in self.upload_files())
        return {**dict(self._originals(known, uploads)), **uploads}

    def _originals(self, known: Objects, taken: Collection[str]) -> Iterator[tuple[str, str]]:
        rows: Mapping[str, object] | None = self._list.rows
        if rows is None:  # the archive has not answered yet
            rows = {uid: entry for uid, entry in known.items() if not entry.image.ext}
        for uid in rows:
            if uid not in taken:
                yield uid, ""


def _pack(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    if path.is_file():
        archive.write(path, f"{name}/{path.name}")
        return
    for file in sorted(path.iterdir()):
        if not file.name.startswith((".", TEMPORARY_PREFIX)):
            archive.write(file, f"{name}/{path.name}/{file.name}")


def _forget_oldest(found: dict[Any, Any]) -> None:
    if len(found) > _REMEMBERED:
        del found[next(iter(found))]


def _unknown(image_id: str) -> RadFoundError:
    return NotFoundError(
        f"image: {image_id[:80]!r} is not among the archive's studies that this server shows, and no "
        "upload; send the UID of a study or series, or upload the image first with PUT /datastore/image"
    )
