"""The session with a server: questions, answers, corrections and the next study."""

from collections.abc import Hashable, Sequence
from typing import Any, Callable, Optional

from ..net.client import Client
from ..net.errors import ClientError
from ..scene.evidencemap import EvidenceMap
from ..translation import _
from .connection import Done, words_of
from .conversation import Conversation, Turn
from .department import Department
from .jobs import Job
from .outbox import Flushed, Outbox, new_correction
from .study import Part, Study, Transfer, throttled, upload
from .template import Template


class Session(Department):
    """A connection with the conversations about each study and the open request.

    Parameters
    ----------
    outbox : Outbox
        Corrections that wait for their server.

    Attributes
    ----------
    reader : str
        Tells this reader from others to whom the server gives other studies; no name.
    turn : Turn or None
        The turn that is being answered.
    transfer : Transfer or None
        Progress of its upload, or of the download of a study.
    """

    def __init__(self, outbox: Outbox):
        super().__init__()
        self.outbox = outbox
        self.reader = ""
        self.corrections_of: tuple = ()
        self.transfer: Optional[Transfer] = None
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
        self.refresh_wordings()

    # Questions --------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether a question, an upload or a download is under way."""
        return self._job is not None

    def conversation(self, key: Hashable) -> Conversation:
        """Return the conversation about a study."""
        return self._conversations.setdefault(key, Conversation())

    def restore(self, key: Hashable, conversation: Conversation) -> None:
        """Put a kept conversation in the place of the study's own."""
        self._conversations[key] = conversation
        self._tell("turn")

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
        self,
        study: Study,
        task: str,
        question: Optional[str] = None,
        with_history: bool = True,
        model: Optional[str] = None,
        known: str = "",
        recall: bool = True,
    ) -> Turn:
        """Ask about a study; the topics "token" and "turn" announce the streamed answer.

        Parameters
        ----------
        study : Study
        task : {"vqa", "caption", "report"}
        question : str, optional
            Required for "vqa".
        with_history : bool
            Whether earlier turns are sent as context.
        model : str, optional
            The model that answers, if the server has several.
        known : str
            What the reader allows to be sent about the study, in words.
        recall : bool
            Whether a reader's earlier text about the same question may be the answer.

        Raises
        ------
        ClientError
            Of kind "request": not connected, another question is open, or the reader has not
            agreed to send images to this server.
        """
        client = self._ready(study)
        conversation = self.conversation(study.key)
        history = conversation.history() if with_history and task == "vqa" else []
        if known:
            history = [
                {"question": _("What is known about this study?"), "answer": known},
                *history,
            ]
        turn = Turn(
            task, question, study.where, study.region, history, recall=recall, prior=study.prior
        )
        conversation.turns.append(turn)
        self.turn = turn

        def work(job: Job) -> dict:
            images = self._bring(job, client, study)
            if study.prior_part is not None:
                turn.prior = self._bring_part(job, client, study.prior_part)
            return client.ask(
                task,
                images,
                question,
                history,
                study.region,
                model=model,
                recall=recall,
                prior=turn.prior,
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
        self,
        study: Study,
        turn: Turn,
        text: Optional[str],
        done: Callable[[EvidenceMap], None],
        failed: Callable[[str], None],
    ) -> None:
        """Fetch the language model's evidence map of an answer, or of a sentence of it.

        Parameters
        ----------
        study : Study
            The whole study of the turn.
        turn : Turn
            Answered by a server; see `Turn.can_be_explained`.
        text : str or None
            The sentence; None for the whole answer.
        done : callable(EvidenceMap)
        failed : callable(str)
            Gets the reason in words.

        Raises
        ------
        ClientError
            As for `ask`.
        """
        client, answer = self._ready(study), turn.answer or {}

        def work(job: Job) -> EvidenceMap:
            if list(self._bring(job, client, study)) != list(answer["images"]):
                raise ClientError(
                    _("The volume has changed since this answer: ask again."), "request"
                )
            file = client.evidence(
                answer, text, turn.history, turn.region, turn.prior, job.cancellation
            )
            return EvidenceMap.read(file)

        self._fetch(work, done, failed)

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
            turn.receive(answer)
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
        if isinstance(value, Transfer):
            self.transfer = value
            self._tell("transfer")
        else:
            state, image = value
            self._images[self.address, state] = image
            self.transfer = None
            self._tell("transfer")

    def _after_work(self, error: Optional[Exception]) -> None:
        self._job = self.turn = self.transfer = None
        if error is not None:
            if isinstance(error, ClientError) and error.code == "not_found":
                self._images.clear()  # lost on the server: the next question uploads again
            self.note(error)
        self._tell("transfer", "turn")

    def _bring(self, job: Job, client: Client, study: Study) -> Sequence[str]:
        """Return the ids of a study's images, uploading missing ones; in a job's thread."""
        return list(dict.fromkeys(self._bring_part(job, client, part) for part in study.parts))

    def _bring_part(self, job: Job, client: Client, part: Part) -> str:
        known = part.image or self._images.get((client.address, part.state))
        if not known:
            known = upload(job, client, part)
            job.report((part.state, known))
        return str(known)

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
        if turn.template:
            return self._judge_template(turn, verdict, text)
        correction = new_correction(turn.answer or {}, verdict, author, text, region or turn.region)
        self.outbox.add(correction, self.address)
        turn.verdict = verdict
        turn.correction = text.strip() if verdict != "accepted" else ""
        turn.correction_id = str(correction["id"])
        turn.typed = None
        self._tell("turn", "corrections")
        self.flush()
        return turn.correction_id

    def take_back(self, correction: str, author: str, done: Callable[[str], None]) -> None:
        """Take a correction back, also one that is not sent yet; `done` gets the outcome in words.

        Raises
        ------
        ClientError
            Of kind "request": no author, or not connected.
        """

        def taken_back(_found: Any = None) -> None:
            for each in self._turns_of(correction):
                each.undo_verdict()
            done(_("Taken back: it is no longer learnt from."))
            self._tell("turn", "corrections")

        waiting = [row.id for row in self.outbox.waiting()]
        if correction in waiting:
            self.outbox.discard(correction)
            taken_back()
            return

        def withdrawn(_found: Any) -> None:
            taken_back()
            self.refresh_corrections(self.corrections_of)
            self.refresh_wordings()

        self._withdraw(correction, author, withdrawn, done)

    def _turns_of(self, correction: str) -> list:
        conversations = self._conversations.values()
        return [
            turn
            for each in conversations
            for turn in each.turns
            if turn.correction_id == correction
        ]

    def _judge_template(self, turn: Turn, verdict: str, text: str) -> str:
        """Note a verdict on a filled template here: its words are not the model's to learn from."""
        turn.verdict = verdict
        turn.correction = text.strip() if verdict != "accepted" else ""
        self._tell("turn")
        return ""

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
                self.refresh_wordings()
                self.preview(flushed.sent[-1])

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

    # Studies and templates ---------------------------------------------------------------------

    def fill_template(self, study: Study, template: Template, model: Optional[str] = None) -> Turn:
        """Ask each question of a template, and put the answers into a draft of a report.

        An answer that is empty or too unsure stays blank for the reader.

        Raises
        ------
        ClientError
            As for `ask`.
        """
        client = self._ready(study)
        turn = Turn("report", None, study.where, study.region, template=template.name)
        self.conversation(study.key).turns.append(turn)
        self.turn = turn

        def work(job: Job) -> dict:
            images = self._bring(job, client, study)
            answers = [
                client.ask(
                    "vqa", images, question, [], study.region, model=model, cancel=job.cancellation
                )
                for question in template.questions()
            ]
            return template.answer(answers, images)

        self._begin(work, turn)
        self._tell("turn")
        return turn

    def fetch_study(
        self, study: dict, folder: str, done: Done, failed: Callable[[str], None]
    ) -> None:
        """Fetch a study of the server's list; `done` gets it and the file's path."""
        client = self.client
        if client is None or self.state != "connected" or self.is_busy:
            failed(_("Connect to a server first, and wait for the answer."))
            return

        def work(job: Job) -> Any:
            progress = throttled(job, str(study["id"]), is_upload=False)
            return study, client.download(study["id"], folder, progress, job.cancellation)

        self._fetch(work, done, failed)

    def next_study(
        self,
        strategy: str,
        folder: str,
        is_here: Callable[[str], bool],
        done: Done,
        failed: Callable[[str], None],
    ) -> None:
        """Choose the next study and fetch it unless it is here; `done` gets the choice and the file's path.

        It gets None if no study is left, and an empty path if the study is here already.
        """
        client = self.client
        if client is None or self.state != "connected" or self.is_busy:
            failed(_("Connect to a server first, and wait for the answer."))
            return

        def work(job: Job) -> Any:
            choice = client.next_study(strategy, self.reader, job.cancellation)
            # MONAI Label's "name" is that of a file.
            return choice and {key: choice[key] for key in ("id", "reason") if key in choice}

        def chosen(choice: Optional[dict]) -> None:
            if choice is None:
                done(None)
            elif is_here(choice["id"]):
                done((choice, ""))
            else:
                self.fetch_study(choice, folder, done, failed)

        self._fetch(work, chosen, failed)

    def _fetch(self, work: Callable[[Job], Any], done: Done, failed: Callable[[str], None]) -> None:
        def on_done(found: Any) -> None:
            self._after_work(None)
            done(found)

        def on_error(error: Exception) -> None:
            self._after_work(error)
            failed(words_of(error))

        self._job = self.work.submit(work, on_done, on_error, self._progress)
