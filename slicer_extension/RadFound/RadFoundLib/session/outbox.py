"""The outbox: corrections stay on disk until their server has acknowledged them."""

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
from ..net.protocol import CORRECTION_SCHEMA, VERDICTS
from ..translation import _
from .origin import own_text

_SCHEMA = "radfound.outbox/1"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,100}")


def new_correction(
    answer: Mapping[str, Any],
    verdict: str,
    author: str,
    text: str = "",
    region: Optional[Mapping[str, Any]] = None,
) -> dict[str, Any]:
    """Return a `radfound.correction/1` about an answer, with a new id and the current time.

    Parameters
    ----------
    answer : mapping
        As `Client.ask` returns it.
    verdict : {"accepted", "edited", "rejected"}
    author : str
    text : str
        The reader's text: required for "edited", ignored for "accepted", optional for
        "rejected".
    region : mapping, optional
        Region of the study, as for `Client.ask`.

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
    # What a reader edits or rejects may stand in place of the model's text; both are on record.
    model_text = answer["text"] if verdict == "accepted" else own_text(answer) or answer["text"]
    correction = {
        "schema": CORRECTION_SCHEMA,
        "id": str(uuid.uuid4()),
        "answer_id": answer["id"],
        "images": list(answer["images"]),
        "task": answer["task"],
        "question": answer.get("question") if is_question else None,
        "model_text": model_text,
        "verdict": verdict,
        "text": answer["text"] if verdict == "accepted" else text,
        "author": author.strip(),
        "created": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "model": answer["model"],
    }
    # Older servers refuse the field, so it is left out where there is no region.
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
        Time at which it was added; ISO 8601 in UTC.
    refusal : str or None
        Why the server refused it; a refused correction is sent again only on request.
    """

    id: str
    server: str
    correction: dict[str, Any]
    added: str
    refusal: Optional[str] = None


@dataclass(frozen=True)
class Flushed:
    """Result of sending the waiting corrections.

    Parameters
    ----------
    sent : tuple of str
        Ids that the server acknowledged; their files are removed.
    refused : tuple of Waiting
        Corrections that the server refused; they stay on disk.
    kept : int
        Number of corrections for this server that still wait.
    error : ClientError or None
        Why sending stopped early.
    """

    sent: tuple[str, ...]
    refused: tuple[Waiting, ...]
    kept: int
    error: Optional[ClientError] = None


class Outbox:
    """A folder of corrections, one file each, readable by this user only.

    Several threads and several Slicers may share a folder: files are replaced atomically, and
    the server records a correction once, by its id.

    Parameters
    ----------
    folder : str
        Created when the first correction is added.
    """

    def __init__(self, folder: str):
        self.folder = folder

    def add(self, correction: Mapping[str, Any], server: str) -> Waiting:
        """Save a correction; it survives a crash once this returns.

        Parameters
        ----------
        correction : mapping
            See `new_correction`.
        server : str
            `Client.address` of the server that has its images; it is sent to no other.

        Raises
        ------
        ClientError
            Of kind "request", if the file cannot be written; nothing is saved then.
        """
        added = datetime.now(timezone.utc).isoformat()
        waiting = Waiting(str(correction["id"]), server, dict(correction), added)
        self._write(waiting)
        return waiting

    def waiting(self, server: Optional[str] = None) -> list[Waiting]:
        """Return the waiting corrections (of one server), oldest first; skip damaged files."""
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
        """Send the corrections that wait for this client's server; errors are in the result.

        Parameters
        ----------
        client : Client
        cancel : Cancellation, optional
        again : bool
            Also send refused corrections again.
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
                # A refused correction must not block the others.
                refused.append(self._refused(row, error))
            else:
                self.discard(row.id)
                sent.append(row.id)
            left.pop(0)
        return Flushed(tuple(sent), tuple(refused), len(left), failure)

    def discard(self, correction_id: str) -> None:
        """Remove a waiting correction."""
        with suppress(FileNotFoundError):  # another Slicer may have sent it
            os.unlink(self._path(correction_id))

    def _refused(self, row: Waiting, error: ClientError) -> Waiting:
        marked = Waiting(row.id, row.server, row.correction, row.added, error.message)
        with suppress(ClientError):  # without the mark it is sent again
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
            message = _("The correction is not saved: the disk cannot be written ({why}).")
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
    """Sync a folder so that a new file survives a power cut, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
