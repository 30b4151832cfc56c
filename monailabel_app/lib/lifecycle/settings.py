"""What can be set where the server is started: names, what each may be, and where its state is kept.

Nothing that has to be installed is imported here: `make serve` looks before it installs anything.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from radfound.exceptions import RequestError, StorageError

SETTINGS = {
    "checkpoint": "radfound-mini (default), radfound-tiny (random, for tests) or a folder",
    "device": "cpu, cuda, cuda:1 (the second) or mps; chosen by itself if left out",
    "hosts": "names, with commas between them, that the server answers to besides its own addresses: "
    "those of a proxy in front of it, or of this machine in its network",
    "max_upload_mb": "largest request with a file; 2048 if left out",
    "open": "yes answers other machines without a token; else they need one (RADFOUND_TOKEN, or "
    "RADFOUND_TOKEN_FILE for a file that holds it), and without one only this machine is served",
    "origins": "origins, with commas between them, whose pages may call, such as https://viewer.example.org",
    "state": "folder in which .radfound keeps corrections, adapters, scores, uploads and the journal of "
    "answers; the folder of studies if left out, or one of the user's data if that cannot be written",
}
"""The names of `--conf NAME VALUE`, with what each value may be."""

CHECKPOINTS = ("radfound-mini", "radfound-tiny")
DEVICES = ("cpu", "cuda", "mps")

_OF_MONAI_LABEL = ("server_mode",)
_LEAST_TOKEN_CHARS = 16


def check_conf(conf: Mapping[str, str]) -> None:
    """Raise RequestError for a name that is no setting, or a device of no known kind."""
    for name in conf:
        if name not in SETTINGS and name not in _OF_MONAI_LABEL:
            raise RequestError(f"--conf: found {name!r}; {_expected(name, SETTINGS)}")
    device = conf.get("device") or DEVICES[0]
    if not re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", device):
        raise RequestError(f"device: found {device!r}; {_expected(device, DEVICES)}")


def check_checkpoint(checkpoint: str) -> None:
    """Raise RequestError for what is neither a known checkpoint nor a folder nor a hub id."""
    is_hub_id = (
        re.fullmatch(r"[\w.-]+/[\w.-]+", checkpoint) and not Path(checkpoint).parent.exists()
    )
    if checkpoint not in CHECKPOINTS and not Path(checkpoint).is_dir() and not is_hub_id:
        raise RequestError(
            f"checkpoint: found {checkpoint!r}; {_expected(checkpoint, CHECKPOINTS)}, or a folder "
            "written by save_pretrained"
        )


def check_token(environment: Mapping[str, str]) -> str | None:
    """Return the token that the server asks for, if one is set; a file of it comes first.

    A token is no `--conf`: every user of the machine sees a command's arguments.

    Raises
    ------
    RequestError
        If it cannot be read, or is no secret.
    """
    token, file = environment.get("RADFOUND_TOKEN"), environment.get("RADFOUND_TOKEN_FILE")
    if file:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"RADFOUND_TOKEN_FILE: cannot be read ({error})") from error
    if token is not None and not re.fullmatch(rf"[!-~]{{{_LEAST_TOKEN_CHARS},}}", token):
        raise RequestError(
            f"RADFOUND_TOKEN: expected at least {_LEAST_TOKEN_CHARS} characters without blanks; make "
            'one with python3 -c "import secrets; print(secrets.token_urlsafe())"'
        )
    return token


def check_studies(folder: Path) -> None:
    """Raise RequestError for what is no folder that can be read."""
    if folder.is_dir():
        if not os.access(folder, os.R_OK | os.X_OK):
            raise RequestError(f"{folder}: may not be read; check its permissions")
        return
    if folder.exists():
        raise RequestError(f"{folder}: is a file; expected a folder; name the one that holds it")
    beside = [each.name for each in folder.parent.iterdir()] if folder.parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, beside, 1)
    hint = f"did you mean {folder.with_name(near[0])}?" if near else "check how it is spelt"
    raise RequestError(f"{folder}: no such folder; {hint}")


def state_folder(studies: Path, chosen: str = "") -> Path:
    """Return where the server keeps what it writes: beside the studies, where that can be written.

    Parameters
    ----------
    studies : Path
    chosen : str
        The setting `state`.

    Raises
    ------
    StorageError
        If there is state beside the studies already, which cannot be written any more.
    """
    if chosen:
        return Path(chosen)
    if is_writable(studies):
        return studies
    if (studies / ".radfound").exists():
        raise StorageError(
            f"{studies}: cannot be written, and .radfound in it holds corrections; make it writable, or "
            "name another folder for new ones with --conf state DIR"
        )
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    key = hashlib.sha256(os.fsencode(studies.resolve())).hexdigest()[:12]
    return data / "radfound" / f"{studies.resolve().name}-{key}"


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which permissions alone do not tell."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _expected(found: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(found, known, 1, cutoff=0.7)
    hint = f"did you mean {near[0]}? Known: " if near else "expected one of "
    return hint + ", ".join(known)
