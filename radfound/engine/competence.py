"""Which kinds of question a model answers by looking: measured by RadVLBench, stored beside the weights.

A model that answers a kind of question as well about a blank, or about another patient's image of the same modality and
region, or no better than the words of the question alone allow, does not see what is asked. Its answers to this kind
are guesses, and are not shown as answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from radfound.engine.silence.kinds import broad_kind, kind_of_question
from radfound.records.measured import MeasuredFile

COMPETENCE = MeasuredFile(
    "competence.json", ("radfound.competence/2", "radfound.competence/1"), "radfound bench"
)
"""Files of the first schema hold only the leads of `broad_kind`."""

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

    def write(self, folder: Path) -> Path:
        """Write `competence.json` into a folder and return its path; StorageError if that fails."""
        leads = {kind: asdict(lead) for kind, lead in self.leads.items()}
        return COMPETENCE.write(
            folder, self.revision, {"least_move": self.least_move, "leads": leads}
        )

    @classmethod
    def read(cls, folder: Path, revision: str) -> Competence | None:
        """Return the competence in a folder; None or CheckpointError as for `MeasuredFile.read`."""

        def parse(data: dict[str, Any]) -> Competence:
            leads = {kind: Lead(**lead) for kind, lead in data["leads"].items()}
            return cls(revision, leads, float(data.get("least_move", DEFAULT_MOVE)))

        return COMPETENCE.read(folder, revision, parse)
