"""A client of a RadFound server, for Slicer's own Python (3.9 and later)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Callable, Dict, List, Optional, Tuple, Union

from .cancellation import Cancellation
from .errors import ClientError

__all__ = ["Client", "ClientError", "ServerInfo", "TrainingStatus", "image_id"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ServerInfo:
    """What a server says about itself.

    Parameters
    ----------
    name, version : str
        Of the app, such as RadFound and 0.1.0.
    models : tuple of str
        Such as radfound_vqa, radfound_caption, radfound_report.
    strategies : dict of str to str
        Ways to choose the next study, each with its description.
    checkpoint : str
        The model that answers, such as radfound-mini.
    adapter : str or None
        The adapter that answers with it; None is the base model.
    corrections : int
        How many were recorded so far.
    is_training : bool
    """

    name: str
    version: str
    models: Tuple[str, ...]
    strategies: Dict[str, str]
    checkpoint: str
    adapter: Optional[str]
    corrections: int
    is_training: bool


@dataclass(frozen=True)
class TrainingStatus:
    """How far the newest training is.

    Parameters
    ----------
    state : str
        "none" (there was no training yet), "waiting", "running", "published" (a new adapter
        answers), "refused" (learnt, but the gate kept it from being published), "failed" or
        "stopped".
    message : str
        In words: the step, the gate's reason, or what went wrong.
    step, total : int
        0 of 0 where it is not known yet.
    seconds_left : float or None
    adapter : str or None
        The adapter that was published.
    metrics : dict
        What the gate measured; empty before the end.
    """

    state: str
    message: str = ""
    step: int = 0
    total: int = 0
    seconds_left: Optional[float] = None
    adapter: Optional[str] = None
    metrics: Dict[str, Any] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come."""
        return self.state not in ("waiting", "running")


def image_id(content_hash: str) -> str:
    """Return the id under which a volume with this content hash is kept on a server."""
    raise NotImplementedError


