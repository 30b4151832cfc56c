"""The studies of a server, read from its folders."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from radfound.exceptions import NotFoundError
from radfound.study.study import Study


class StudyFiles:
    """The studies in a folder by their ids on the server: their paths in the folder, without suffix.

    Parameters
    ----------
    folder : Path
    state : Path, optional
        Folder of the server's state, with the uploads in `.radfound`; by default the folder of studies. An upload
        takes precedence.
    """

    def __init__(self, folder: Path, state: Path | None = None):
        self._folder = folder
        self._uploads = (state or folder) / ".radfound" / "uploads"

    def read(self, image: str) -> Study:
        """Return a study; raises what `read_study` and `path` raise."""
        from radfound.reading import read_study

        return read_study(self.path(image))

    def version(self, image: str) -> str:
        """Return a text that changes when the study's file does."""
        stat = self.path(image).stat()
        return hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()

    def path(self, image: str) -> Path:
        """Return the file or folder of a study; NotFoundError if there is none."""
        from radfound.reading.files import SUFFIXES

        below = PurePosixPath(image)
        if not below.is_absolute() and not any(part.startswith(".") for part in below.parts):
            for root in (self._uploads, self._folder):
                folder = root / below.parent
                for each in sorted(folder.iterdir()) if folder.is_dir() else ():
                    suffix = each.name.removeprefix(below.name).lower()
                    if each.name.startswith(below.name) and suffix in ("", *SUFFIXES):
                        return each
        raise NotFoundError(f"no study {image!r} in {self._folder.name}; put its file back")
