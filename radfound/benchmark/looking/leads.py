"""How far a model's answers depend on the right picture, by kind of question: what `competence.json` holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from radfound.benchmark.runner import ALIKE, BLANK, MAJORITY, MODEL, NEAREST, WORDS, Run
from radfound.benchmark.scoring.metrics import (
    closed_match,
    exact_match,
    parts_of_mean,
    ratio,
    token_recall,
)
from radfound.benchmark.scoring.statistics import bootstrap, paired
from radfound.benchmark.tasks import Item
from radfound.engine.silence.kinds import broad_kind, kind_of_question

FEWEST_QUESTIONS, FEWEST_PATIENTS = 20, 10
CONTROLS = {
    BLANK: "blank",
    ALIKE: "another patient of the same kind",
    WORDS: "words alone",
    NEAREST: "nearest question",
}
SCORE = "closed: right answers, open: token recall"
_ASKED = ("metadata", "vqa")  # tasks whose questions count


def leads_by_kind(runs: Sequence[Run], seed: int = 0) -> dict[str, Any]:
    """Return for each kind of question the model's lead over the control that comes nearest to it.

    Parameters
    ----------
    runs : sequence of Run
    seed : int
        Of the bootstrap over patients.

    Returns
    -------
    dict
        By kind: n, patients, score, "model" and each of `CONTROLS` with its interval, and "lead" over the control
        named by "over". Kinds with too few questions or patients are left out. Questions of VQA sets also count for
        their `broad_kind`.
    """
    return {
        kind: _lead(rows, seed)
        for kind, rows in sorted(_by_kind(runs).items())
        if len(rows) >= FEWEST_QUESTIONS and len(set(_patients(rows))) >= FEWEST_PATIENTS
    }


_Rows = list[tuple[Item, dict[str, float]]]


def _by_kind(runs: Sequence[Run]) -> dict[str, _Rows]:
    """Return the questions of each kind with the scores of the model and its controls."""
    found: dict[str, _Rows] = defaultdict(list)
    for run in runs:
        if run.task.name not in _ASKED:
            continue
        for item, scores in _scored(run):
            asked = item.turn.task, item.question.text
            found[str(kind_of_question(*asked))].append((item, scores))
            if run.task.name == "vqa":
                found[str(broad_kind(*asked))].append((item, scores))
    return found


def _patients(rows: _Rows) -> list[str]:
    return [item.example.key for item, _ in rows]


def _lead(rows: _Rows, seed: int) -> dict[str, Any]:
    patients = _patients(rows)
    parts = {
        name: parts_of_mean([scores[name] for _, scores in rows]) for name in (MODEL, *CONTROLS)
    }
    differences = {
        name: paired(ratio, parts[MODEL], parts[name], patients, seed=seed) for name in CONTROLS
    }
    nearest = min(differences, key=lambda name: differences[name].low)
    return {
        "n": len(rows),
        "patients": len(set(patients)),
        "score": SCORE,
        **{
            name: asdict(bootstrap(ratio, part, patients, seed=seed))
            for name, part in parts.items()
        },
        "lead": asdict(differences[nearest]),
        "over": CONTROLS[nearest],
    }


def _scored(run: Run) -> Iterator[tuple[Item, dict[str, float]]]:
    """Yield each item with the score of the model's answer and of its controls'."""
    # For questions in the same words about every picture, the words alone allow the majority answer.
    columns = {name: run.answers.get(name, run.answers[MAJORITY]) for name in (MODEL, *CONTROLS)}
    for k, item in enumerate(run.task.items):
        yield item, {name: _score(item, texts[k]) for name, texts in columns.items()}


def _score(item: Item, answer: str) -> float:
    if item.group == "closed":
        return closed_match(answer, item.turn.answer)
    score = token_recall if item.group == "open" else exact_match
    return float(np.clip(score(answer, item.turn.answer), 0, 1))
