"""The file with the state of the newest training: the training process writes it, the server reads it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radfound.exceptions import RequestError
from radfound.records.durable import make_directory, read_json, replace_text
from radfound.wire import TRAINING_STATES, TrainingStatus, training_from_json

from ..lifecycle.background import TASK_VARIABLE
from ..lifecycle.tasks import Task, is_over

NO_LAST_WORD = "the training process ended without a message; see the server's log"


class TrainingState:
    """The state of the newest training, in a file.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path):
        self.path = path

    def write(self, status: TrainingStatus) -> None:
        """Replace the file in one step, with the id of the task that this process runs."""
        status = status.model_copy(update={"id": os.environ.get(TASK_VARIABLE)})
        make_directory(self.path.parent)
        replace_text(self.path, status.model_dump_json(by_alias=True) + "\n")

    def read(self) -> TrainingStatus:
        """Return the content of the file; "idle" if there is none."""
        found: dict[str, Any] = read_json(self.path, dict, "state of the newest training")
        if "state" not in found:
            return _of_older_file(found)
        try:
            return training_from_json(found)
        except RequestError:  # of a later version
            return TrainingStatus()

    def seen_with(self, tasks: Sequence[Task]) -> TrainingStatus:
        """Return the state of the newest training, given the server's training tasks, oldest first.

        The file alone does not show that a process is starting, or was killed.
        """
        saved = self.read()
        task = next((task for task in tasks if not is_over(task)), None)
        if task is not None:
            if saved.id != task["id"]:
                return TrainingStatus(id=task["id"], state="running", phase="starting")
            if saved.state != "running":
                return saved.model_copy(update={"state": "running", "phase": "ending"})
            return saved
        if not tasks:
            return _ended(saved, "stopped") if saved.state == "running" else saved
        task = tasks[-1]
        state = "stopped" if task["status"] == "STOPPED" else "failed"
        if saved.id != task["id"]:
            return _ended(TrainingStatus(id=task["id"]), state)
        return _ended(saved, state) if saved.state == "running" else saved


def _ended(status: TrainingStatus, state: str) -> TrainingStatus:
    message = NO_LAST_WORD if state == "failed" else ""
    changes = {"state": state, "phase": "", "message": message, "seconds_left": None}
    return status.model_copy(update=changes)


def _of_older_file(found: dict[str, Any]) -> TrainingStatus:
    """Return what the file of an older version says: only how the training ended."""
    state = found.get("status")
    if state not in TRAINING_STATES:
        return TrainingStatus()
    message, adapter = str(found.get("message") or ""), found.get("adapter")
    return training_from_json({"state": state, "message": message, "adapter": adapter})
