"""Corrections on their way: kept on disk until a server has acknowledged them."""

import json
import os
import re
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Optional

from ..net.cancellation import Cancellation
from ..net.client import Client
from ..net.errors import ClientError
from ..translation import _

VERDICTS = ("accepted", "edited", "rejected")
_SCHEMA = "radfound.outbox/1"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,100}")


def new_correction(
    answer: Mapping[str, Any],
    verdict: str,
    author: str,
    text: str = "",
    region: Optional[Mapping[str, Any]] = None,
) -> dict[str, Any]:
    """Make a `radfound.correction/1` of an answer, with an id and a time of its own.

    Parameters
    ----------
    answer : mapping
        As `Client.ask` returns it.
    verdict : {"accepted", "edited", "rejected"}
    author : str
    text : str
        What the reader says instead: needed for "edited", ignored for "accepted", may be empty
        for "rejected".
    region : mapping, optional
        Where in the study, as `Client.ask` takes it.

    Raises
    ------
    ClientError
        Of kind "request", if the author or the text is missing.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"verdict: found {verdict!r}; expected {' or '.join(VERDICTS)}")
    if not author.strip():
        raise ClientError(_("Who corrects? Enter a name or initials."), "request")
    if verdict == "edited" and not text.strip():
        raise ClientError(_("The corrected text is empty; write one, or reject."), "request")
    if verdict == "accepted" and not str(answer["text"]).strip():
        raise ClientError(_("An empty answer cannot be accepted."), "request")
    is_question = answer["task"] == "vqa"
    correction = {
        "schema": "radfound.correction/1",
        "id": str(uuid.uuid4()),
        "answer_id": answer["id"],
        "images": list(answer["images"]),
        "task": answer["task"],
        "question": answer.get("question") if is_question else None,
        "model_text": answer["text"],
        "verdict": verdict,
        "text": answer["text"] if verdict == "accepted" else text,
        "author": author.strip(),
        "created": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "model": answer["model"],
    }
    # Left out where there is none: servers that know of no region refuse the field.
    return {**correction, "region": dict(region)} if region is not None else correction


@dataclass(frozen=True)
class Waiting:
    """A correction that has not been acknowledged.

    Parameters
    ----------
    id : str
    server : str
        Address of the server it is for, as `Client.address` gives it.
    correction : dict
    added : str
        When it was put into the outbox; ISO 8601 in UTC.
    refusal : str or None
        Why the server will not have it; such a one is sent again only when asked to.
    """

    id: str
    server: str
    correction: dict[str, Any]
    added: str
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

    def add(self, correction: Mapping[str, Any], server: str) -> Waiting:
        """Keep a correction; when this returns it outlives a crash.

        Parameters
        ----------
        correction : mapping
            See `new_correction`.
        server : str
            `Client.address` of the server whose images it is about; it is sent to no other.

        Raises
        ------
        ClientError
            Of kind "request", if it cannot be written; the correction is nowhere then.
        """
        added = datetime.now(timezone.utc).isoformat()
        waiting = Waiting(str(correction["id"]), server, dict(correction), added)
        self._write(waiting)
        return waiting

    def waiting(self, server: Optional[str] = None) -> list[Waiting]:
        """Return what waits (for one server), oldest first; damaged files are left where they are."""
        try:
            names = os.listdir(self.folder)
        except OSError:
            return []
        found = [self._read(name) for name in names if name.endswith(".json")]
        rows = [row for row in found if row is not None and server in (None, row.server)]
        return sorted(rows, key=lambda row: (row.added, row.id))

    def flush(
        self, client: Client, cancel: Optional[Cancellation] = None, again: bool = False
    ) -> Flushed:
        """Send what waits for this client's server; what goes wrong with it is in the result.

        Parameters
        ----------
        client : Client
        cancel : Cancellation, optional
        again : bool
            Also try those that were refused.
        """
        rows = self.waiting(client.address)
        refused = [row for row in rows if row.refusal is not None and not again]
        left = [row for row in rows if row.refusal is None or again]
        sent: list[str] = []
        failure = None
        while left and failure is None:
            row = left[0]
            try:
                client.send_correction(row.correction, cancel)
            except ClientError as error:
                if error.kind != "request":
                    failure = error
                    break
                # The others may well be taken, so this one must not stand in their way.
                refused.append(self._refused(row, error))
            else:
                self.discard(row.id)
                sent.append(row.id)
            left.pop(0)
        return Flushed(tuple(sent), tuple(refused), len(left), failure)

    def discard(self, correction_id: str) -> None:
        """Forget a correction that waits, acknowledged or given up by the reader."""
        with suppress(FileNotFoundError):  # another Slicer may have sent it, too
            os.unlink(self._path(correction_id))

    def _refused(self, row: Waiting, error: ClientError) -> Waiting:
        marked = Waiting(row.id, row.server, row.correction, row.added, error.message)
        with suppress(ClientError):  # then it is tried again, and nothing is lost
            self._write(marked)
        return marked

    def _path(self, correction_id: str) -> str:
        if not _ID.fullmatch(correction_id):
            raise ValueError("id: expected 1 to 101 letters, digits, _ or -")
        return os.path.join(self.folder, correction_id + ".json")

    def _write(self, row: Waiting) -> None:
        path = self._path(row.id)
        content = {
            "schema": _SCHEMA,
            "server": row.server,
            "added": row.added,
            "refusal": row.refusal,
            "correction": row.correction,
        }
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            number, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=self.folder)
            try:
                with open(number, "w", encoding="ascii") as file:
                    json.dump(content, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
            _sync_folder(self.folder)
        except OSError as error:
            message = _("The correction cannot be kept on disk ({why}); it is not saved.")
            raise ClientError(message.format(why=error.strerror), "request") from error

    def _read(self, name: str) -> Optional[Waiting]:
        try:
            with open(os.path.join(self.folder, name), encoding="ascii") as file:
                content = json.load(file)
            row = Waiting(
                content["correction"]["id"],
                content["server"],
                content["correction"],
                content["added"],
                content["refusal"],
            )
            is_whole = content["schema"] == _SCHEMA and name == f"{row.id}.json"
            is_whole = is_whole and isinstance(row.server, str) and isinstance(row.added, str)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return row if is_whole else None


def _sync_folder(folder: str) -> None:
    """Let a new name outlive a power cut, where a system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
