"""Analyse a reader study: differences of sources with intervals, and agreement of readers and metrics."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radfound.benchmark.output import make_folder, write_json
from radfound.benchmark.scoring.statistics import DRAWS
from radfound.exceptions import ReaderStudyError
from radfound.optional import library
from radfound.reader_study.analysis import agreement, effects, plots
from radfound.reader_study.analysis.automatic import metric_scores
from radfound.reader_study.analysis.report import report
from radfound.reader_study.analysis.table import Ratings, ratings_of, seconds_by_reader, write_csv
from radfound.reader_study.design.key import Key
from radfound.reader_study.design.plan import Plan
from radfound.reader_study.rating.ratings import SCORE, Rating, RatingStore

SCHEMA = "radfound.reader_study_analysis/1"
LIBRARIES = ("krippendorff", "matplotlib", "pandas", "pingouin", "pycocoevalcap", "rouge_score", "sacrebleu")  # fmt: skip
FEWEST_CASES = 5
"""Minimum number of cases of a modality or organ system for separate tables."""


def analyse(
    folder: str | Path, out: str | Path | None = None, draws: int = DRAWS
) -> dict[str, Any]:
    """Analyse the ratings of a study so far.

    Writes `report.md`, its pictures, `results.json` and `ratings.csv`.

    Parameters
    ----------
    folder : path
        The study's folder.
    out : path, optional
        Output folder; by default `analysis` in the study's folder.
    draws : int
        Number of bootstrap draws.

    Returns
    -------
    dict
        The content of `results.json`, and the Markdown as "report".

    Raises
    ------
    ReaderStudyError
        If the study or its key cannot be read, or there are no ratings yet.
    RequestError
        If a library of the extra "reader-study" is missing.
    StorageError
        If the record of ratings is damaged, or the results cannot be written.
    """
    plan = Plan.load(folder)
    key = Key.load(plan)
    store = RatingStore(plan)
    rows = store.rows()
    if not any(rating.kind == SCORE for rating in rows):
        raise ReaderStudyError(
            f"{folder}: nothing was rated yet; run this again when a reader has begun"
        )
    for name in LIBRARIES:
        library(name, "reader-study")
    target = make_folder(Path(out) if out is not None else plan.folder / "analysis")
    ratings = ratings_of(plan, key, rows)
    results = {
        "schema": SCHEMA,
        "title": plan.title,
        "readers": _progress(plan, store, rows),
        "cases": len(plan.cases),
        "sources": list(key.sources),
        "criteria": [
            {"key": each.key, "name": each.name, "better": each.better} for each in plan.criteria
        ],
        "scores": score_counts(ratings),
        **analyse_ratings(ratings, draws),
        "metrics": agreement.with_metrics(ratings, metric_scores(key), draws),
        "fewest_cases": FEWEST_CASES,
        "by": {
            "modality": _by(ratings, ratings.modalities, draws),
            "organ system": _by(ratings, ratings.organ_systems, draws),
        },
    }
    write_json(results, target)
    write_csv(plan, key, rows, target / "ratings.csv")
    text = report(results, plots.draw(results, target))
    (target / "report.md").write_text(text, encoding="utf-8")
    return {**results, "report": text}


def analyse_ratings(ratings: Ratings, draws: int = DRAWS) -> dict[str, Any]:
    """Return means, comparisons, win rates and agreement of ratings."""
    return {
        "means": effects.means(ratings, draws),
        "comparisons": effects.comparisons(ratings, draws),
        "win_rates": effects.win_rates(ratings, draws),
        "between_readers": agreement.between_readers(ratings, draws),
        "within_readers": agreement.within_readers(ratings, draws),
    }


def score_counts(ratings: Ratings) -> list[dict[str, Any]]:
    """Count the scores of each source on each criterion, first showings only."""
    return [
        {
            "criterion": criterion.key,
            "source": source,
            "counts": [
                int((ratings.scores[0, :, :, s, k] == point).sum()) for point in range(1, 6)
            ],
        }
        for k, criterion in enumerate(ratings.criteria)
        for s, source in enumerate(ratings.sources)
    ]


def _by(ratings: Ratings, groups: Sequence[str | None], draws: int) -> dict[str, Any]:
    """Analyse each group that has enough cases but not all of them."""
    names = np.array([group or "" for group in groups])
    found = {}
    for name in sorted(set(names) - {""}):
        chosen = names == name
        if FEWEST_CASES <= chosen.sum() < len(chosen):
            found[str(name)] = {
                "cases": int(chosen.sum()),
                **analyse_ratings(ratings.of_cases(chosen), draws),
            }
    return found


def _progress(plan: Plan, store: RatingStore, rows: Sequence[Rating]) -> list[dict[str, Any]]:
    spent = seconds_by_reader(plan, rows)
    return [
        {
            "reader": reader.id,
            "complete": len(store.complete(reader)),
            "items": len(reader.items),
            "median_seconds": statistics.median(spent[reader.id]) if spent[reader.id] else None,
        }
        for reader in plan.readers
    ]
