"""What the engine says about a study."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

TASKS = ("vqa", "caption", "report")


@dataclass(frozen=True)
class ModelVersion:
    """Which weights spoke.

    Parameters
    ----------
    name : str
        Checkpoint name, such as "radfound-mini".
    revision : str
        Hash of the base weights (12 hexadecimal digits).
    adapter : str or None
        Id of the LoRA adapter that was active, or None for the base model.
    """

    name: str
    revision: str
    adapter: str | None = None


@dataclass(frozen=True)
class Answer:
    """One answer, caption or report.

    Parameters
    ----------
    task : {"vqa", "caption", "report"}
    images : tuple of str
        Ids of the images it is about.
    question : str or None
    text : str
    model : ModelVersion
    sections : dict or None
        {"findings": str, "impression": str} for a report.
    confidence : float or None
        Calibrated probability of being right, in [0, 1]; None where no calibration exists: for captions
        and reports, for a checkpoint without one, and with an adapter.
    uncertainty : float or None
        Mean entropy of the answer's tokens divided by the entropy of a uniform choice, in [0, 1].
    evidence : str or None
        Name of the evidence map, where one was asked for.
    timings_ms : dict of str to int
        "read", "encode", "first_token" and "total", counted from the start of the request.
    finished : bool
        False where the token limit or a cancel cut the text off.
    """

    task: str
    images: tuple[str, ...]
    question: str | None
    text: str
    model: ModelVersion
    sections: dict[str, str] | None = None
    confidence: float | None = None
    uncertainty: float | None = None
    evidence: str | None = None
    timings_ms: dict[str, int] = field(default_factory=dict)
    finished: bool = True
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
