"""Corrections on their way: kept on disk until a server has acknowledged them."""

from dataclasses import dataclass
from typing import Any, Dict, List, Optional

from .cancellation import Cancellation
from .client import Client
from .errors import ClientError


def new_correction(
    answer: Dict[str, Any],
    verdict: str,
    author: str,
    text: str = "",
) -> Dict[str, Any]:
    """Make a `radfound.correction/1` of an answer, with an id and a time of its own.

    Parameters
    ----------
    answer : dict
        As `Client.ask` returns it.
    verdict : {"accepted", "edited", "rejected"}
    author : str
    text : str
        What the reader says instead: needed for "edited", ignored for "accepted", may be empty
        for "rejected".

    Raises
    ------
    ClientError
        Of kind "request", if author or text is missing.
    """
    raise NotImplementedError


@dataclass(frozen=True)
class Waiting:
    """A correction that has not been acknowledged.

    Parameters
    ----------
    id : str
    server : str
        Address of the server it is for, as `Client.address` gives it.
    correction : dict
    refusal : str or None
        Why the server will not have it; such a one is sent again only when asked to.
    """

    id: str
    server: str
    correction: Dict[str, Any]
    refusal: Optional[str] = None


@dataclass(frozen=True)
class Flushed:
    """What became of the corrections that were waiting.

    Parameters
    ----------
    sent : tuple of str
        Ids that the server acknowledged; they are on disk no more.
    refused : tuple of Waiting
        Those that it will not have; they stay on disk.
    kept : int
        How many of this server's still wait to be tried again.
    error : ClientError or None
        Why sending ended early.
    """

    sent: tuple[str, ...]
    refused: tuple[Waiting, ...]
    kept: int
    error: Optional[ClientError] = None


class Outbox:
    """Corrections in a folder, each in a file of its own, readable by this user only.

    Several threads, and several Slicers, may use one folder: a file appears whole or not at all,
    and a correction sent twice is recorded once, by its id.

    Parameters
    ----------
    folder : str
        Made when the first correction is added.
    """

    def __init__(self, folder: str):
        self.folder = folder

    def add(self, correction: Dict[str, Any], server: str) -> Waiting:
        """Keep a correction; when this returns it outlives a crash. OSError if it cannot be."""
        raise NotImplementedError

    def waiting(self, server: Optional[str] = None) -> List[Waiting]:
        """Return what waits (for one server), oldest first; files that are damaged stay aside."""
        raise NotImplementedError

    def flush(
        self,
        client: Client,
        cancel: Optional[Cancellation] = None,
        again: bool = False,
    ) -> Flushed:
        """Send what waits for this client's server; never raises ClientError.

        Parameters
        ----------
        client : Client
        cancel : Cancellation, optional
        again : bool
            Also try those that were refused.
        """
        raise NotImplementedError

    def discard(self, correction_id: str) -> None:
        """Forget a correction that waits; the reader has decided so."""
        raise NotImplementedError
