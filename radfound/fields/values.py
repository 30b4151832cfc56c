"""What is known of a field or a finding of a study, and an answer made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


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


@dataclass(frozen=True, eq=False)
class Reading:
    """What is known of a study.

    Parameters
    ----------
    fields : dict of str to FieldValue
        The fields that apply to it.
    findings : dict of str to FindingValue
        The findings that may be spoken of.
    chances : dict of str to dict
        For each field, the probability of each class; 1.0 for what the file states.
    is_known : bool
        Whether its pictures are like the training pictures.
    vector : float32 array, shape (D,)
        Mean of the pooled features of its frames.
    """

    fields: Mapping[str, FieldValue]
    findings: Mapping[str, FindingValue]
    chances: Mapping[str, Mapping[str, float]]
    is_known: bool
    vector: np.ndarray

    @property
    def values(self) -> dict[str, str]:
        """The values of the fields that are known."""
        return {name: each.value for name, each in self.fields.items() if each.value is not None}

    @property
    def all_chances(self) -> dict[str, dict[str, float]]:
        """`chances`, and those of the findings: the probability of "yes" and "no"."""
        found = {name: dict(each) for name, each in self.chances.items()}
        for name, finding in self.findings.items():
            found[name] = {"yes": finding.probability, "no": 1 - finding.probability}
        return found
