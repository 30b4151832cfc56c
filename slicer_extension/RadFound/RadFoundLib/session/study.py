"""The study of a question, and its upload."""

import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Callable, Optional

from ..net.client import Client, image_id
from ..net.errors import ClientError
from ..scene.volumefile import VolumeContent
from ..translation import _
from .jobs import Job

_REPORT_S = 0.05


@dataclass(frozen=True)
class Part:
    """One volume of a study.

    Parameters
    ----------
    name : str
        Shown to the reader; never sent.
    state : hashable
        Changes whenever the content changes.
    content : VolumeContent or None
    image : str
        Id on the server if the volume came from it; no content is needed then.
    """

    name: str
    state: Hashable
    content: Optional[VolumeContent] = None
    image: str = ""


@dataclass(frozen=True)
class Study:
    """The study of a question: one volume, or several as views of one study.

    Parameters
    ----------
    key : hashable
    parts : tuple of Part
    region : dict or None
        The part to ask about, as JSON for the server.
    where : str
        The same part in words.
    prior : str
        Id of an earlier study of the patient on the server; empty for none.
    prior_part : Part or None
        The same as a volume of the scene, which is sent if the server does not have it.
    """

    key: Hashable
    parts: tuple
    region: Optional[dict] = None
    where: str = ""
    prior: str = ""
    prior_part: Optional[Part] = None

    @property
    def must_be_sent(self) -> bool:
        """Whether a part may have to leave this computer."""
        parts = (*self.parts, self.prior_part) if self.prior_part else self.parts
        return any(not part.image for part in parts)


@dataclass(frozen=True)
class Transfer:
    """Progress of an upload or a download; a total of 0 means that it is not known yet."""

    name: str
    done: int
    total: int
    is_upload: bool


def upload(job: Job, client: Client, part: Part) -> str:
    """Return a volume's id on the server, uploading it if missing; in a job's thread."""
    content, cancel = part.content, job.cancellation
    if content is None:
        raise ClientError(_("The volume is gone; load it again."), "request")
    progress = throttled(job, part.name, is_upload=True)
    digest = content.digest(lambda _done, _total: progress(0, 0), cancel)
    if client.has(digest, cancel):
        return image_id(digest)
    is_packed = not client.is_local
    file = content.open_compressed(cancel=cancel) if is_packed else content.open()
    with file:
        return client.upload(file, "volume.nrrd", digest, progress, cancel)


def throttled(job: Job, name: str, is_upload: bool) -> Callable[[int, int], None]:
    """Return a progress callback that reports to the panel at most every 50 ms."""
    last = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > _REPORT_S or (total and done >= total):
            last = time.monotonic()
            job.report(Transfer(name, done, total, is_upload))

    return progress
