"""The error tree of RadFound.

Every message states what was found, what was expected and what to do. `code` is stable and part of the
HTTP reply; `http_status` is the status of that reply.
"""

from __future__ import annotations

from collections.abc import Sequence


class RadFoundError(Exception):
    """Base of every error that RadFound raises on purpose."""

    code = "radfound_error"
    http_status = 400


class StudyError(RadFoundError):
    """A study cannot be used as it is."""

    code = "study_invalid"


class StudyUnreadableError(StudyError):
    """A file is missing, truncated, empty or not of the format that its name claims."""

    code = "study_unreadable"


class UnknownKindError(StudyUnreadableError):
    """A file's content is of no supported format."""

    code = "study_kind_unknown"
    http_status = 415


class ReaderFailedError(StudyUnreadableError):
    """A loader failed on a file unexpectedly; please report it."""


class StudyAmbiguousError(StudyError):
    """There are several series (or volumes of a 4D image) to choose from.

    Parameters
    ----------
    message : str
    choices : sequence of str
        Valid values of `series=` (or `volume=`).
    argument : str
        Name of the argument: "series" or "volume".
    words : sequence of str
        Description of each choice; empty if none is known.
    """

    code = "study_ambiguous"

    def __init__(
        self,
        message: str,
        choices: Sequence[str] = (),
        argument: str = "series",
        words: Sequence[str] = (),
    ):
        super().__init__(message)
        self.choices = tuple(choices)
        self.argument = argument
        self.words = tuple(words)


class GeometryError(StudyError):
    """Slices are missing or mixed, spacing is zero, or the axes do not span space."""

    code = "geometry_invalid"


class IntensityError(StudyError):
    """Voxels hold NaN or infinity, or a window or rescale cannot be applied."""

    code = "intensity_invalid"


class StudyTooLargeError(StudyError):
    """The study is larger than the stated limit."""

    code = "study_too_large"
    http_status = 413


class UnsafeArchiveError(StudyError):
    """An archive would write outside its folder, or unpacks to far more than it holds."""

    code = "archive_unsafe"


class PacsError(StudyError):
    """The archive (PACS) did not give or take what it was asked for."""

    code = "pacs_failed"
    http_status = 502


class PacsUnreachableError(PacsError):
    """No connection to the archive, or the connection broke."""

    code = "pacs_unreachable"


class PacsRefusedError(PacsError):
    """The archive refused the request, or answered with something that is not DICOMweb.

    Parameters
    ----------
    message : str
    is_about_the_document : bool
        Whether a document was refused, so that it makes no sense to send it again.
    """

    code = "pacs_refused"

    def __init__(self, message: str, *, is_about_the_document: bool = False):
        super().__init__(message)
        self.is_about_the_document = is_about_the_document


class PacsTimeoutError(PacsError):
    """The archive accepted the connection and did not answer in time."""

    code = "pacs_timeout"
    http_status = 504


class RequestError(RadFoundError):
    """A caller's argument is wrong; the message names it."""

    code = "request_invalid"


class UnsupportedError(RequestError):
    """The model behind the engine cannot do what was asked; the message names what it lacks."""

    code = "not_supported"
    http_status = 422


class CorrectionError(RequestError):
    """A correction does not match its schema; the message names the field."""

    code = "correction_invalid"


class NotFoundError(RadFoundError):
    """The given id is unknown."""

    code = "not_found"
    http_status = 404


class StorageError(RadFoundError):
    """A file that RadFound keeps beside the studies is damaged, or cannot be written."""

    code = "storage_failed"
    http_status = 503


class DamagedError(StorageError):
    """A file that RadFound keeps is damaged."""


class CheckpointError(RadFoundError):
    """A checkpoint or one of its parts is missing, or does not fit."""

    code = "checkpoint_unavailable"
    http_status = 503


class DeviceError(RadFoundError):
    """The requested device is not available."""

    code = "device_unavailable"
    http_status = 503


class AdapterError(RadFoundError):
    """An adapter is damaged or belongs to another base model."""

    code = "adapter_invalid"
    http_status = 409


class DatasetError(RadFoundError):
    """A data set is missing, incomplete or not in its published layout."""

    code = "dataset_invalid"


class ReaderStudyError(RequestError):
    """A reader study's configuration, plan or key is invalid; the message names the field."""

    code = "reader_study_invalid"


class TrainingError(RadFoundError):
    """Training cannot start or did not finish."""

    code = "training_failed"
    http_status = 409


class Cancelled(RadFoundError):
    """The caller cancelled the request before the answer was complete."""

    code = "cancelled"
    http_status = 499


class Busy(RadFoundError):
    """The queue of requests is full.

    Parameters
    ----------
    message : str
    retry_after_s : int
        Seconds to wait before the next attempt.
    """

    code = "busy"
    http_status = 503

    def __init__(self, message: str, retry_after_s: int = 5):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelServerError(RadFoundError):
    """The server that runs the model failed, ended an answer in the middle, or sent what is no answer."""

    code = "model_server_failed"
    http_status = 502


class ModelServerUnreachableError(ModelServerError):
    """Nothing accepts connections at the model server's address."""

    code = "model_server_unreachable"


class ModelServerKeyError(ModelServerError):
    """The model server refused the key, or wants one."""

    code = "model_server_key_refused"


class ModelServerTimeoutError(ModelServerError):
    """The model server was silent for too long, or an answer took longer than its limit."""

    code = "model_server_timeout"
    http_status = 504


class ModelSettingsError(RequestError):
    """The settings of the models, or the name of one, are wrong; the message names the field."""

    code = "models_invalid"
