"""Score the answers of a run: every metric with its controls, intervals and differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from radfound.benchmark.runner import ALIKE, BLANK, MODEL, OTHER, WORDS, Run
from radfound.benchmark.scoring.calibration import reliability
from radfound.benchmark.scoring.metrics import (
    YES_OR_NO,
    Metric,
    accuracy,
    answer_metrics,
    balanced_accuracy,
    closed_accuracy,
    closed_match,
    exact_match,
    normalised,
    text_metrics,
)
from radfound.benchmark.scoring.statistics import bootstrap, paired
from radfound.benchmark.tasks import ROWS, Item
from radfound.engine.confidence import Calibration, calibration_group

COMPARED = (BLANK, OTHER, ALIKE, WORDS)  # controls with a reported difference to the model


@dataclass(frozen=True)
class Block:
    """Items of one group, their metrics, and the statistics of each column by metric."""

    group: str
    items: list[Item]
    metrics: list[Metric]
    parts: dict[str, list[np.ndarray]]


class Scorer:
    """Scores runs.

    Parameters
    ----------
    seed : int
        Seed of the bootstrap.
    extra : sequence of Metric
        More metrics for captions and reports.
    """

    def __init__(self, seed: int = 0, extra: Sequence[Metric] = ()):
        self.seed = seed
        self.extra = list(extra)

    def metrics(self, group: str, items: Sequence[Item]) -> list[Metric]:
        """Return the metrics of a group's items, the main metric first."""
        if group in ("caption", "report"):
            found = [*text_metrics(), *self.extra]
            return sorted(found, key=lambda metric: metric.name != "ROUGE-L")
        if group == "open":
            return sorted(answer_metrics(), key=lambda metric: metric.name != "token recall")
        if group == "closed":
            return [closed_accuracy(), balanced_accuracy(YES_OR_NO, closed_match)]
        classes = sorted({normalised(item.turn.answer) for item in items})
        return [accuracy(), balanced_accuracy(classes, exact_match)]

    def task(self, run: Run) -> dict[str, Any]:
        """Return a task's rows, its scores by modality and organ system, and its number of distinct answers."""
        blocks = self._blocks(run)
        rows = []
        for name in sorted({row for item in run.task.items for row in item.rows}, key=ROWS.index):
            rows += self._rows(name, blocks)
        distinct = {
            column: len({text.lower() for text in texts}) for column, texts in run.answers.items()
        }
        return {
            "items": len(run.task.items),
            "patients": len({item.example.key for item in run.task.items}),
            "data_sha256": run.task.digest,
            "distinct_answers": distinct,
            "alike": dict(run.alike),
            "refused": dict(run.refused),
            "rows": rows,
            "by": {
                "modality": self._split(blocks, lambda item: item.modality),
                "organ system": self._split(blocks, lambda item: item.organ_system),
            },
        }

    def compare(
        self, run: Run, other: Sequence[str | None], column: str = MODEL
    ) -> list[dict[str, Any]]:
        """Return the differences to another run, whose missing answers are None."""
        kept = [k for k, text in enumerate(other) if text is not None]
        rows = []
        for group in dict.fromkeys(run.task.items[k].group for k in kept):
            mine = [k for k in kept if run.task.items[k].group == group]
            items = [run.task.items[k] for k in mine]
            truths = [item.turn.answer for item in items]
            for metric in self.metrics(group, items):
                ours = metric.statistics([run.answers[column][k] for k in mine], truths)
                theirs = metric.statistics([str(other[k]) for k in mine], truths)
                row = {
                    "row": group,
                    "score": metric.name,
                    "n": len(items),
                    "percent": metric.percent,
                    "model": self._interval(metric, ours, items),
                    "other_run": self._interval(metric, theirs, items),
                    "difference": self._difference(metric, ours, theirs, items),
                }
                rows.append(row)
        return rows

    def _blocks(self, run: Run) -> list[Block]:
        blocks = []
        for group in dict.fromkeys(item.group for item in run.task.items):
            mine = [k for k, item in enumerate(run.task.items) if item.group == group]
            items = [run.task.items[k] for k in mine]
            truths = [item.turn.answer for item in items]
            metrics = self.metrics(group, items)
            parts = {
                column: [m.statistics([texts[k] for k in mine], truths) for m in metrics]
                for column, texts in run.answers.items()
            }
            blocks.append(Block(group, items, metrics, parts))
        return blocks

    def _rows(self, name: str, blocks: Sequence[Block]) -> list[dict[str, Any]]:
        """Return one row for each metric; a row such as "all" joins blocks, by their main metric alone."""
        found = [
            (block, [k for k, item in enumerate(block.items) if name in item.rows])
            for block in blocks
        ]
        found = [(block, rows) for block, rows in found if rows]
        items = [block.items[k] for block, rows in found for k in rows]
        table = []
        for place, metric in enumerate(found[0][0].metrics[: 1 if len(found) > 1 else None]):
            parts = {
                column: np.concatenate([block.parts[column][place][rows] for block, rows in found])
                for column in found[0][0].parts
            }
            counted = (
                len(items) if metric.counted is None else int(parts[MODEL].sum(0)[metric.counted])
            )
            row: dict[str, Any] = {
                "row": name,
                "score": metric.name,
                "n": counted,
                "patients": len({item.example.key for item in items}),
                "percent": metric.percent,
                "lower_is_better": metric.lower_is_better,
            }
            row |= {column: self._interval(metric, part, items) for column, part in parts.items()}
            for control in (name for name in COMPARED if name in parts):
                row[f"over_{control}"] = self._difference(
                    metric, parts[MODEL], parts[control], items
                )
            table.append(row)
        return table

    def _split(
        self, blocks: Sequence[Block], of: Callable[[Item], str]
    ) -> dict[str, dict[str, Any]]:
        """Return the first metric of each group, split by the value of `of`."""
        table: dict[str, dict[str, Any]] = {}
        for block in blocks:
            names = [of(item) for item in block.items]
            metric, parts = block.metrics[0], {c: part[0] for c, part in block.parts.items()}
            for name in sorted(set(names)):
                rows = [k for k, own in enumerate(names) if own == name]
                items = [block.items[k] for k in rows]
                table.setdefault(name, {})[block.group] = {
                    "score": metric.name,
                    "n": len(rows),
                    "percent": metric.percent,
                    **{c: self._interval(metric, part[rows], items) for c, part in parts.items()},
                }
        return table

    def _interval(
        self, metric: Metric, parts: np.ndarray, items: Sequence[Item]
    ) -> dict[str, float]:
        patients = [item.example.key for item in items]
        return asdict(bootstrap(metric.value, parts, patients, seed=self.seed))

    def _difference(
        self, metric: Metric, ours: np.ndarray, theirs: np.ndarray, items: Sequence[Item]
    ) -> dict[str, float]:
        patients = [item.example.key for item in items]
        return asdict(paired(metric.value, ours, theirs, patients, seed=self.seed))


