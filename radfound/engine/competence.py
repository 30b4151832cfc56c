"""Which kinds of question a model answers by looking: measured by RadVLBench, stored beside the weights.

A model that answers a kind of question as well about another patient's image, or about a blank, does not see what is
asked. Its answers to this kind are guesses, and are not shown as answers.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from radfound.engine.confidence import calibration_group
from radfound.exceptions import CheckpointError

logger = logging.getLogger(__name__)

COMPETENCE_FILE = "competence.json"
COMPETENCE_SCHEMA = "radfound.competence/1"
FINDING, OPEN = "finding", "open"
_ABOUT_FINDINGS = re.compile(
    r"\b(abnormal\w*|patholog\w*|diagnos\w*|disease\w*|lesions?|findings?|wrong|condition|disorder|problem)\b",
    re.I,
)


def kind_of_question(task: str, question: str | None) -> str | None:
    """Return "finding" for yes/no questions and for open ones about what is abnormal, "open" for other questions.

    None for captions and reports.
    """
    group = calibration_group(task, question)
    if group is None:
        return None
    asks_for_findings = group == "closed" or _ABOUT_FINDINGS.search(question or "")
    return FINDING if asks_for_findings else OPEN


@dataclass(frozen=True)
class Lead:
    """By how much the right image beats the better of a blank and another patient's.

    Parameters
    ----------
    value, low : float
        Difference of the scores, in [-1, 1], and the lower end of its 95 % interval.
    score : str
        Which score of which questions.
    """

    value: float
    low: float
    score: str


@dataclass(frozen=True)
class Competence:
    """Leads of one model by `kind_of_question`.

    Parameters
    ----------
    revision : str
        Weights that were measured; nothing is known of others.
    leads : dict of str to Lead
    """

    revision: str
    leads: Mapping[str, Lead]

    def looks(self, task: str, question: str | None) -> bool:
        """Whether answers to such a question depend on the image; True where nothing was measured."""
        lead = self.leads.get(kind_of_question(task, question) or "")
        return lead is None or lead.low > 0

    @classmethod
    def of_results(cls, results: Mapping[str, Any]) -> Competence:
        """Return what a run of RadVLBench measured; `results` as in its results.json."""
        leads: dict[str, Lead] = {}
        for row in results["tasks"].get("vqa", {}).get("rows", ()):
            kind = {"closed": FINDING, "open": OPEN}.get(row["row"])
            if kind is None or kind in leads or row["lower_is_better"]:
                continue
            worse = min((row["over_blank"], row["over_other"]), key=lambda lead: lead["low"])
            leads[kind] = Lead(
                round(worse["value"], 4),
                round(worse["low"], 4),
                f"RadVLBench, {row['row']} questions, {row['score']}",
            )
        return cls(results["model"]["revision"], leads)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `competence.json`."""
        leads = {kind: asdict(lead) for kind, lead in self.leads.items()}
        return {"schema": COMPETENCE_SCHEMA, "revision": self.revision, "leads": leads}

    @classmethod
    def read(cls, folder: Path, revision: str) -> Competence | None:
        """Return the competence in a folder, or None if there is none for this revision.

        Raises
        ------
        CheckpointError
            If the file is damaged.
        """
        path = folder / COMPETENCE_FILE
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            leads = {kind: Lead(**lead) for kind, lead in data["leads"].items()}
            found = cls(str(data["revision"]), leads)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path.name}: cannot be read ({error}); delete it, or measure again with `radfound bench`"
            ) from error
        if found.revision != revision:
            logger.warning(
                "%s belongs to other weights (%s, but %s are loaded): it is not used",
                COMPETENCE_FILE, found.revision, revision,
            )  # fmt: skip
            return None
        return found
