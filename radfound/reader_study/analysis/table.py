"""Unblinded ratings of a study: arrays for the analysis, rows for ratings.csv."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from radfound.reader_study.design.key import Key
from radfound.reader_study.design.plan import SCALE, Criterion, Plan
from radfound.reader_study.rating.ratings import (
    COMMENT,
    PREFERENCE,
    SCORE,
    SECOND,
    TIE,
    Rating,
    newest,
)
from radfound.spreadsheet import write_rows

CSV_FIELDS = (
    "reader", "case", "modality", "organ_system", "task", "question", "source", "text", "repeat", "position",
    "kind", "name", "value", "seconds", "created",
)  # fmt: skip


@dataclass(frozen=True)
class Ratings:
    """Scores and preferences as arrays; NaN if a rating is missing.

    Parameters
    ----------
    readers, cases, sources : tuple of str
        Names; R readers, C cases, S sources.
    criteria : tuple of Criterion
        K criteria.
    scores : float array, shape (2, R, C, S, K)
        1 to 5; [0] is the first showing of a case, [1] the repeat.
    preferences : float array, shape (2, R, C, P)
        For each of `pairs`: 1 if the first source was preferred, -1 if the second, 0 for a tie.
    modalities, organ_systems : tuple of C (str or None)
    """

    readers: tuple[str, ...]
    cases: tuple[str, ...]
    sources: tuple[str, ...]
    criteria: tuple[Criterion, ...]
    scores: np.ndarray
    preferences: np.ndarray
    modalities: tuple[str | None, ...]
    organ_systems: tuple[str | None, ...]

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The index pairs of sources."""
        return tuple(combinations(range(len(self.sources)), 2))

    @cached_property
    def goodness(self) -> np.ndarray:
        """Mean of the criteria in the first showing, oriented so that 5 is good, shape (R, C, S)."""
        oriented = [
            self.scores[0, ..., k]
            if criterion.better == "high"
            else SCALE[0] + SCALE[-1] - self.scores[0, ..., k]
            for k, criterion in enumerate(self.criteria)
        ]
        return np.asarray(np.mean(oriented, axis=0))

    def of_cases(self, chosen: np.ndarray) -> Ratings:
        """Return the ratings of the cases selected by a boolean array of shape (C,)."""
        indices = np.flatnonzero(chosen)
        return Ratings(
            self.readers,
            tuple(self.cases[c] for c in indices),
            self.sources,
            self.criteria,
            self.scores[:, :, indices],
            self.preferences[:, :, indices],
            tuple(self.modalities[c] for c in indices),
            tuple(self.organ_systems[c] for c in indices),
        )


def ratings_of(plan: Plan, key: Key, said: Iterable[Rating]) -> Ratings:
    """Return the newest ratings as arrays."""
    readers = tuple(reader.id for reader in plan.readers)
    cases, sources = tuple(key.cases), tuple(key.sources)
    reader_of, case_of = _numbers(readers), _numbers(cases)
    source_of, criterion_of = _numbers(sources), _numbers(c.key for c in plan.criteria)
    pair_of = {pair: p for p, pair in enumerate(combinations(range(len(sources)), 2))}
    shape = (2, len(readers), len(cases))
    scores = np.full((*shape, len(sources), len(plan.criteria)), np.nan)
    preferences = np.full((*shape, len(pair_of)), np.nan)
    items = {item.id: item for reader in plan.readers for item in reader.items}
    again = set(key.repeats)
    for rating in newest(said):
        if rating.kind not in (SCORE, PREFERENCE):
            continue
        at = int(rating.item in again), reader_of[rating.reader], case_of[items[rating.item].case]
        source = source_of[key.candidates[rating.candidate]]
        if rating.kind == SCORE:
            scores[(*at, source, criterion_of[rating.name])] = int(rating.value)
            continue
        other = source_of[key.candidates[rating.name]]
        sign = 0 if rating.value == TIE else -1 if rating.value == SECOND else 1
        if source > other:  # shown in reverse order
            source, other, sign = other, source, -sign
        preferences[(*at, pair_of[source, other])] = sign
    known = list(key.cases.values())
    return Ratings(
        readers,
        tuple(case.name for case in known),
        sources,
        plan.criteria,
        scores,
        preferences,
        tuple(case.modality for case in known),
        tuple(case.organ_system for case in known),
    )


def _numbers(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def write_csv(plan: Plan, key: Key, said: Iterable[Rating], path: Path) -> int:
    """Write the newest ratings as CSV rows with their sources; return the number of rows.

    A preference has the names of both sources in `source`, separated by "|", in shown order; its value is the
    name of the preferred source, or "tie".
    """
    return write_rows(path, CSV_FIELDS, _lines(plan, key, said))


def _lines(plan: Plan, key: Key, ratings: Iterable[Rating]) -> Iterator[dict[str, Any]]:
    items = {item.id: item for reader in plan.readers for item in reader.items}
    for rating in newest(ratings):
        if rating.kind not in (SCORE, PREFERENCE, COMMENT):
            continue
        item = items[rating.item]
        case, known = plan.case(item.case), key.cases[item.case]
        line = {
            "reader": rating.reader,
            "case": known.name,
            "modality": known.modality or "",
            "organ_system": known.organ_system or "",
            "task": case.task,
            "question": case.question or "",
            "source": key.candidates[rating.candidate],
            "repeat": int(rating.item in key.repeats),
            "kind": rating.kind,
            "value": rating.value,
            "seconds": f"{rating.seconds:.1f}",
            "created": rating.created,
        }
        if rating.kind == PREFERENCE:
            both = key.candidates[rating.candidate], key.candidates[rating.name]
            preferred = {"first": both[0], "second": both[1]}.get(rating.value, TIE)
            yield line | {"source": "|".join(both), "value": preferred}
        else:
            ids = [candidate.id for candidate in item.candidates]
            text = item.candidate(rating.candidate).text
            position = ids.index(rating.candidate) + 1
            yield line | {"name": rating.name, "text": text, "position": position}


def seconds_by_reader(plan: Plan, said: Iterable[Rating]) -> dict[str, list[float]]:
    """Return the time of each reader for each rated item, seconds."""
    spent: dict[tuple[str, str], float] = {}
    for rating in said:
        if rating.item:
            at = rating.reader, rating.item
            spent[at] = spent.get(at, 0.0) + rating.seconds
    return {
        reader.id: [
            spent[reader.id, item.id] for item in reader.items if (reader.id, item.id) in spent
        ]
        for reader in plan.readers
    }
