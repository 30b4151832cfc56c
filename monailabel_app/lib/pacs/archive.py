"""Client of an archive: QIDO-RS, WADO-RS and STOW-RS, with this project's errors."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests
from dicomweb_client import DICOMwebClient
from pydicom.datadict import tag_for_keyword
from urllib3.exceptions import HTTPError

from radfound.correction import utc_now
from radfound.exceptions import (
    NotFoundError,
    PacsError,
    PacsRefusedError,
    PacsTimeoutError,
    PacsUnreachableError,
    RadFoundError,
)

from .session import open_session
from .settings import PacsSettings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
"""A DICOM unique identifier; at most 64 characters of it are valid."""

MAX_STUDIES = 100_000
"""Most studies that are listed; a longer list is cut."""

_PAGE = 500
_CHUNK_BYTES = 1 << 20
_JSON = "application/dicom+json"
_UNESCAPED = "*?,-^:/"
_PAUSE_S = 3.0  # after a failed connection, requests fail at once for so long
_COUNTS = ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
_STUDY_FIELDS = ("ModalitiesInStudy", *_COUNTS, "StudyDescription")
_SERIES_FIELDS = ("NumberOfSeriesRelatedInstances", "SeriesNumber", "Modality")


def is_uid(text: str) -> bool:
    """Whether a text is a DICOM unique identifier."""
    return len(text) <= 64 and UID.fullmatch(text) is not None


@dataclass(frozen=True)
class StudyRow:
    """A study in the archive's list.

    Parameters
    ----------
    uid : str
    modalities : tuple of str
        Empty if the archive does not tell.
    size : (int, int)
        Number of series and of instances; changes when something arrives.
    date : str
        YYYY-MM-DD; empty if it is not known.
    description : str
        What was examined; empty if it is not known.
    """

    uid: str
    modalities: tuple[str, ...]
    size: tuple[int, int]
    date: str = ""
    description: str = ""

    @property
    def title(self) -> str:
        """What readers recognize a study by in a list; no patient's name or id."""
        known = ("/".join(self.modalities), self.description, self.date)
        return " · ".join(filter(None, known)) or self.uid


@dataclass(frozen=True)
class SeriesRow:
    """A series in the archive's list.

    Parameters
    ----------
    study_uid, uid, modality : str
    number : int
        0 if the series has none.
    instances : int or None
        None if the archive does not tell.
    """

    study_uid: str
    uid: str
    modality: str
    number: int
    instances: int | None


@dataclass(frozen=True)
class State:
    """What is known of the connection.

    Parameters
    ----------
    is_reachable : bool or None
        Result of the newest request; None before the first.
    problem : str or None
    checked : str or None
        Time of the newest request, ISO 8601 in UTC.
    """

    is_reachable: bool | None = None
    problem: str | None = None
    checked: str | None = None


