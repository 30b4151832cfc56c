"""The studies that requests name: in the datastore, in a session, or sent with the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from radfound.exceptions import RequestError
from radfound.reading import read_study
from radfound.study.study import Study

from ..studies.datastore import Parts
from ..studies.sessions import StudySessions
from ..studies.uploads import received
from .inquiry import Source
from .priors import check_same_patient, joined
from .shelf import Selection, StudyShelf, version_of


@dataclass(frozen=True)
class Found:
    """A loaded study.

    Parameters
    ----------
    study : Study
    images : tuple of str
        The caller's ids of its images.
    parts : Parts or None
        What it was made from, if it is from the datastore.
    """

    study: Study
    images: tuple[str, ...]
    parts: Parts | None = None


class ServedStudies:
    """Loads studies, and keeps the last ones in memory. Thread-safe.

    Parameters
    ----------
    datastore : StudyDatastore
    sessions : StudySessions, optional
        None if MONAI Label's sessions are turned off.
    """

    def __init__(self, datastore: Any, sessions: StudySessions | None = None):
        self.datastore = datastore
        self.sessions = sessions
        self.shelf = StudyShelf()

    def load(self, source: Source) -> Found:
        """Return the study that a request names.

        Raises
        ------
        RadFoundError
            RequestError, NotFoundError or what `read_study` raises.
        """
        selection = source.selection
        if source.upload is not None:
            with received(*source.upload) as path:
                study = read_study(path, series=selection.series, volume=selection.volume)
            return Found(study, (study.id,))
        if session := source.session_id:
            if self.sessions is None:
                raise RequestError("session_id: sessions are turned off on this server")
            path = self.sessions.path_of(session)
            return Found(self.shelf.get([path], session, selection), (session,))
        parts = self._parts(source.images, selection)
        study = self.shelf.get(parts.paths, source.images[0], selection)
        if source.prior:
            study, parts = self._with_prior(study, parts, source.prior)
        return Found(study, source.images, parts)

    def get(self, images: Sequence[str], selection: Selection | None = None) -> Study:
        """Return one study made of images of the datastore, one view each; errors as for `load`."""
        return self.load(Source(tuple(images), selection or Selection())).study

    def version(self, image: str) -> str:
        """Return a version key of an image's file; the key changes with the file."""
        path: Path = self.datastore.path_of(image)
        return repr(version_of(path))

    def _parts(self, images: Sequence[str], selection: Selection) -> Parts:
        """Return the files or folders that make up images of the datastore."""
        if not images:
            raise RequestError("image: missing; expected image, session_id or a file")
        return joined([self.datastore.parts(image, selection.series) for image in images])

    def _with_prior(self, study: Study, parts: Parts, prior: str) -> tuple[Study, Parts]:
        """Add an earlier study of the patient, whose images are marked as prior."""
        earlier = self._parts((prior,), Selection())
        check_same_patient(parts.paths, earlier.paths)
        images = self.shelf.get(earlier.paths, prior, Selection()).images
        marked = tuple(replace(image, prior=True) for image in images)
        return Study(study.images + marked, id=study.id), joined([parts, earlier])
