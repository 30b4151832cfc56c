"""Settings of the server: names and allowed values.

Imports the standard library and `radfound.exceptions` only, because `make serve` checks settings
before it installs anything.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from radfound.exceptions import RequestError

SETTINGS = {
    "checkpoint": "earlier name of model",
    "confirm": "number of readers who must agree on a text before wording and heads are learnt from it; "
    "default 1",
    "device": "cpu, cuda, cuda:1 (the second GPU) or mps; default: the best one found",
    "free_text": "yes lets the embedded model write captions and reports in words of its own; default no, since "
    "it cannot see most findings",
    "hosts": "comma-separated host names that the server accepts besides its own addresses, such as "
    "the name of a proxy in front of it, or of this machine in its network",
    "max_upload_mb": "largest request with a file, in MB; default 2048",
    "model": "radfound-mini (default), radfound-tiny (random, for tests), a folder of weights, or a model "
    "behind a server: openai:http://127.0.0.1:8001/v1#NAME",
    "models": "a YAML file that lists several models, instead of model; docs/models.md describes it",
    "open": "yes answers other machines without a token; otherwise they need one (RADFOUND_TOKEN, or "
    "RADFOUND_TOKEN_FILE for a file that holds it), and if none is set, only this machine is served",
    "origins": "comma-separated origins whose pages may call, such as https://viewer.example.org",
    "pacs_ca": "file with the certificates (PEM) that the archive's certificate is checked against",
    "pacs_cache_mb": "most disk space for images fetched from the archive, in MB; default 20480",
    "pacs_certificate": "file with this server's client certificate (PEM) for the archive",
    "pacs_drafts_per_hour": "most reports that the watcher drafts in an hour; default 60",
    "pacs_key": "file with the key of pacs_certificate (PEM), if it is not in the same file",
    "pacs_language": "language of the reports written into the archive, such as de; default en",
    "pacs_organization": "name of the organization in verified reports; default: the institution "
    "in the images' headers",
    "pacs_query": "only these studies of the archive, as a QIDO-RS query such as "
    "ModalitiesInStudy=CT&StudyDescription=*chest*",
    "pacs_series": "most series of one CT, MR or other study that are shown together; default 2",
    "pacs_timeout_s": "seconds without a byte from the archive until a request fails; default 20",
    "pacs_token_file": "file with a bearer token for the archive; it is read again when the archive "
    "refuses the token (user and password: MONAI_LABEL_DICOMWEB_USERNAME and _PASSWORD)",
    "pacs_watch": "no (default), notify, or a number of seconds: draft a report for each new study, "
    "found by POST /radfound/pacs/notify, or also by asking the archive at this interval",
    "pacs_watch_query": "only these studies are drafted, written as pacs_query",
    "pacs_write": "no (default) writes nothing into the archive, reader writes reports that a reader "
    "has accepted or edited, draft writes drafts too",
    "send_images_to": "comma-separated names of other machines whose models may receive images",
    "state": "folder for .radfound with corrections, adapters, scores, uploads and the journal of "
    "answers; default: the folder of studies or, if that is read-only, one in the user's data folder",
}
"""Names of `--conf NAME VALUE` and their allowed values."""

DEVICES = ("cpu", "cuda", "mps")

_OF_MONAI_LABEL = ("server_mode",)
_LEAST_TOKEN_CHARS = 16


def check_conf(conf: Mapping[str, str]) -> None:
    """Raise RequestError for an unknown setting or device."""
    for name in conf:
        if name not in SETTINGS and name not in _OF_MONAI_LABEL:
            raise RequestError(f"--conf: found {name!r}; {_expected(name, SETTINGS)}")
    if conf.get("free_text", "no") not in ("yes", "no"):
        raise RequestError(f"free_text: found {conf['free_text'][:20]!r}; expected yes or no")
    device = conf.get("device") or DEVICES[0]
    if not re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", device):
        raise RequestError(f"device: found {device!r}; {_expected(device, DEVICES)}")


def readers_who_confirm(conf: Mapping[str, str]) -> int:
    """Return how many readers must agree before a correction is learnt from; RequestError unless 1 to 9."""
    found = conf.get("confirm", "1")
    if not re.fullmatch("[1-9]", found):
        raise RequestError(f"confirm: found {found[:20]!r}; expected a number of readers, 1 to 9")
    return int(found)


def check_state_of_archive(conf: Mapping[str, str]) -> None:
    """Raise RequestError unless the state has a folder; an archive of studies is none."""
    if not conf.get("state"):
        raise RequestError(
            "state: missing; studies on a DICOM server need a folder for corrections and "
            "adapters, as --conf state DIR"
        )


def check_token(environment: Mapping[str, str]) -> str | None:
    """Return the token from `RADFOUND_TOKEN_FILE` or `RADFOUND_TOKEN`, if one is set.

    The token is not a `--conf` setting: every user of the machine sees a command's arguments.

    Raises
    ------
    RequestError
        If the file cannot be read, or the token is too short or holds blanks.
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
    """Raise RequestError unless this is a readable folder."""
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


def _expected(found: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(found, known, 1, cutoff=0.7)
    hint = f"did you mean {near[0]}? Known: " if near else "expected one of "
    return hint + ", ".join(known)
