"""Validate the server's replies."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from ..translation import _
from . import protocol
from .address import Address
from .errors import ClientError
from .transport import Reply, half_a_reply, not_radfound

# The client's own code for 401; servers send other codes.
TOKEN_NEEDED = "token_needed"
MAX_JSON_BYTES = 64 << 20
MAX_MAP_BYTES = 1 << 30
_MAX_LINE_BYTES = 8 << 20
_MAX_MESSAGE_CHARS = 500
_ANSWER_SHAPE = {
    "id": str, "task": str, "images": list, "text": str, "model": dict,
}  # fmt: skip


@dataclass(frozen=True)
class ServerInfo:
    """A server's description of itself.

    Parameters
    ----------
    name, version : str
        Name and version of the app, such as RadFound and 0.1.0.
    models : tuple of str
        Such as radfound_vqa, radfound_caption, radfound_report.
    strategies : dict of str to str
        Strategies for the next study, each with its description.
    checkpoint : str
        The model that answers, such as radfound-mini.
    adapter : str or None
        The active adapter; None is the base model.
    corrections : int
        Number of recorded corrections.
    is_training : bool
    """

    name: str
    version: str
    models: tuple[str, ...]
    strategies: dict[str, str]
    checkpoint: str
    adapter: Optional[str]
    corrections: int
    is_training: bool


@dataclass(frozen=True)
class Check:
    """One check of the gate that decides on a new adapter.

    Parameters
    ----------
    name, words : str
        The outcome in the server's words, with the numbers.
    passed : bool or None
        None if the check was not done.
    """

    name: str
    words: str
    passed: Optional[bool]


@dataclass(frozen=True)
class TrainingStatus:
    """Status of the running training, or of the last one.

    Parameters
    ----------
    state : str
        "idle" (no training yet), "running", "published" (a new adapter is active), "refused"
        (trained, but the gate failed), "failed" or "stopped".
    phase : str
        What a running training is doing, in the server's words.
    message : str
        The gate's reason, or the error, in the server's words.
    step, steps : int
        Of the phase; 0 of 0 if it has no steps.
    seconds_left : float or None
    loss : float or None
    corrections : int or None
        Number of corrections that it learns from.
    checks : tuple of Check
    adapter : str or None
        The adapter that was published.
    """

    state: str
    phase: str = ""
    message: str = ""
    step: int = 0
    steps: int = 0
    seconds_left: Optional[float] = None
    loss: Optional[float] = None
    corrections: Optional[int] = None
    checks: tuple[Check, ...] = ()
    adapter: Optional[str] = None

    @property
    def is_over(self) -> bool:
        """Whether no training is running."""
        return self.state != "running"


def read_all(reply: Reply, address: Address, limit: int = MAX_JSON_BYTES) -> bytes:
    """Return a reply's whole body."""
    body = bytearray()
    for piece in reply.pieces():
        body += piece
        if len(body) > limit:
            raise not_radfound(address)
    return bytes(body)


def read_json(body: bytes, address: Address) -> Any:
    """Parse a JSON body; ClientError "protocol" if it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise not_radfound(address) from None


def check_status(reply: Reply, address: Address, has_token: bool) -> None:
    """Raise ClientError unless the status is 2xx."""
    status, where = reply.status, address.where
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        target = str(reply.headers.get("Location", "")).split("?")[0][:200]
        message = _(
            "The server at {where} redirects to {target}; enter that address if it is correct."
        )
        raise ClientError(message.format(where=where, target=target or "?"), "protocol")
    if status == 401:
        message = _("The server at {where} asks for a token: enter one.")
        if has_token:
            message = _("The server at {where} does not accept this token: enter a new one.")
        raise ClientError(message.format(where=where), "refused", TOKEN_NEEDED)
    code, detail = _detail(reply, address)
    if status == 403:
        message = _("The server at {where} does not allow this: {detail}")
        raise ClientError(message.format(where=where, detail=detail or "403"), "refused", code)
    if status >= 500:
        message = _("The server at {where} failed ({status}): {detail}")
        detail = detail or _("see its log")
        raise ClientError(message.format(where=where, status=status, detail=detail), "server", code)
    # RadFound names its errors; a bare "Not Found" comes from a server without that route.
    if not detail or (code is None and status in (404, 405)):
        raise not_radfound(address)
    raise ClientError(detail, "request", code)


def _detail(reply: Reply, address: Address) -> tuple[Optional[str], str]:
    """Return an error's code and message, if the server sent them."""
    try:
        detail = json.loads(read_all(reply, address))["detail"]
    except (ClientError, ValueError, RecursionError, TypeError, KeyError):
        return None, ""
    if isinstance(detail, dict):
        code, message = detail.get("code"), detail.get("message")
        return (
            code if isinstance(code, str) else None,
            message[:_MAX_MESSAGE_CHARS] if isinstance(message, str) else "",
        )
    return None, detail[:_MAX_MESSAGE_CHARS] if isinstance(detail, str) else ""


