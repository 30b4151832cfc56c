"""A client of a RadFound server, for Slicer's own Python (3.9 and later)."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Callable, Optional

from ..translation import _
from . import bodies, protocol, replies
from .calls import Calls
from .cancellation import Cancellation
from .downloading import saved, unpacked
from .errors import ClientError
from .replies import ServerInfo, TrainingStatus
from .transport import half_a_reply, not_radfound
from .uploading import Progress, UploadBody, size_of

__all__ = ["Client", "ClientError", "ServerInfo", "TrainingStatus", "image_id"]

_UPLOAD_SILENCE_S = 120.0
_KEPT_ALIVE_S = 4 * protocol.KEEP_ALIVE_S
_HASH_CHARS = 40


def image_id(content_hash: str) -> str:
    """Return the id under which a volume with this content hash is kept on a server."""
    if len(content_hash) < _HASH_CHARS or set(content_hash.lower()) - set("0123456789abcdef"):
        raise ClientError(_("The volume's content hash is not SHA-256 in hex."), "request")
    return f"volume-{content_hash[:_HASH_CHARS].lower()}"


class Client(Calls):
    """HTTP client of one RadFound server; thread-safe.

    Every call has a time limit, can be cancelled at any moment (also while it waits for the
    first byte), and returns its result or raises ClientError. TLS certificates are checked,
    redirects are not followed, and the token is kept in memory only.

    Parameters
    ----------
    address : str
        Such as "127.0.0.1:8000" or "https://radfound.example.org/api"; http:// by default.
    token : str, optional
        Sent as `Authorization: Bearer`.
    timeout_s : float
        Limit for short calls.
    answer_timeout_s : float
        Limit for the first byte of an answer: the server may have to load a large study.
    ca_file : str
        A file of further certificates to trust (PEM), such as those of a hospital.

    Raises
    ------
    ClientError
        Of kind "request", if the address or token is invalid, or the address has a password.
    """

    # Server -----------------------------------------------------------------------------------

    def info(self, cancel: Optional[Cancellation] = None) -> ServerInfo:
        """Return the server's description; the first call after connecting."""
        health = self.health(cancel)
        return replies.server_info(self._get(protocol.INFO, cancel), health, self._place)

    def health(self, cancel: Optional[Cancellation] = None) -> dict[str, Any]:
        """Return `GET /radfound/health` as it is: status, model, corrections, training."""
        return replies.as_object(self._get(protocol.HEALTH, cancel), self._place)

    # Images -----------------------------------------------------------------------------------

    def has(self, content_hash: str, cancel: Optional[Cancellation] = None) -> bool:
        """Whether the server has the volume with this content hash."""
        target = bodies.target(protocol.IMAGE, image=image_id(content_hash))
        with self._call("HEAD", target, cancel=cancel) as reply:
            if reply.status == 404:
                return False
            self._check(reply)
            return True

    def upload(
        self,
        file: BinaryIO,
        name: str,
        content_hash: str,
        progress: Optional[Progress] = None,
        cancel: Optional[Cancellation] = None,
    ) -> str:
        """Upload a volume unless the server has it.

        Parameters
        ----------
        file : binary file
            Open and seekable.
        name : str
            File name; only its suffix (.nii, .nii.gz, .nrrd, ...) is sent.
        content_hash : str
            SHA-256 in hex of the volume (voxels and geometry).
        progress : callable(done, total), optional
            Bytes read from the file; called on the calling thread.
        cancel : Cancellation, optional

        Returns
        -------
        str
            The image's id, `image_id(content_hash)`.
        """
        suffix = next((end for end in protocol.SUFFIXES if name.lower().endswith(end)), None)
        if suffix is None:
            message = _("A file of this kind cannot be sent; expected one of {suffixes}.")
            raise ClientError(message.format(suffixes=", ".join(protocol.SUFFIXES)), "request")
        image = image_id(content_hash)
        if self.has(content_hash, cancel):
            return image
        body = UploadBody(file, size_of(file), image + suffix, progress)
        call = self._call(
            "PUT",
            bodies.target(protocol.IMAGE, image=image),
            headers=body.headers,
            body=body,
            silence_s=_UPLOAD_SILENCE_S,
            limit_s=None,
            cancel=cancel,
        )
        with call as reply:
            content = self._json(reply)
        if replies.as_object(content, self._place).get("image") != image:
            raise not_radfound(self._place)
        return image

    def download(
        self,
        image: str,
        folder: str,
        progress: Optional[Progress] = None,
        cancel: Optional[Cancellation] = None,
    ) -> str:
        """Download an image from the server's datastore.

        Parameters
        ----------
        image : str
        folder : str
            Folder for the file.
        progress : callable(done, total), optional
            Bytes; the total is 0 if the server does not send it.
        cancel : Cancellation, optional

        Returns
        -------
        str
            Path of the file; for a DICOM series, the first file in a new folder.
        """
        call = self._call(
            "GET",
            bodies.target(protocol.IMAGE, image=image),
            silence_s=_UPLOAD_SILENCE_S,
            limit_s=None,
            cancel=cancel,
        )
        with call as reply:
            if reply.status == 404:
                message = _("The server has no file of this study that Slicer can open.")
                raise ClientError(message, "request")
            self._check(reply)
            name = os.path.basename(reply.headers.get_filename("") or "").lower()
            suffix = next((end for end in protocol.SUFFIXES if name.endswith(end)), "")
            path = saved(reply, folder, suffix, progress)
        return unpacked(path, self._place) if suffix == ".zip" else path

    def next_study(
        self, strategy: str, reader: str = "", cancel: Optional[Cancellation] = None
    ) -> Optional[dict[str, Any]]:
        """Return {"id", "reason", ...} of the next study; None if none is left.

        Two readers who ask at the same time get different studies; `reader` tells them apart.
        """
        target = bodies.path(protocol.NEXT_STUDY, strategy=strategy)
        asked = {"client_id": reader}
        found = replies.as_object(
            self._post(target, asked, cancel, self._answer_timeout_s), self._place
        )
        if found and not isinstance(found.get("id"), str):
            raise not_radfound(self._place)
        return found or None

    # Answers ----------------------------------------------------------------------------------

    def ask(
        self,
        task: str,
        images: Sequence[str],
        question: Optional[str] = None,
        history: Sequence[Mapping[str, str]] = (),
        region: Optional[Mapping[str, Any]] = None,
        max_new_tokens: Optional[int] = None,
        model: Optional[str] = None,
        recall: bool = True,
        prior: str = "",
        on_token: Optional[Callable[[str], None]] = None,
        cancel: Optional[Cancellation] = None,
    ) -> dict[str, Any]:
        """Ask about a study; cancelling closes the connection, which cancels it on the server.

        Parameters
        ----------
        task : {"vqa", "caption", "report"}
        images : sequence of str
            Ids of the study's images, each a view of it.
        question : str, optional
            Required for "vqa".
        history : sequence of {"question": str, "answer": str}
            Earlier turns, oldest first.
        region : mapping, optional
            {"box_mm": [[x0, y0, z0], [x1, y1, z1]]} or
            {"slice_mm": {"point": [x, y, z], "normal": [x, y, z]}}; RAS, mm.
        max_new_tokens : int, optional
        model : str, optional
            The model that answers, if the server has several.
        recall : bool
            Whether a reader's earlier text about the same question may be the answer.
        prior : str
            Id of an earlier study of the patient on the server.
        on_token : callable(str), optional
            Gets each piece of text as it arrives, on the calling thread.
        cancel : Cancellation, optional

        Returns
        -------
        dict
            The complete answer, `radfound.answer/1`.
        """
        asked = bodies.asked(
            images, question, history, region, max_new_tokens, model, recall, prior
        )
        image = images[0] if images else ""
        call = self._call(
            "POST",
            protocol.ASK,
            headers={"Content-Type": "application/json", "Accept": "text/event-stream"},
            body=bodies.json_bytes({"task": task, "image": image, **asked}),
            silence_s=self._answer_timeout_s,
            limit_s=None,
            cancel=cancel,
        )
        with call as reply:
            self._check(reply)
            reply.allow_silence(_KEPT_ALIVE_S)
            for name, data in replies.events(reply, self._place):
                if name == "token":
                    text = replies.as_object(data, self._place).get("text")
                    if not isinstance(text, str):
                        raise not_radfound(self._place)
                    if on_token is not None:
                        on_token(text)
                elif name == "answer":
                    return replies.checked_answer(data, self._place)
                elif name == "error":
                    raise replies.event_error(data, self._place)
            raise half_a_reply()

    def evidence(
        self,
        answer: Mapping[str, Any],
        text: Optional[str] = None,
        history: Sequence[Mapping[str, str]] = (),
        region: Optional[Mapping[str, Any]] = None,
        prior: str = "",
        cancel: Optional[Cancellation] = None,
    ) -> bytes:
        """Return the language model's evidence map of an answer, as an NRRD file.

        Parameters
        ----------
        answer : mapping
            As `ask` returned it.
        text : str, optional
            A sentence of the answer, or another text; the map is then of this text.
        history, region, prior
            As in the question of the answer.
        cancel : Cancellation, optional

        Raises
        ------
        ClientError
            Of kind "request", if the server or the model makes no maps.
        """
        asked = bodies.asked((), None, history, region, None, None, prior=prior)
        body = {"answer": dict(answer), **asked, **({} if text is None else {"text": text})}
        call = self._call(
            "POST",
            bodies.target(protocol.EVIDENCE, output="image"),
            headers={"Content-Type": "application/json"},
            body=bodies.json_bytes(body),
            silence_s=self._answer_timeout_s,
            limit_s=None,
            cancel=cancel,
        )
        with call as reply:
            try:
                self._check(reply)
            except ClientError as error:
                if error.kind != "protocol" or reply.status not in (404, 405):
                    raise
                message = _("This server makes no evidence maps: it needs a newer version.")
                raise ClientError(message, "request") from error
            return replies.read_all(reply, self._place, replies.MAX_MAP_BYTES)

    # Corrections ------------------------------------------------------------------------------

    def corrections(
        self, image: Optional[str] = None, cancel: Optional[Cancellation] = None
    ) -> list[dict[str, Any]]:
        """Return the corrections of an image (or all), oldest first."""
        target = protocol.CORRECTIONS
        if image is not None:
            target = bodies.target(target, image=image)
        rows = replies.as_object(self._get(target, cancel), self._place).get("corrections")
        if not isinstance(rows, list):
            raise not_radfound(self._place)
        return [replies.as_object(row, self._place) for row in rows]

    def send_correction(
        self, correction: Mapping[str, Any], cancel: Optional[Cancellation] = None
    ) -> bool:
        """Send a `radfound.correction/1`; return False if the server had it already.

        Called by `Outbox.flush`; see `outbox.new_correction`. The server may load the study first
        to record the hash of its content.
        """
        content = self._post(protocol.CORRECTIONS, correction, cancel, self._answer_timeout_s)
        content = replies.as_object(content, self._place)
        if content.get("id") != correction.get("id") or not isinstance(
            content.get("recorded"), bool
        ):
            raise not_radfound(self._place)
        return bool(content["recorded"])

    def withdraw(self, correction: str, author: str, cancel: Optional[Cancellation] = None) -> bool:
        """Take a correction back; return False if it was taken back before."""
        path = bodies.path(protocol.WITHDRAW, correction=correction)
        found = replies.as_object(self._post(path, {"author": author}, cancel), self._place)
        return found.get("withdrawn") is True

    def effect(self, correction: str, cancel: Optional[Cancellation] = None) -> dict[str, Any]:
        """Return the unread studies ("changes") on which a correction changes the answer."""
        path = bodies.path(protocol.EFFECT, correction=correction)
        found = self._get(path, cancel, self._answer_timeout_s)
        found = replies.as_object(found, self._place)
        if not isinstance(found.get("changes"), list):
            raise not_radfound(self._place)
        return found

    def wordings(self, cancel: Optional[Cancellation] = None) -> list[dict[str, Any]]:
        """Return {"id", "question", "text", "state", ...} of each template of the department's wording."""
        return self._rows(protocol.WORDINGS, "wordings", "id", cancel)

    def decide_wording(
        self, template: str, accept: bool, author: str, cancel: Optional[Cancellation] = None
    ) -> None:
        """Accept or refuse a template of the department's wording."""
        route = protocol.ACCEPT_WORDING if accept else protocol.REFUSE_WORDING
        path = bodies.path(route, template=template)
        replies.as_object(self._post(path, {"author": author}, cancel), self._place)

    # Department -------------------------------------------------------------------------------

    def studies(self, cancel: Optional[Cancellation] = None) -> list[dict[str, Any]]:
        """Return {"id", "name", "state", "drafts"} of each study of the server."""
        return self._rows(protocol.STUDIES, "studies", "id", cancel)

    def templates(self, cancel: Optional[Cancellation] = None) -> list[dict[str, Any]]:
        """Return {"name", "text"} of each template of the department."""
        return self._rows(protocol.TEMPLATES, "templates", "name", cancel)

    def send_to_archive(
        self, what: Mapping[str, str], cancel: Optional[Cancellation] = None
    ) -> dict[str, Any]:
        """Send an answer or correction, {"answer_id"} or {"correction_id"}, to the archive."""
        found = self._post(protocol.SEND_TO_ARCHIVE, dict(what), cancel, self._answer_timeout_s)
        return replies.as_object(found, self._place)

    def _rows(
        self, target: str, name: str, key: str, cancel: Optional[Cancellation]
    ) -> list[dict[str, Any]]:
        rows = replies.as_object(self._get(target, cancel), self._place).get(name)
        if not isinstance(rows, list):
            raise not_radfound(self._place)
        found = [replies.as_object(row, self._place) for row in rows]
        if not all(isinstance(row.get(key), str) for row in found):
            raise not_radfound(self._place)
        return found

    # Training ---------------------------------------------------------------------------------

    def train(
        self,
        settings: Optional[Mapping[str, Any]] = None,
        cancel: Optional[Cancellation] = None,
    ) -> None:
        """Start fine-tuning on the corrections; ClientError "request" if one is running already.

        `settings` may name the model, "base"; the server's default one otherwise.
        """
        try:
            self._post(bodies.path(protocol.TRAIN, model=protocol.TRAINER), settings or {}, cancel)
        except ClientError as error:
            if error.code != protocol.ALREADY_RUNNING:
                raise
            message = _("A training is running already; wait until it is over, or stop it.")
            raise ClientError(message, "request", error.code) from error

    def training_status(self, cancel: Optional[Cancellation] = None) -> TrainingStatus:
        """Return the status of the running training, or of the last one."""
        return replies.training_status(self._get(protocol.TRAINING, cancel), self._place)

    def stop_training(self, cancel: Optional[Cancellation] = None) -> None:
        """Stop the running training, if there is one."""
        with self._call("DELETE", protocol.STOP_TRAINING, cancel=cancel) as reply:
            self._check(reply)

    def adapters(
        self, cancel: Optional[Cancellation] = None, model: Optional[str] = None
    ) -> dict[str, Any]:
        """Return {"active": id or None, "adapters": [{"id", "active", "manifest"}, ...]} of a model.

        `model` None is the server's default one, here and below.
        """
        return self._adapters(self._get(bodies.of_model(protocol.ADAPTERS, model), cancel))

    def activate(
        self,
        adapter: Optional[str],
        cancel: Optional[Cancellation] = None,
        model: Optional[str] = None,
    ) -> dict[str, Any]:
        """Activate an adapter (None: the base model); returns the same as `adapters`."""
        path = bodies.path(protocol.ACTIVATE, adapter=protocol.BASE if adapter is None else adapter)
        return self._adapters(self._post(bodies.of_model(path, model), {}, cancel))

    def rollback(
        self, cancel: Optional[Cancellation] = None, model: Optional[str] = None
    ) -> dict[str, Any]:
        """Return to the adapter active before; returns the same as `adapters`."""
        return self._adapters(self._post(bodies.of_model(protocol.ROLL_BACK, model), {}, cancel))

    # Parts ------------------------------------------------------------------------------------

    def _adapters(self, content: Any) -> dict[str, Any]:
        found = replies.as_object(content, self._place)
        if not isinstance(found.get("adapters"), list) or "active" not in found:
            raise not_radfound(self._place)
        for adapter in found["adapters"]:
            if not isinstance(replies.as_object(adapter, self._place).get("id"), str):
                raise not_radfound(self._place)
        return found