class Archive:
    """An archive with a DICOMweb service; safe for use by several threads.

    After a failed connection every request fails at once for a few seconds, so that a loop over many
    studies does not wait for each.

    Parameters
    ----------
    settings : PacsSettings

    Raises
    ------
    PacsUnreachableError, PacsTimeoutError, PacsRefusedError
        From every method.
    NotFoundError
        If the archive has no such study, series or resource.
    """

    def __init__(self, settings: PacsSettings):
        self._settings = settings
        self._session = open_session(settings)
        self._client = self._client_of(self._session)
        self._state = State()
        self._pause: tuple[float, PacsError] | None = None
        self._lock = threading.Lock()

    def _client_of(self, session: requests.Session) -> DICOMwebClient:
        prefixes: dict[str, Any] = {
            f"{name}_url_prefix": prefix for name, prefix in self._settings.prefixes.items()
        }
        client = DICOMwebClient(self._settings.url, session=session, **prefixes)
        client.set_http_retry_params(retry=False)
        client.set_chunk_size(_CHUNK_BYTES)
        return client

    @property
    def state(self) -> State:
        """What is known of the connection; never waits."""
        return self._state

    # Lists ------------------------------------------------------------------------------------

    def studies(self, query: Mapping[str, str]) -> list[StudyRow]:
        """Return the studies that match a filter, page by page."""
        found: dict[str, StudyRow] = {}
        while len(found) < MAX_STUDIES:
            asked = {**query, "limit": str(_PAGE), "offset": str(len(found))}
            page = self._search("studies", asked, _STUDY_FIELDS)
            before = len(found)
            for row in page:
                uid = _text(row, "StudyInstanceUID")
                if is_uid(uid):
                    found.setdefault(uid, _study_row(uid, row))
            # An archive that ignores `offset` sends the first page again.
            if len(page) < _PAGE or len(found) == before:
                break
        return list(found.values())

    def series_of(self, study_uid: str) -> list[SeriesRow]:
        """Return the series of a study, by number."""
        rows = self._search(f"studies/{study_uid}/series", {}, _SERIES_FIELDS)
        found = [_series_row(row, study_uid) for row in rows]
        return sorted(
            (row for row in found if is_uid(row.uid)), key=lambda row: (row.number, row.uid)
        )

    def find_series(self, series_uid: str) -> SeriesRow | None:
        """Return a series by its UID alone; None if there is none."""
        asked = {"SeriesInstanceUID": series_uid, "limit": "1"}
        rows = self._search("series", asked, ("StudyInstanceUID", *_SERIES_FIELDS))
        found = [_series_row(row, _text(row, "StudyInstanceUID")) for row in rows]
        return next((row for row in found if row.uid == series_uid), None)

    def first_instance(self, row: SeriesRow) -> tuple[str, tuple[str, ...]]:
        """Return SOP class and image type of one instance of a series."""
        path = f"studies/{row.study_uid}/series/{row.uid}/instances"
        rows = self._search(path, {"limit": "1"}, ("SOPClassUID", "ImageType"))
        if not rows:
            return "", ()
        return _text(rows[0], "SOPClassUID"), tuple(map(str, _values(rows[0], "ImageType")))

    def _search(
        self, path: str, query: Mapping[str, str], fields: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the rows of a QIDO-RS request; none for a study that does not exist.

        Wildcards stay as they are, unlike in dicomweb-client: Orthanc 1.10 does not decode escapes.
        """
        pairs = [*query.items(), *(("includefield", field) for field in fields)]
        asked = "&".join(f"{name}={quote(value, safe=_UNESCAPED)}" for name, value in pairs)
        prefix = self._settings.prefixes.get("qido", "").strip("/")
        with self._calling():
            address = "/".join(filter(None, (self._settings.url, prefix, path)))
            answer = self._session.get(f"{address}?{asked}", headers={"Accept": _JSON})
            if answer.status_code == requests.codes.not_found:
                if "/" in path:
                    return []
                raise ValueError("no service at this address")
            answer.raise_for_status()
            answer.encoding = "utf-8"
            found = answer.json() if answer.content else []
            if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
                raise ValueError("no list of objects")
            return found

    # Objects ----------------------------------------------------------------------------------

    def instances(self, study_uid: str, series_uid: str) -> Iterator[Dataset]:
        """Yield the instances of a series as they are stored, one at a time in memory."""
        with self._calling():
            # Any transfer syntax: the archive then sends what it has, and need not decode it.
            yield from self._client.iter_series(
                study_uid, series_uid, media_types=(("application/dicom", "*"),)
            )

    def store(self, dataset: Dataset) -> None:
        """Store one instance; storing it again changes nothing.

        Raises
        ------
        PacsRefusedError
            If the archive does not accept it.
        """
        # A fresh connection: the archive may have closed an idle one, and POST is not retried.
        with self._calling(), open_session(self._settings) as session:
            reply = self._client_of(session).store_instances([dataset])
        failed = reply.get("FailedSOPSequence")
        if failed:
            reason = failed[0].get("FailureReason", "unknown")
            raise PacsRefusedError(
                f"the archive did not store the document (failure reason {reason}); see its log",
                is_about_the_document=True,
            )

    def get(self, path: str, query: str, accept: str) -> requests.Response:
        """Return a resource as an open stream, whatever its status; the caller closes it."""
        with self._calling():
            address = f"{self._settings.url}/{path}{'?' + query if query else ''}"
            return self._session.get(address, headers={"Accept": accept}, stream=True)

    def check(self) -> State:
        """Ask the archive for one study, and return the state of the connection; never raises."""
        try:
            self._search("studies", {"limit": "1"})
        except RadFoundError:
            pass
        return self._state

    # Errors -----------------------------------------------------------------------------------

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """Convert the errors of a request, and keep what they tell of the connection."""
        with self._lock:
            pause = self._pause
        if pause is not None and time.monotonic() < pause[0]:
            raise type(pause[1])(*pause[1].args)
        try:
            yield
        except GeneratorExit:  # the caller needs no more
            raise
        except Exception as error:
            raised = _error(error, self._settings.timeout_s)
            if isinstance(raised, PacsError):
                self._note(raised)
            if raised is error:
                raise
            raise raised from None  # the text of the cause holds addresses
        self._note(None)

    def _note(self, error: PacsError | None) -> None:
        is_down = isinstance(error, (PacsUnreachableError, PacsTimeoutError))
        with self._lock:
            self._pause = (time.monotonic() + _PAUSE_S, error) if error and is_down else None
            self._state = State(error is None, str(error) if error else None, utc_now())


def _error(error: Exception, timeout_s: float) -> Exception:
    """Return this project's error for one of a request."""
    if isinstance(error, RadFoundError):
        return error
    if isinstance(error, requests.exceptions.SSLError):
        return PacsRefusedError(
            "no secure connection to the archive: its certificate or this server's was not accepted; "
            "check pacs_ca, pacs_certificate and pacs_key"
        )
    if isinstance(error, requests.Timeout) or _is_read_timeout(error):
        return PacsTimeoutError(
            f"the archive did not answer within {timeout_s:.0f} s; ask again when it is less busy, or "
            "raise pacs_timeout_s"
        )
    if isinstance(error, requests.HTTPError):
        return _error_of_status(error.response.status_code)
    if isinstance(error, (OSError, HTTPError)) and not isinstance(
        error, (requests.exceptions.InvalidJSONError, requests.exceptions.InvalidURL)
    ):
        return PacsUnreachableError(
            "the archive cannot be reached, or the connection broke; check that it runs and that the "
            "address in --studies is right, then ask again"
        )
    return PacsRefusedError(
        f"the archive's answer is not DICOMweb ({type(error).__name__}); check the address in --studies"
    )


def _error_of_status(status: int) -> RadFoundError:
    if status in (401, 403):
        return PacsRefusedError(
            f"the archive refuses this server (status {status}); check user and password, or "
            "pacs_token_file"
        )
    if status in (404, 410):
        return NotFoundError(
            "the archive does not have what was asked for; it may have been removed"
        )
    return PacsRefusedError(
        f"the archive could not do what was asked (status {status}); see the archive's log",
        is_about_the_document=status in (400, 409, 413, 415, 422),
    )


def _is_read_timeout(error: BaseException) -> bool:
    """Whether a connection broke because no byte came: requests wraps that in other errors."""
    return "timed out" in str(error).lower() and isinstance(error, requests.ConnectionError)


def _values(row: Mapping[str, Any], keyword: str) -> Sequence[Any]:
    tag = f"{tag_for_keyword(keyword):08X}"
    element = row.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _text(row: Mapping[str, Any], keyword: str) -> str:
    values = _values(row, keyword)
    return str(values[0]).strip() if values else ""


def _count(row: Mapping[str, Any], keyword: str) -> int | None:
    text = _text(row, keyword)
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None


def _study_row(uid: str, row: Mapping[str, Any]) -> StudyRow:
    modalities = tuple(str(each) for each in _values(row, "ModalitiesInStudy") if each)
    series, instances = (_count(row, name) or 0 for name in _COUNTS)
    date = re.sub(r"(\d{4})(\d\d)(\d\d)", r"\1-\2-\3", _text(row, "StudyDate"))
    description = _text(row, "StudyDescription")
    return StudyRow(uid, modalities, (series, instances), date, description)


def _series_row(row: Mapping[str, Any], study_uid: str) -> SeriesRow:
    number = _text(row, "SeriesNumber")
    return SeriesRow(
        study_uid,
        _text(row, "SeriesInstanceUID"),
        _text(row, "Modality"),
        int(number) if re.fullmatch(r"-?\d{1,9}", number) else 0,
        _count(row, "NumberOfSeriesRelatedInstances"),
    )
