"""Settings of the connection to an archive."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from radfound.exceptions import RequestError
from radfound.reporting.codes import LANGUAGES

CONNECT_TIMEOUT_S = 5.0
"""Seconds until an attempt to connect fails."""

WRITES = ("no", "reader", "draft")
"""What may be written into the archive: nothing, readers' reports, or drafts too."""

_KEYWORD = re.compile(r"[A-Z][A-Za-z0-9]{1,63}|[0-9A-Fa-f]{8}")
_LEAST_WATCH_S = 1


@dataclass(frozen=True)
class PacsSettings:
    """One archive, and what this server may do with it.

    Parameters
    ----------
    url : str
        Root of the DICOMweb service.
    query : mapping of str to str
        QIDO-RS filter of the studies that are served.
    series : int
        Most series of one cross-sectional study that are shown together.
    cache_bytes : int
        Most disk space for fetched images.
    timeout_s : float
        Longest wait for the next byte.
    user, password : str
        For basic authentication; empty without.
    token_file, ca_file, certificate, key : Path or None
        Bearer token; trusted certificates; client certificate and its key.
    write : {"no", "reader", "draft"}
    organization : str
        Organization of verified reports; empty for the institution in the images' headers.
    language : str
        Language of the reports, a tag of `radfound.reporting.codes.LANGUAGES`.
    watch_s : float or None
        Interval of the watcher; None without a watcher, 0 if it only waits for notifications.
    watch_query : mapping of str to str
        QIDO-RS filter of the studies that the watcher drafts.
    drafts_per_hour : int
    prefixes : mapping of str to str
        Prefixes of the three services ("qido", "wado", "stow") where the archive has them.
    """

    url: str
    query: Mapping[str, str] = field(default_factory=dict)
    series: int = 2
    cache_bytes: int = 20 << 30
    timeout_s: float = 20.0
    user: str = ""
    password: str = field(default="", repr=False)
    token_file: Path | None = None
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    write: str = "no"
    organization: str = ""
    language: str = "en"
    watch_s: float | None = None
    watch_query: Mapping[str, str] = field(default_factory=dict)
    drafts_per_hour: int = 60
    prefixes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, url: str, conf: Mapping[str, str], environment: Mapping[str, str]) -> PacsSettings:
        """Read the settings; RequestError names an invalid one.

        User, password and prefixes come from MONAI Label's variables of the environment: every user of
        the machine can see the arguments of a command.
        """
        write = conf.get("pacs_write") or WRITES[0]
        if write not in WRITES:
            raise RequestError(f"pacs_write: found {write!r}; expected {', '.join(WRITES)}")
        language = conf.get("pacs_language") or "en"
        if language not in LANGUAGES:
            raise RequestError(
                f"pacs_language: found {language[:40]!r}; expected one of {', '.join(LANGUAGES)}"
            )
        names = ("QIDO", "WADO", "STOW")
        found = {name: environment.get(f"MONAI_LABEL_{name}_PREFIX", "") for name in names}
        return cls(
            url=url.rstrip("/"),
            query=parse_query("pacs_query", conf.get("pacs_query", "")),
            series=_number(conf, "pacs_series", 2, 16),
            cache_bytes=_number(conf, "pacs_cache_mb", 20480, 1 << 24) << 20,
            timeout_s=_number(conf, "pacs_timeout_s", 20, 3600),
            user=environment.get("MONAI_LABEL_DICOMWEB_USERNAME", ""),
            password=environment.get("MONAI_LABEL_DICOMWEB_PASSWORD", ""),
            token_file=_file(conf, "pacs_token_file"),
            ca_file=_file(conf, "pacs_ca"),
            certificate=_file(conf, "pacs_certificate"),
            key=_file(conf, "pacs_key"),
            write=write,
            organization=conf.get("pacs_organization", "")[:64],
            language=language,
            watch_s=_watch(conf.get("pacs_watch") or "no"),
            watch_query=parse_query("pacs_watch_query", conf.get("pacs_watch_query", "")),
            drafts_per_hour=_number(conf, "pacs_drafts_per_hour", 60, 100_000),
            prefixes={name.lower(): prefix for name, prefix in found.items() if prefix},
        )


def parse_query(name: str, text: str) -> dict[str, str]:
    """Parse a QIDO-RS filter; RequestError if a key is neither a keyword nor a tag of DICOM."""
    found = dict(parse_qsl(text.lstrip("?"), keep_blank_values=True))
    for key, value in found.items():
        if not _KEYWORD.fullmatch(key) or not value:
            raise RequestError(
                f"{name}: found {key[:40]!r} with {'a' if value else 'no'} value; expected attributes of "
                "a study, such as ModalitiesInStudy=CT&StudyDescription=*chest*"
            )
    if text.strip() and not found:
        raise RequestError(f"{name}: found {text[:40]!r}; expected such as ModalitiesInStudy=CT")
    return found


def _number(conf: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = conf.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise RequestError(f"{name}: found {text[:40]!r}; expected a whole number from 1 to {most}")
    return int(text)


def _file(conf: Mapping[str, str], name: str) -> Path | None:
    if not conf.get(name):
        return None
    path = Path(conf[name])
    if not os.access(path, os.R_OK) or not path.is_file():
        raise RequestError(
            f"{name}: {path} is no file that can be read; check path and permissions"
        )
    return path


def _watch(text: str) -> float | None:
    if text in ("no", "notify"):
        return None if text == "no" else 0.0
    if not text.isdecimal() or int(text) < _LEAST_WATCH_S:
        raise RequestError(
            f"pacs_watch: found {text[:40]!r}; expected no, notify, or a number of seconds from "
            f"{_LEAST_WATCH_S}"
        )
    return float(text)
