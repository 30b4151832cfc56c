"""MONAI Label's DICOMweb client with a cache that survives kills and full disks."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.dicom import DICOMWebDatastore

from radfound.records.durable import keep_private, replace_text, set_aside


class DicomCache(DICOMWebDatastore):
    """Cache of fetched DICOM images, private to this user, with an index that is written atomically.

    A damaged index is set aside and rebuilt from the cache.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        keep_private(Path(self._datastore_path))

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        try:
            super()._init_from_datastore_file(throw_exception=True)
        except (IsADirectoryError, ValueError) as error:
            set_aside(Path(self._datastore_config_path), "list of images", type(error).__name__)

    def _update_datastore_file(self, lock: bool = True) -> None:
        index = Path(self._datastore_config_path)
        with FileLock(self._lock_file) if lock else nullcontext():
            replace_text(index, self._datastore.model_dump_json(indent=2, exclude={"base_path"}))
            self._config_ts = os.stat(index).st_mtime
