"""The former address of `monailabel_app.lib.studies.datastore`, for scripts that name it."""

from .studies.datastore import StudyDatastore

__all__ = ["StudyDatastore"]
