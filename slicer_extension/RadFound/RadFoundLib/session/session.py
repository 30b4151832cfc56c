"""The session with a server: questions, answers, corrections and the next study."""

from collections.abc import Hashable, Sequence
from typing import Any, Callable, Optional

from ..net.client import Client
from ..net.errors import ClientError
from ..translation import _
from .connection import Connection, Done, words_of
from .conversation import Conversation, Turn
from .jobs import Job
from .outbox import Flushed, Outbox, new_correction
from .study import Sending, Study, throttled, upload


class Session(Connection):
    """A connection with the conversations about each study and the open request.

    Parameters
    ----------
    outbox : Outbox
        Corrections that wait for their server.

    Attributes
    ----------
    turn : Turn or None
        The turn that is being answered.
    sending : Sending or None
        Progress of its upload.
    """

    def __init__(self, outbox: Outbox):
        super().__init__()
        self.outbox = outbox
        self.corrections: list = []
        self.corrections_of: tuple = ()
        self.sending: Optional[Sending] = None
        self.turn: Optional[Turn] = None
        self._job: Optional[Job] = None
        self._conversations: dict = {}
        self._images: dict = {}

    def disconnect(self) -> None:
        """Disconnect from the server; conversations stay."""
        self.stop()
        self.corrections, self.corrections_of = [], ()
        self._images.clear()
        super().disconnect()
        self._tell("corrections")

    def _greeted(self) -> None:
        self.flush()
        self.refresh_corrections(self.corrections_of)

    # Questions --------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether a question, an upload or a download is under way."""
        return self._job is not None

    def conversation(self, key: Hashable) -> Conversation:
        """Return the conversation about a study."""
        return self._conversations.setdefault(key, Conversation())

    def forget(self, key: Hashable) -> None:
        """Remove a study's conversation."""
        self._conversations.pop(key, None)
        self._tell("turn")

    def forget_all(self) -> None:
        """Remove all conversations; called when the scene is closed."""
        self.stop()
        self._conversations.clear()
        self._images.clear()
        self._tell("turn")

    def ask(
        self, study: Study, task: str, question: Optional[str] = None, with_history: bool = True
    ) -> Turn:
        """Ask about a study; the topics "token" and "turn" announce the streamed answer.

        Raises
        ------
        ClientError
            Of kind "request": not connected, another question is open, or the reader has not
            agreed to send images to this server.
        """
        client = self._ready(study)
        conversation = self.conversation(study.key)
        history = conversation.history() if with_history and task == "vqa" else []
        turn = Turn(task, question, study.where, study.region, history)
        conversation.turns.append(turn)
        self.turn = turn

        def work(job: Job) -> dict:
            return client.ask(
                task,
                self._bring(job, client, study),
                question,
                history,
                study.region,
                on_token=lambda text: job.report(text),
                cancel=job.cancellation,
            )

        self._begin(work, turn)
        self._tell("turn")
        return turn

    def stop(self) -> None:
        """Stop the open question, an upload included."""
        if self._job is not None:
            self._job.cancel()

    def show_evidence(
        self, study: Study, turn: Turn, done: Done, failed: Callable[[str], None]
    ) -> None:
        """Ask a turn's question again, for its evidence map; `done` gets (answer, NRRD bytes or None)."""
        client = self._ready(study)

        def work(job: Job) -> Any:
            images = self._bring(job, client, study)
            return client.evidence(
                turn.task, images, turn.question, turn.history, turn.region, job.cancellation
            )

        def on_error(error: Exception) -> None:
            self._after_work(error)
            failed(words_of(error))

        def on_done(found: Any) -> None:
            self._after_work(None)
            done(found)

        self._job = self.work.submit(work, on_done, on_error, self._progress)

    def _ready(self, study: Study) -> Client:
        if self.client is None or self.state in ("away", "connecting"):
            raise ClientError(_("Connect to a server first."), "request")
        if self.is_busy:
            raise ClientError(_("Wait for the answer, or stop it first."), "request")
        if study.must_be_sent and not self.has_consent:
            raise ClientError(_("Agree to send images to this server first."), "request")
        return self.client

    def _begin(self, work: Callable[[Job], dict], turn: Turn) -> None:
        def on_done(answer: dict) -> None:
            turn.answer, turn.text, turn.state = answer, answer["text"], "answered"
            self._after_work(None)

        def on_error(error: Exception) -> None:
            is_stopped = isinstance(error, ClientError) and error.kind == "cancelled"
            turn.state = "stopped" if is_stopped else "failed"
            turn.error = words_of(error)
            self._after_work(error)

        def on_progress(value: Any) -> None:
            if isinstance(value, str):
                turn.state = "answering"
                turn.text += value
                self._tell("token")
            else:
                self._progress(value)

        self._job = self.work.submit(work, on_done, on_error, on_progress)

    def _progress(self, value: Any) -> None:
        if isinstance(value, Sending):
            self.sending = value
            self._tell("sending")
        else:
            state, image = value
            self._images[self.address, state] = image
            self.sending = None
            self._tell("sending")

    def _after_work(self, error: Optional[Exception]) -> None:
        self._job = self.turn = self.sending = None
        if error is not None:
            if isinstance(error, ClientError) and error.code == "not_found":
                self._images.clear()  # lost on the server: the next question uploads again
            self.note(error)
        self._tell("sending", "turn")

    def _bring(self, job: Job, client: Client, study: Study) -> Sequence[str]:
        """Return the ids of a study's images, uploading missing ones; in a job's thread."""
        images = []
        for part in study.parts:
            known = part.image or self._images.get((client.address, part.state))
            if not known:
                known = upload(job, client, part)
                job.report((part.state, known))
            images.append(known)
        return list(dict.fromkeys(images))

    # Corrections ------------------------------------------------------------------------------

    def judge(
        self,
        turn: Turn,
        verdict: str,
        author: str,
        text: str = "",
        region: Optional[dict] = None,
    ) -> str:
        """Save a verdict on disk and send it if the server is connected; returns its id.

        The correction is about `region`, or else about the region of the question.

        Raises
        ------
        ClientError
            Of kind "request": no author, no text, or the disk is full.
        """
        correction = new_correction(turn.answer or {}, verdict, author, text, region or turn.region)
        self.outbox.add(correction, self.address)
        turn.verdict = verdict
        turn.correction = text.strip() if verdict != "accepted" else ""
        self._tell("turn", "corrections")
        self.flush()
        return str(correction["id"])

    def flush(self, again: bool = False) -> None:
        """Send the corrections that wait for this server; `again`: also refused ones."""
        client = self.client
        if client is None or self.state != "connected":
            return

        def done(flushed: Flushed) -> None:
            if flushed.error is not None:
                self.note(flushed.error)
            self._tell("corrections")
            if flushed.sent:
                self.refresh_corrections(self.corrections_of)

        self._errand(lambda job: self.outbox.flush(client, job.cancellation, again), done)

    def images_of(self, study: Study) -> tuple:
        """Return the ids of a study's images that are known to be on the server."""
        found = [part.image or self._images.get((self.address, part.state)) for part in study.parts]
        return tuple(image for image in found if image)

    def refresh_corrections(self, images: Sequence[str]) -> None:
        """Fetch the server's corrections; `corrections_here` then returns those of `images`."""
        client = self.client
        self.corrections_of = tuple(images)
        if client is None or self.state != "connected":
            self.corrections = []
            self._tell("corrections")
            return

        def done(rows: list) -> None:
            self.corrections = rows
            self._tell("corrections")

        self._errand(lambda job: client.corrections(cancel=job.cancellation), done)

    def corrections_here(self) -> list:
        """Return the recorded corrections of the chosen study, newest first."""
        return [
            row
            for row in reversed(self.corrections)
            if set(row.get("images") or ()) & set(self.corrections_of)
        ]

    def new_corrections(self) -> int:
        """Return the number of corrections since the newest adapter."""
        made = [
            str((adapter.get("manifest") or {}).get("created", ""))
            for adapter in self.adapters["adapters"]
        ]
        newest = max(made, default="")
        return sum(str(row.get("created", "")) > newest for row in self.corrections)

    # Studies ----------------------------------------------------------------------------------

    def next_study(
        self, strategy: str, folder: str, done: Done, failed: Callable[[str], None]
    ) -> None:
        """Fetch the next study; `done` gets None, or the server's choice and the file's path."""
        client = self.client
        if client is None or self.state != "connected" or self.is_busy:
            failed(_("Connect to a server first, and wait for the answer."))
            return

        def work(job: Job) -> Any:
            choice = client.next_study(strategy, job.cancellation)
            if choice is None:
                return None
            progress = throttled(job, str(choice["id"]))
            return choice, client.download(choice["id"], folder, progress, job.cancellation)

        def on_done(found: Any) -> None:
            self._after_work(None)
            done(found)

        def on_error(error: Exception) -> None:
            self._after_work(error)
            failed(words_of(error))

        self._job = self.work.submit(work, on_done, on_error, self._progress)
