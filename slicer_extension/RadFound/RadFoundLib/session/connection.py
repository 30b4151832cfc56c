"""Connection to a server: its health, training and adapters; free of Qt and MRML.

All methods are called on the main thread. Requests run on the threads of two `Jobs`; `poll`
delivers their results.
"""

import logging
import time
from typing import Any, Callable, Optional

from ..net.address import Address
from ..net.client import Client, ServerInfo, TrainingStatus
from ..net.errors import ClientError
from ..net.replies import TOKEN_NEEDED
from ..net.transport import NOT_TRUSTED
from ..translation import _
from .jobs import Job, Jobs

logger = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
TRAINING_LOOK_S = 1.0

Done = Callable[[Any], None]


class Connection:
    """Connection to one server at a time, polled until it is disconnected.

    Attributes
    ----------
    state : {"away", "connecting", "connected", "lost", "refused"}
    trouble : str
        Why the server does not answer, in words for the reader.
    consents : set of str
        Addresses of servers that images may be sent to.
    tokens : dict of str to str
        The token of each server that asked for one, by `Address.origin`; in memory only.
    ca_files : dict of str to str
        Files of further certificates to trust, by `Address.origin`.
    learner : str or None
        The model that is taught, and whose adapters are listed; None for the server's default one.
    is_certificate_trusted : bool
        False if the server's TLS certificate was refused.
    work, errands : Jobs
        Threads for long requests, and for short ones that must not wait.
    """

    def __init__(self) -> None:
        self.work = Jobs()
        self.errands = Jobs()
        self.state = "away"
        self.trouble = ""
        self.client: Optional[Client] = None
        self.info: Optional[ServerInfo] = None
        self.training: Optional[TrainingStatus] = None
        self.health: dict = {}
        self.adapters: dict = {"active": None, "adapters": []}
        self.consents: set = set()
        self.tokens: dict = {}
        self.ca_files: dict = {}
        self.learner: Optional[str] = None
        self.is_certificate_trusted = True
        self._listeners: list = []
        self._looked = self._looked_at_training = 0.0

    # News -------------------------------------------------------------------------------------

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the topic of each change.

        Topics: "server", "turn" (a question was asked or answered), "token" (new text of the open
        answer), "transfer", "corrections", "training", "adapters", "wordings" (the department's
        wording) and "effect" (of the newest correction).
        """
        self._listeners.append(listener)

    def _tell(self, *topics: str) -> None:
        for topic in topics:
            for listener in list(self._listeners):
                listener(topic)

    def poll(self) -> None:
        """Deliver results, and check the server's health and training from time to time."""
        self.work.poll()
        self.errands.poll()
        now = time.monotonic()
        if self.client is None or self.state == "connecting" or self.errands.is_busy:
            return
        if self.is_training and now - self._looked_at_training > TRAINING_LOOK_S:
            self.look_at_training()
        # An upload may fill a slow network; the server is not lost because it is slow then.
        elif not self.work.is_busy and now - self._looked > HEARTBEAT_S and self.state != "refused":
            self._look()

    def close(self) -> None:
        """Stop all jobs; no callback is called afterwards."""
        self._listeners.clear()
        self.client, self.state = None, "away"  # the panel may live a little longer
        self.work.close()
        self.errands.close()

    # Server -----------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """The server's normalised address; empty without a server."""
        return self.client.address if self.client is not None else ""

    @property
    def has_consent(self) -> bool:
        """Whether images may be sent to this server."""
        return self.address in self.consents

    @property
    def models(self) -> list:
        """Names of the server's models if it has several; empty otherwise."""
        models = self.health.get("models")
        names = [
            str(model.get("name")) if isinstance(model, dict) else str(model)
            for model in (models if isinstance(models, list) else [])
        ]
        return names if len(names) > 1 else []

    @property
    def reasons_not_to_learn(self) -> dict:
        """Why a model of the server cannot be taught, by its name; empty for one that can."""
        models = self.health.get("models")
        rows = [
            row for row in (models if isinstance(models, list) else []) if isinstance(row, dict)
        ]
        return {str(row.get("name")): str(row.get("cannot_learn") or "") for row in rows}

    def teach_model(self, model: Optional[str]) -> None:
        """Choose the model to teach, and fetch its adapters."""
        client = self.client
        if model == self.learner or client is None or self.state != "connected":
            return
        self.learner = model

        def done(found: dict) -> None:
            if self.learner == model:
                self.adapters = found
                self._tell("adapters")

        self._errand(lambda job: client.adapters(job.cancellation, model), done)

    @property
    def can_write_archive(self) -> bool:
        """Whether the server writes a reader's reports to an archive."""
        pacs = self.health.get("pacs")
        return isinstance(pacs, dict) and pacs.get("write") in (True, "reader", "draft")

    @property
    def is_training(self) -> bool:
        """Whether a training is running, as far as is known."""
        return self.training is not None and not self.training.is_over

    def connect(self, address: str, token: str = "") -> None:
        """Connect to a server, with a new token or the one that is remembered for it.

        ClientError "request" if the address or the token is invalid.
        """
        origin = Address.parse(address).origin
        client = Client(
            address, token or self.tokens.get(origin), ca_file=self.ca_files.get(origin, "")
        )
        if token:
            self.tokens[origin] = token
        if client.address != self.address:
            self.disconnect()
        self.client = client
        self._set_state("connecting")
        self._greet()

    def disconnect(self) -> None:
        """Disconnect from the server."""
        self.errands.cancel_all()
        self.client = self.info = self.training = self.learner = None
        self.health = {}
        self.adapters = {"active": None, "adapters": []}
        self._set_state("away")
        self._tell("training", "adapters")

    def _greet(self) -> None:
        client, learner = self.client, self.learner
        assert client is not None

        def done(found: tuple) -> None:
            self.info, self.health, self.adapters, self.training = found
            self._looked = time.monotonic()
            self._set_state("connected")
            self._tell("adapters", "training")
            self._greeted()

        self._errand(
            lambda job: (
                client.info(job.cancellation),
                client.health(job.cancellation),
                client.adapters(job.cancellation, learner),
                client.training_status(job.cancellation),
            ),
            done,
        )

    def _greeted(self) -> None:
        """Continue once the server has answered; for subclasses."""

    def _look(self) -> None:
        """Check the server's health; fetch its state again after an outage."""
        client = self.client
        assert client is not None
        self._looked = time.monotonic()

        def done(health: dict) -> None:
            if self.state != "connected":
                self._greet()
            elif health.get("training") is True and not self.is_training:
                self.look_at_training()

        self._errand(lambda job: client.health(job.cancellation), done)

    def _set_state(self, state: str, trouble: str = "") -> None:
        self.state, self.trouble = state, trouble
        self._tell("server")

    def _errand(
        self,
        function: Callable[[Job], Any],
        done: Optional[Done] = None,
        failed: Optional[Done] = None,
    ) -> None:
        """Run a short request; drop its result if the server was changed meanwhile."""
        client = self.client

        def on_done(value: Any) -> None:
            if self.client is client and done is not None:
                done(value)

        def on_error(error: Exception) -> None:
            if self.client is client:
                self.note(error)
                if failed is not None:
                    failed(error)

        self.errands.submit(function, on_done, on_error)

    def note(self, error: Exception) -> None:
        """Update the connection's state from an error."""
        kind = error.kind if isinstance(error, ClientError) else ""
        code = error.code if isinstance(error, ClientError) else ""
        self.is_certificate_trusted = code != NOT_TRUSTED
        if kind in ("unreachable", "timeout"):
            self._set_state("lost", words_of(error))
        elif code == TOKEN_NEEDED:
            if self.client is not None:
                self.tokens.pop(self.client.origin, None)
            self._set_state("refused", words_of(error))
        elif self.state == "connecting" and kind != "cancelled":
            self._set_state("lost", words_of(error))

    # Teaching ---------------------------------------------------------------------------------

    def train(self, failed: Callable[[str], None]) -> None:
        """Start fine-tuning the chosen model on the server's corrections."""
        settings = {"base": self.learner} if self.learner else {}
        self._command(
            lambda client, cancel: client.train(settings, cancel), failed, is_training=True
        )

    def stop_training(self, failed: Callable[[str], None]) -> None:
        """Stop the training."""
        self._command(lambda client, cancel: client.stop_training(cancel), failed, is_training=True)

    def activate(self, adapter: Optional[str], failed: Callable[[str], None]) -> None:
        """Activate an adapter (None: the base model)."""
        model = self.learner
        self._command(lambda client, cancel: client.activate(adapter, cancel, model), failed)

    def roll_back(self, failed: Callable[[str], None]) -> None:
        """Return to the adapter that was active before."""
        model = self.learner
        self._command(lambda client, cancel: client.rollback(cancel, model), failed)

    def look_at_training(self) -> None:
        """Fetch the training's progress; at its end, also the active adapter."""
        client = self.client
        if client is None:
            return
        self._looked_at_training = time.monotonic()

        def done(status: TrainingStatus) -> None:
            was_training = self.is_training
            self.training = status
            self._tell("training")
            if was_training and status.is_over:
                self._greet()

        self._errand(lambda job: client.training_status(job.cancellation), done)

    def _command(
        self,
        call: Callable[[Client, Any], Any],
        failed: Callable[[str], None],
        is_training: bool = False,
    ) -> None:
        client = self.client
        if client is None or self.state != "connected":
            failed(_("Connect to a server first."))
            return

        def done(_value: Any) -> None:
            if is_training:
                self.training = TrainingStatus("running")
                self.look_at_training()
            else:
                self._greet()

        self._errand(
            lambda job: call(client, job.cancellation), done, lambda error: failed(words_of(error))
        )


def words_of(error: Exception) -> str:
    """Return an error's message for the reader."""
    if isinstance(error, ClientError):
        return error.message
    logger.error("RadFound failed", exc_info=error)
    return _("Internal error in RadFound; see Slicer's error log.")