class Client:
    """Speaks with one RadFound server; may be used by several threads.

    Every call has a time limit, can be cancelled at any moment (also while it waits for the
    first byte), and either returns what was asked for or raises ClientError. TLS certificates are
    checked, redirects are not followed, and the token is kept in memory only.

    Parameters
    ----------
    address : str
        Such as "127.0.0.1:8000" or "https://radfound.example.org/api"; http:// if there is none.
    token : str, optional
        Sent as `Authorization: Bearer`.
    timeout_s : float
        For calls that answer at once.
    answer_timeout_s : float
        How long an answer may stay silent; the first one may load the model.

    Raises
    ------
    ClientError
        Of kind "request", if the address is none, or holds a password.
    """

    def __init__(
        self,
        address: str,
        token: Optional[str] = None,
        timeout_s: float = 15.0,
        answer_timeout_s: float = 180.0,
    ):
        self.address: str = address

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine (a loopback address)."""
        raise NotImplementedError

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read along: this machine, or TLS."""
        raise NotImplementedError

    # Server -----------------------------------------------------------------------------------

    def info(self, cancel: Optional[Cancellation] = None) -> ServerInfo:
        """Return what the server is; the call to make on connecting."""
        raise NotImplementedError

    def health(self, cancel: Optional[Cancellation] = None) -> Dict[str, Any]:
        """Return `GET /radfound/health` as it is: status, model, corrections, training."""
        raise NotImplementedError

    # Images -----------------------------------------------------------------------------------

    def has(self, content_hash: str, cancel: Optional[Cancellation] = None) -> bool:
        """Whether the server keeps the volume with this content hash already."""
        raise NotImplementedError

    def upload(
        self,
        source: Union[str, bytes, BinaryIO],
        name: str,
        content_hash: Optional[str] = None,
        progress: Optional[Progress] = None,
        cancel: Optional[Cancellation] = None,
    ) -> str:
        """Bring a volume to the server, unless it is there.

        Parameters
        ----------
        source : str, bytes or binary file
            Path of a file, its content, or an open file that can be read from its beginning.
        name : str
            File name, of which only the suffix (.nii, .nii.gz, .nrrd, ...) reaches the server.
        content_hash : str, optional
            SHA-256 in hex of the volume (voxels and geometry); of the bytes of `source` if None.
        progress : callable(done, total), optional
            Bytes read from source; called on the calling thread.
        cancel : Cancellation, optional

        Returns
        -------
        str
            The image's id, to ask and to correct with: `image_id(content_hash)`.
        """
        raise NotImplementedError

    def download(
        self,
        image: str,
        folder: str,
        progress: Optional[Progress] = None,
        cancel: Optional[Cancellation] = None,
    ) -> str:
        """Fetch an image of the server's datastore into a folder and return the file's path.

        `progress` gets a total of 0 where the server does not say how much is to come.
        """
        raise NotImplementedError

    def next_study(
        self, strategy: str, cancel: Optional[Cancellation] = None
    ) -> Optional[Dict[str, Any]]:
        """Return {"id", "reason", ...} of the study to read next; None if all were read."""
        raise NotImplementedError

    # Answers ----------------------------------------------------------------------------------

    def ask(
        self,
        task: str,
        images: Sequence[str],
        question: Optional[str] = None,
        history: Sequence[Dict[str, str]] = (),
        region: Optional[Dict[str, Any]] = None,
        max_new_tokens: Optional[int] = None,
        on_token: Optional[Callable[[str], None]] = None,
        cancel: Optional[Cancellation] = None,
    ) -> Dict[str, Any]:
        """Ask about a study; closing the connection stops the server, too.

        Parameters
        ----------
        task : {"vqa", "caption", "report"}
        images : sequence of str
            Ids of the study's images; the first is the one that regions are in.
        question : str, optional
            Needed for "vqa".
        history : sequence of {"question": str, "answer": str}
            Earlier turns, oldest first.
        region : dict, optional
            {"box_mm": [[x0, y0, z0], [x1, y1, z1]]} or {"slice_mm": {"point", "normal"}}; RAS, mm.
        max_new_tokens : int, optional
        on_token : callable(str), optional
            Gets each piece of text as it comes, on the calling thread.
        cancel : Cancellation, optional

        Returns
        -------
        dict
            The whole answer, `radfound.answer/1`.
        """
        raise NotImplementedError

    def evidence(
        self,
        task: str,
        images: Sequence[str],
        question: Optional[str] = None,
        history: Sequence[Dict[str, str]] = (),
        region: Optional[Dict[str, Any]] = None,
        cancel: Optional[Cancellation] = None,
    ) -> Tuple[Dict[str, Any], Optional[bytes]]:
        """Ask for an answer with its evidence map.

        Returns
        -------
        answer : dict
        map : bytes or None
            An NRRD file in the volume's geometry; None if this server gives no evidence map.
        """
        raise NotImplementedError

    # Corrections ------------------------------------------------------------------------------

    def corrections(
        self, image: Optional[str] = None, cancel: Optional[Cancellation] = None
    ) -> List[Dict[str, Any]]:
        """Return the corrections of an image (or all), oldest first."""
        raise NotImplementedError

    def send_correction(
        self, correction: Dict[str, Any], cancel: Optional[Cancellation] = None
    ) -> bool:
        """Send a `radfound.correction/1`; False if the server had it already.

        See `outbox.new_correction`; `Outbox.flush` is what a panel calls.
        """
        raise NotImplementedError

    # Training ---------------------------------------------------------------------------------

    def train(
        self,
        settings: Optional[Dict[str, Any]] = None,
        cancel: Optional[Cancellation] = None,
    ) -> None:
        """Start to learn from the corrections; ClientError "request" if it is running already."""
        raise NotImplementedError

    def training_status(self, cancel: Optional[Cancellation] = None) -> TrainingStatus:
        """Return how far the newest training is."""
        raise NotImplementedError

    def stop_training(self, cancel: Optional[Cancellation] = None) -> None:
        """Stop the training that runs; nothing happens if there is none."""
        raise NotImplementedError

    def adapters(self, cancel: Optional[Cancellation] = None) -> Dict[str, Any]:
        """Return {"active": id or None, "adapters": [{"id", "active", "manifest"}, ...]}."""
        raise NotImplementedError

    def activate(
        self, adapter: Optional[str], cancel: Optional[Cancellation] = None
    ) -> Dict[str, Any]:
        """Let an adapter (None: the base model) answer; returns what `adapters` does."""
        raise NotImplementedError

    def rollback(self, cancel: Optional[Cancellation] = None) -> Dict[str, Any]:
        """Go back to what answered before; returns what `adapters` does."""
        raise NotImplementedError
