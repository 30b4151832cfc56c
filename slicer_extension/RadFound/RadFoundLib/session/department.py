"""What a department keeps on its server for all readers: studies, templates of reports, an archive."""

from typing import Callable

from ..net.errors import ClientError
from ..translation import _
from .connection import Done, words_of
from .conversation import Turn
from .teaching import Teaching


class Department(Teaching):
    """A connection that lists studies and templates, and sends reports to the archive."""

    def fetch_studies(self, done: Done, failed: Callable[[str], None]) -> None:
        """Fetch the list of the server's studies."""
        client = self.client
        if client is None or self.state != "connected":
            failed(_("Connect to a server first."))
            return
        self._errand(
            lambda job: client.studies(job.cancellation),
            done,
            lambda error: failed(words_of(error)),
        )

    def fetch_templates(self, done: Done) -> None:
        """Fetch the department's templates; nothing happens if the server has none."""
        client = self.client
        if client is not None and self.state == "connected":
            self._errand(
                lambda job: client.templates(job.cancellation), done, lambda _error: done([])
            )

    def send_to_archive(self, turn: Turn, done: Callable[[str], None]) -> None:
        """Send a report to the server's archive: the reader's if there is one, else the draft."""
        client = self.client
        if client is None or self.state != "connected":
            raise ClientError(_("Connect to a server first."), "request")
        what = {"answer_id": str((turn.answer or {}).get("id"))}
        if turn.correction_id:
            what = {"correction_id": turn.correction_id}
        self._errand(
            lambda job: client.send_to_archive(what, job.cancellation),
            lambda _found: done(_("The report is on its way to the archive.")),
            lambda error: done(words_of(error)),
        )