def is_right(item: Item, answer: str) -> float:
    """Return 1.0 or 0.0 for an answer to a question, as its main metric counts it; NaN for captions and reports.

    An answer to an open question is right if it matches exactly.
    """
    if item.turn.task != "vqa":
        return float("nan")
    match = closed_match if item.group == "closed" else exact_match
    return match(answer, item.turn.answer)


def calibration_table(runs: Sequence[Run], calibration: Calibration | None) -> dict[str, Any]:
    """Return the reliability of confidence on the test questions.

    Keys are "all", the tasks, and the groups of `calibration_group`. Each has n, the reliability of the
    length-normalised probability ("raw") and, with a calibration, of the confidence ("calibrated"). The
    table is empty for a backend without probabilities.
    """
    sets: dict[str, list[tuple[float, float | None, float]]] = {}
    for run in runs:
        for item, text, raw in zip(
            run.task.items, run.answers[MODEL], run.probabilities, strict=True
        ):
            group = calibration_group(item.turn.task, item.question.text)
            if group is None or raw is None or item.example.split != "test":
                continue
            confidence = confidence_of(item, raw, calibration)
            for name in ("all", run.task.name, f"{group} questions"):
                sets.setdefault(name, []).append((raw, confidence, is_right(item, text)))
    table = {}
    for name, rows in sets.items():
        hits = [right for _, _, right in rows]
        raw_part = asdict(reliability([raw for raw, _, _ in rows], hits))
        confidences = [confidence for _, confidence, _ in rows if confidence is not None]
        complete = len(confidences) == len(rows)
        calibrated = asdict(reliability(confidences, hits)) if complete else None
        table[name] = {"n": len(rows), "raw": raw_part, "calibrated": calibrated}
    return table


def confidence_of(item: Item, raw: float | None, calibration: Calibration | None) -> float | None:
    """Return the confidence of an answer, as the engine computes it."""
    if calibration is None:
        return None
    return calibration.confidence(item.turn.task, item.question.text, raw)
