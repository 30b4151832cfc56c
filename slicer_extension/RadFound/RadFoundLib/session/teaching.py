"""What corrections teach at once: their effect, taking one back, and the department's wording."""

import json
from typing import Any, Callable

from ..net.errors import ClientError
from ..translation import _
from .connection import Connection, Done, words_of
from .jobs import Jobs


class Teaching(Connection):
    """A connection that knows what corrections teach.

    Attributes
    ----------
    corrections : list of dict
        Those of the server, oldest first.
    wordings : list of dict
        The templates of the department's wording that are proposed or applied.
    effect : dict
        What the newest correction changes, as the server tells; empty until it does.
    previews : Jobs
        Thread for previews, which take seconds on a large server.
    """

    def __init__(self) -> None:
        super().__init__()
        self.corrections: list = []
        self.wordings: list = []
        self.effect: dict = {}
        self.previews = Jobs()

    def poll(self) -> None:
        """Deliver results, those of previews among them."""
        super().poll()
        self.previews.poll()

    def disconnect(self) -> None:
        """Disconnect from the server."""
        self.previews.cancel_all()
        self.wordings = []
        super().disconnect()
        self._tell("wordings")

    def close(self) -> None:
        """Stop all jobs; no callback is called afterwards."""
        super().close()
        self.previews.close()

    def corrections_to_learn(self) -> list:
        """Return the corrections that a training learns from, as the server chooses them.

        The newest about each question, part and study; none without a text.
        """
        newest = {}
        for row in self.corrections:
            about = [row.get("images"), row.get("task"), row.get("question"), row.get("region")]
            newest[json.dumps(about, sort_keys=True)] = row
        return [row for row in newest.values() if str(row.get("text") or "").strip()]

    def new_corrections(self) -> int:
        """Return how many corrections to learn from are newer than the newest adapter."""
        made = [
            str((adapter.get("manifest") or {}).get("created", ""))
            for adapter in self.adapters["adapters"]
        ]
        newest = max(made, default="")
        return sum(str(row.get("created", "")) > newest for row in self.corrections_to_learn())

    def refresh_wordings(self) -> None:
        """Fetch the templates that a person may accept or refuse; none from an older server."""
        client = self.client
        if client is None or self.state != "connected":
            return

        def done(rows: list) -> None:
            self.wordings = [row for row in rows if row.get("state") in ("proposed", "accepted")]
            self._tell("wordings")

        self._errand(lambda job: client.wordings(job.cancellation), done, lambda _error: done([]))

    def decide_wording(
        self, template: str, accept: bool, author: str, done: Callable[[str], None]
    ) -> None:
        """Accept or refuse a template; `done` gets the outcome in words."""
        client = self.client
        if client is None or self.state != "connected":
            done(_("Connect to a server first."))
            return
        if not author.strip():
            done(_("Who decides? Enter a name or initials as author, under the conversation."))
            return

        def decided(_found: Any) -> None:
            words = _("Accepted: the next answers use this wording.")
            done(words if accept else _("Refused: this wording is not used."))
            self.refresh_wordings()

        self._errand(
            lambda job: client.decide_wording(template, accept, author.strip(), job.cancellation),
            decided,
            lambda error: done(words_of(error)),
        )

    def preview(self, correction: str) -> None:
        """Fetch what a recorded correction changes on unread studies; nothing happens if that fails."""
        client = self.client
        if client is None or self.state != "connected":
            return

        def done(found: dict) -> None:
            if self.client is client:
                self.effect = found
                self._tell("effect")

        self.previews.submit(lambda job: client.effect(correction, job.cancellation), done)

    def _withdraw(self, correction: str, author: str, done: Done, failed: Done) -> None:
        client = self.client
        if client is None or self.state != "connected":
            raise ClientError(_("Connect to a server first."), "request")
        if not author.strip():
            raise ClientError(_("Who takes it back? Enter a name or initials."), "request")
        self._errand(
            lambda job: client.withdraw(correction, author.strip(), job.cancellation),
            done,
            lambda error: failed(words_of(error)),
        )
