"""Which kinds of question a model answers by looking: measured by RadVLBench, stored beside the weights.

A model that answers a kind of question as well about a blank, or about another patient's image of the same modality and
region, or no better than the words of the question alone allow, does not see what is asked. Its answers to this kind
are guesses, and are not shown as answers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from radfound.engine.silence.kinds import broad_kind, kind_of_question
from radfound.exceptions import CheckpointError, StorageError
from radfound.records.durable import replace_text

logger = logging.getLogger(__name__)

COMPETENCE_FILE = "competence.json"
COMPETENCE_SCHEMA = "radfound.competence/2"
"""Files of the first schema hold only the leads of `broad_kind`; they are read as well."""

DEFAULT_MOVE = 0.02
"""Least change of an answer's probability that is no rounding, where no other was measured."""


@dataclass(frozen=True)
class Lead:
    """By how much the right image beats the best control.

    Parameters
    ----------
    value, low : float
        Difference of the scores, in [-1, 1], and the lower end of its 95 % interval.
    score : str
        Which score of which questions.
    over : str
        The control: "blank", "another patient of the same kind", "words alone" or "nearest question"; "" if unknown.
    n : int
        Number of questions; 0 if unknown.
    """

    value: float
    low: float
    score: str
    over: str = ""
    n: int = 0


@dataclass(frozen=True)
class Competence:
    """Leads of one model by `kind_of_question` and, for kinds with too few questions, by `broad_kind`.

    Parameters
    ----------
    revision : str
        Weights that were measured; nothing is known of others.
    leads : dict of str to Lead
    least_move : float
        A yes/no answer whose probability differs less than this between the study and others like it does not
        depend on the picture (`radfound.engine.silence.live`).
    """

    revision: str
    leads: Mapping[str, Lead]
    least_move: float = DEFAULT_MOVE

    def looks(self, task: str, question: str | None) -> bool:
        """Whether answers to such a question depend on the image; True where nothing was measured."""
        kinds = kind_of_question(task, question), broad_kind(task, question)
        lead = next((self.leads[kind] for kind in kinds if kind and kind in self.leads), None)
        return lead is None or lead.low > 0

    @classmethod
    def of_results(cls, results: Mapping[str, Any]) -> Competence:
        """Return what a run of RadVLBench measured; `results` as in its results.json."""
        measured = results["competence"]
        leads = {
            kind: Lead(
                round(row["lead"]["value"], 4),
                round(row["lead"]["low"], 4),
                f"RadVLBench, {row['score']}",
                row["over"],
                row["n"],
            )
            for kind, row in measured["kinds"].items()
        }
        move = measured.get("least_move")
        return cls(
            results["model"]["revision"], leads, DEFAULT_MOVE if move is None else round(move, 4)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of `competence.json`."""
        return {
            "schema": COMPETENCE_SCHEMA,
            "revision": self.revision,
            "least_move": self.least_move,
            "leads": {kind: asdict(lead) for kind, lead in self.leads.items()},
        }

    def write(self, folder: Path) -> Path:
        """Write `competence.json` into a folder; return its path."""
        path = folder / COMPETENCE_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_text(path, json.dumps(self.to_json(), indent=2) + "\n", private=False)
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be written ({error.strerror}); name a folder that is writable"
            ) from error
        return path

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
            found = cls(str(data["revision"]), leads, float(data.get("least_move", DEFAULT_MOVE)))
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
