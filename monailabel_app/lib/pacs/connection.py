"""What a server does with an archive besides answering: deliver reports, and draft new studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .datastore import PacsDatastore
from .delivery import Delivery
from .records import PacsRecords
from .reports import Explain, RecentAnswers, Reports
from .watcher import Answering, Watcher


def records_path(state: Path) -> Path:
    """Return where a server keeps its records of the archive."""
    return state / ".radfound" / "pacs" / "outbox.sqlite"


class PacsConnection:
    """Outbox, reports and watcher of one server.

    Parameters
    ----------
    store : PacsDatastore
    answers : RecentAnswers
    state : Path
    answer : callable
        See `watcher.Answering`.
    explain : callable
        See `reports.Explain`.
    """

    def __init__(
        self,
        store: PacsDatastore,
        answers: RecentAnswers,
        state: Path,
        answer: Answering,
        explain: Explain,
    ):
        self.records = PacsRecords(records_path(state))
        self.delivery = Delivery(
            store.archive, self.records, records_path(state).with_name(".delivery")
        )
        self.reports = Reports(store, self.records, answers, explain)
        self.watcher: Watcher | None = None
        self._write = store.settings.write
        if store.settings.watch_s is not None:
            self.watcher = Watcher(store, self.records, self.reports, self.delivery, answer)

    def start(self) -> None:
        """Begin to deliver and to watch."""
        self.delivery.start()
        if self.watcher is not None:
            self.watcher.start()

    def close(self) -> None:
        """Stop delivering and watching."""
        self.delivery.close()
        if self.watcher is not None:
            self.watcher.close()

    def waiting_drafts(self, corrected: Collection[str | None]) -> Counter[str]:
        """Return how many drafts of each study wait for a reader; `corrected`: ids of corrected answers."""
        return Counter(
            draft.study_uid
            for draft in self.records.drafts()
            if draft.answer is not None and draft.answer.id not in corrected
        )

    def state(self) -> dict[str, Any]:
        """Return what may be sent, how many documents wait or were refused, and whether new studies are watched."""
        documents = self.records.documents()
        return {
            "write": self._write,
            "waiting": sum(each.state == "waiting" for each in documents),
            "refused": sum(each.state == "refused" for each in documents),
            "watching": self.watcher is not None,
        }