def events(reply: Reply, address: Address) -> Iterator[tuple[str, Any]]:
    """Yield server-sent events as (name, data)."""
    if reply.headers.get_content_type() != "text/event-stream":
        raise not_radfound(address)
    name, data = "message", bytearray()
    while True:
        line = reply.line(_MAX_LINE_BYTES)
        if not line:
            return
        if not line.endswith(b"\n"):
            raise half_a_reply() if len(line) < _MAX_LINE_BYTES else not_radfound(address)
        line = line.rstrip(b"\r\n")
        key, _colon, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if key == b"event":
            name = value.decode("utf-8", "replace")
        elif key == b"data":
            data += value + b"\n"
        elif not line:
            if data:
                yield name, read_json(bytes(data), address)
            name, data = "message", bytearray()
        elif key:  # a line that begins with a colon is a keep-alive comment
            if key not in (b"id", b"retry"):
                raise not_radfound(address)


def event_error(detail: Any, address: Address) -> ClientError:
    """Return the ClientError for an `error` event."""
    if not isinstance(detail, dict) or not isinstance(detail.get("message"), str):
        return not_radfound(address)
    code = detail.get("code")
    code = code if isinstance(code, str) else None
    message = detail["message"][:_MAX_MESSAGE_CHARS]
    return ClientError(message, "server" if code == protocol.INTERNAL_ERROR else "request", code)


def checked_answer(value: Any, address: Address) -> dict[str, Any]:
    """Return a `radfound.answer/1` after checking the fields that the panel uses."""
    answer = as_object(value, address)
    if answer.get("schema") != protocol.ANSWER_SCHEMA:
        raise not_radfound(address)
    for key, kind in _ANSWER_SHAPE.items():
        if not isinstance(answer.get(key), kind):
            raise not_radfound(address)
    for key in ("confidence", "uncertainty"):
        if not isinstance(answer.get(key), (int, float, type(None))):
            raise not_radfound(address)
    if not isinstance(answer.get("sections"), (dict, type(None))):
        raise not_radfound(address)
    for key in ("reason", "model_text", "corrected_by", "corrected_on", "evidence_note"):
        if not isinstance(answer.get(key), (str, type(None))):
            raise not_radfound(address)
    if not _are_objects(answer.get("contradictions") or []):
        raise not_radfound(address)
    if not _names_slices(answer.get("shown")):
        raise not_radfound(address)
    return answer


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _names_slices(shown: Any) -> bool:
    if shown is None:
        return True
    slices = shown.get("slices") if isinstance(shown, dict) else None
    return isinstance(slices, list) and all(isinstance(each, str) for each in slices)


def as_object(value: Any, address: Address) -> dict[str, Any]:
    """Return a JSON object; ClientError "protocol" if it is something else."""
    if not isinstance(value, dict):
        raise not_radfound(address)
    return value


def server_info(info: Any, health: Any, address: Address) -> ServerInfo:
    """Combine the replies of `GET /info/` and `GET /radfound/health`."""
    info, health = as_object(info, address), as_object(health, address)
    model = as_object(health.get("model"), address)
    strategies = as_object(info.get("strategies"), address)
    return ServerInfo(
        name=str(info.get("name", "")),
        version=str(health.get("version", "")),
        models=tuple(as_object(info.get("models"), address)),
        strategies={
            name: str(about.get("description", "")) if isinstance(about, dict) else ""
            for name, about in strategies.items()
        },
        checkpoint=str(model.get("name", "")),
        adapter=_text(model.get("adapter")),
        corrections=_whole(health.get("corrections")),
        is_training=health.get("training") is True,
    )


def training_status(value: Any, address: Address) -> TrainingStatus:
    """Return a `radfound.training_status/1` after checking it."""
    found = as_object(value, address)
    checks = found.get("checks")
    if found.get("schema") != protocol.TRAINING_SCHEMA or not isinstance(checks, list):
        raise not_radfound(address)
    if found.get("state") not in protocol.TRAINING_STATES:
        raise not_radfound(address)
    corrections = found.get("corrections")
    return TrainingStatus(
        state=found["state"],
        phase=str(found.get("phase") or ""),
        message=str(found.get("message") or ""),
        step=_whole(found.get("step")),
        steps=_whole(found.get("steps")),
        seconds_left=_number(found.get("seconds_left")),
        loss=_number(found.get("loss")),
        corrections=corrections if isinstance(corrections, int) else None,
        checks=tuple(_check(check, address) for check in checks),
        adapter=_text(found.get("adapter")),
    )


def _check(value: Any, address: Address) -> Check:
    found = as_object(value, address)
    passed = found.get("passed")
    return Check(
        name=str(found.get("name") or ""),
        words=str(found.get("words") or ""),
        passed=passed if isinstance(passed, bool) else None,
    )


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _number(value: Any) -> Optional[float]:
    return float(value) if isinstance(value, (int, float)) else None


def _text(value: Any) -> Optional[str]:
    return value if isinstance(value, str) else None
