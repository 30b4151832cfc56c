"""What is known of a field or a finding of a study, and an answer made of it."""

from __future__ import annotations

from typing import NamedTuple


class FieldValue(NamedTuple):
    """Value of a field.

    Parameters
    ----------
    value : str or None
        A class of the field; None if it is not known.
    probability : float or None
        Calibrated probability that the value is right; None if the file states it, or if there is no value.
    source : {"picture", "file"}
        Where the value comes from.
    reason : str
        Why there is no value; "" if there is one.
    """

    value: str | None
    probability: float | None
    source: str
    reason: str = ""


class FindingValue(NamedTuple):
    """Presence of a finding.

    Parameters
    ----------
    probability : float
        Calibrated probability that the finding is present, at the share of its training set.
    limit : str
        For which pictures it was learnt, and how well: "learnt from adults' chest films of NIH, AUROC 0.88 (0.83-0.92)".
    """

    probability: float
    limit: str


class FieldAnswer(NamedTuple):
    """An answer made of a field or a finding.

    Parameters
    ----------
    text : str
    confidence : float or None
        Calibrated probability that the answer is right; None for a silent answer and for what the file states.
    kind : str
        Kind of question, such as "plane" or "finding".
    source : {"picture", "file"}
    silent : bool
        Whether the answer says that this cannot be told.
    reason : str
        Why it is silent, or from which pictures a finding was learnt.
    """

    text: str
    confidence: float | None
    kind: str
    source: str = "picture"
    silent: bool = False
    reason: str = ""
