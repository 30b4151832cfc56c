"""Plots of a run: reliability diagrams, and the scores of each task with their controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radfound.benchmark.output import COLUMNS, TITLES, is_shown
from radfound.benchmark.runner import MODEL
from radfound.benchmark.scoring.calibration import BINS
from radfound.optional import library

_COLOURS = dict(
    zip(
        COLUMNS,
        ("#1b4f8a", "#c8c8c8", "#2f8f6b", "#7fbf9f", "#a8a8a8", "#7c7c7c", "#4f4f4f", "#d98a29"),
        strict=True,
    )
)
_DRAWN = ("accuracy", "token recall", "ROUGE-L", "BLEU-1", "BLEU-4", "METEOR", "finding F1")
_INCH = 0.24  # height of one bar


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write `reliability.png` and `scores-TASK.png`; return their paths."""
    written = []
    for name, task in results["tasks"].items():
        rows = [row for row in task["rows"] if _is_drawn(row)]
        if rows:
            written.append(_scores(TITLES[name], rows, folder / f"scores-{name}.png"))
    if results["calibration"]:
        written.append(_reliability(results["calibration"], folder / "reliability.png"))
    return written


def _is_drawn(row: dict[str, Any]) -> bool:
    """Whether a row is plotted: main scores over both splits only."""
    of_part = row["row"].endswith((", validation", ", test"))
    drawn = row["score"] in _DRAWN and not of_part and is_shown(row)
    return drawn and math.isfinite(row[MODEL]["value"])


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure and its grid of axes."""
    library("matplotlib", "bench").use("Agg")
    return library("matplotlib.pyplot", "bench").subplots(
        rows, columns, figsize=(width, height), layout="constrained", squeeze=False
    )


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=130)
    library("matplotlib.pyplot", "bench").close(figure)
    return path


def _scores(title: str, rows: Sequence[dict[str, Any]], path: Path) -> Path:
    shown = [column for column in COLUMNS if column in rows[0]]
    figure, grid = _figure(8, 1.5 + len(rows) * (len(shown) + 1) * _INCH)
    axes = grid[0, 0]
    for k, column in enumerate(shown):
        places = [row * (len(shown) + 1) + k for row in range(len(rows))]
        values = [100 * row[column]["value"] for row in rows]
        errors = [
            [max(0.0, 100 * (row[column]["value"] - row[column]["low"])) for row in rows],
            [max(0.0, 100 * (row[column]["high"] - row[column]["value"])) for row in rows],
        ]
        axes.barh(
            places, values, height=0.85, xerr=errors, color=_COLOURS[column], label=COLUMNS[column],
            error_kw={"elinewidth": 0.9, "ecolor": "#222222"},
        )  # fmt: skip
    one_score = len({row["score"] for row in rows}) == 1
    one_row = len({row["row"] for row in rows}) == 1
    labels = [
        row["score"] if one_row else row["row"] + ("" if one_score else f"\n{row['score']}")
        for row in rows
    ]
    middle = (len(shown) - 1) / 2
    axes.set_yticks([k * (len(shown) + 1) + middle for k in range(len(rows))], labels)
    axes.set_ylim(len(rows) * (len(shown) + 1) - 1.3, -0.8)
    axes.set_xlim(0, 100 if one_score and rows[0]["score"] == "accuracy" else None)
    axes.set_xlabel(f"{rows[0]['score']}, %" if one_score else "%")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        loc="outside lower center", ncols=len(shown), frameon=False, fontsize=9, columnspacing=1.2
    )
    return _save(figure, path)


def _reliability(table: dict[str, Any], path: Path) -> Path:
    names = list(table)
    columns = min(len(names), 3)
    lines = math.ceil(len(names) / columns)
    figure, grid = _figure(3.4 * columns, 4.1 * lines, lines, columns)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat[: len(names)], names, strict=True):
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle="--")
        for kind, label, colour in (
            ("raw", "token probability", "#b06a3b"),
            ("calibrated", "confidence", _COLOURS[MODEL]),
        ):
            found = table[name][kind]
            if found is None:
                continue
            kept = [k for k in range(BINS) if found["counts"][k]]
            share = [found["counts"][k] / table[name]["n"] for k in kept]
            axes.scatter(
                [found["confidence"][k] for k in kept], [found["accuracy"][k] for k in kept],
                s=[12 + 280 * part for part in share], color=colour, alpha=0.75, linewidths=0,
                label=f"{label}, ECE {found['ece']:.3f}",
            )  # fmt: skip
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.set_title(f"{name} (n = {table[name]['n']})", loc="left", fontsize=10)
        legend = axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8, frameon=False
        )
        for handle in legend.legend_handles:
            handle.set_sizes([30])
    figure.supxlabel("confidence of the model", fontsize=10)
    figure.supylabel("share of correct answers", fontsize=10)
    return _save(figure, path)
