"""What a request asks, and of which study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from radfound.exceptions import RequestError
from radfound.question import Question
from radfound.study.study import Study
from radfound.wire import AskRequest

from ..studies.datastore import Parts
from ..studies.uploads import Upload
from .shelf import Selection


class Place(TypedDict, total=False):
    """Where the study of a request lies; an upload takes precedence over a session, a session over an image.

    Parameters
    ----------
    image : str
        Id in the datastore.
    session_id : str
    upload : (file name, content)
    """

    image: str
    session_id: str
    upload: Upload | None


@dataclass(frozen=True)
class Source:
    """The study that a request names.

    Parameters
    ----------
    images : tuple of str
        Ids in the datastore, one view each.
    selection : Selection
    prior : str
        Id of an earlier study of the patient; empty for none.
    session_id : str
    upload : (file name, content), optional
    """

    images: tuple[str, ...]
    selection: Selection
    prior: str = ""
    session_id: str = ""
    upload: Upload | None = None

    @classmethod
    def of(cls, params: object, others: Sequence[str] = (), place: Place | None = None) -> Source:
        """Return what a request names in its params, with the ids of further images, and in its address.

        Raises
        ------
        RequestError
            If `series`, `volume` or `prior` in the params is of the wrong kind.
        """
        place = place or {}
        image = place.get("image", "")
        return cls(
            tuple(dict.fromkeys([image, *others] if image else others)),
            _selection(params),
            _prior(params),
            place.get("session_id", ""),
            place.get("upload"),
        )

    @property
    def count(self) -> int:
        """Number of images, as far as they are named."""
        return (1 if self.session_id else len(self.images)) + bool(self.prior)


@dataclass(frozen=True)
class Inquiry:
    """A validated request and its loaded study.

    Parameters
    ----------
    task : {"vqa", "caption", "report"}
    images : tuple of str
        The caller's ids of the study's images.
    study : Study
    ask : AskRequest
    load_ms, read_ms : int
        Time to load the model and the study.
    parts : Parts or None
        What the study was made from, if it is from the datastore.
    """

    task: str
    images: tuple[str, ...]
    study: Study
    ask: AskRequest
    load_ms: int
    read_ms: int
    parts: Parts | None = None

    @property
    def wants_teaching(self) -> bool:
        """Whether readers' corrections may answer."""
        return self.ask.recall and not self.ask.model_only

    @property
    def question(self) -> Question:
        """The question as a model gets it."""
        text = self.ask.question if self.task == "vqa" else None
        return Question(self.task, text, self.ask.history, self.ask.region)


def _selection(params: object) -> Selection:
    series = params.get("series") if isinstance(params, Mapping) else None
    volume = params.get("volume") if isinstance(params, Mapping) else None
    if series is not None and not isinstance(series, str):
        raise RequestError("series: expected text, a series number or instance UID")
    if volume is not None and (isinstance(volume, bool) or not isinstance(volume, int)):
        raise RequestError("volume: expected a whole number, from 0")
    return Selection(series, volume)


def _prior(params: object) -> str:
    prior = params.get("prior") if isinstance(params, Mapping) else None
    if prior is not None and not isinstance(prior, str):
        raise RequestError("prior: expected text, the id of an earlier study of the patient")
    return prior or ""
