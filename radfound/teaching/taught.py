"""What teaching adds to an answer, as a service and its clients get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["model", "recall", "wording", "field", "head"]


@dataclass(frozen=True)
class Reading:
    """One reader's text about a study, as it is quoted.

    Parameters
    ----------
    text : str
    author : str
    created : str
        ISO 8601 in UTC.
    correction : str
        Id of the correction.
    """

    text: str
    author: str
    created: str
    correction: str


@dataclass(frozen=True)
class Taught:
    """Text that answers in place of the model's, or a remark on the model's text.

    Parameters
    ----------
    source : {"model", "recall", "wording", "field", "head"}
        What the answer comes from.
    text : str or None
        The answer; None if the model's text stays and only the remarks are added.
    reason : str
        In words for people, such as "corrected by Dr A on 2026-08-01".
    corrected_by, corrected_on : str or None
        Author and time (ISO 8601 in UTC) of the recalled correction.
    correction : str or None
        Id of the recalled correction.
    contradictions : tuple of Reading
        Other readers' newest texts about the same question, where they differ.
    rejected_by : tuple of str
        Readers who rejected the model's answer without a text of their own.
    confirmed : bool
        Whether as many readers agree as the server asks for.
    confidence : float or None
        Calibrated probability of a head.
    version : str or None
        Version of the head or the template, for the trace.
    model_text : str or None
        The model's own text, shown folded; filled in once the model has answered.
    """

    source: Source
    text: str | None
    reason: str
    corrected_by: str | None = None
    corrected_on: str | None = None
    correction: str | None = None
    contradictions: tuple[Reading, ...] = ()
    rejected_by: tuple[str, ...] = ()
    confirmed: bool = True
    confidence: float | None = None
    version: str | None = None
    model_text: str | None = None
