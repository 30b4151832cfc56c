"""Plots of an analysis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from radfound.optional import library
from radfound.reader_study.analysis.effects import OVERALL, PREFERENCE

_SOURCES = ("#1b4f8a", "#d98a29", "#3f8f5a", "#8a4f9e", "#5f5f5f", "#b5443c", "#2a9aa8", "#8c7a2f")
_POINTS = ("#b5443c", "#e3a287", "#d9d9d9", "#8fb4dc", "#1b4f8a")
_INK = "#222222"


def draw(results: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Save means.png, scores.png and, if there are data, preferences, agreement and metrics."""
    names = {each["key"]: each["name"] for each in results["criteria"]}
    names |= {OVERALL: "All criteria", PREFERENCE: "Preference"}
    drawings = {
        "means": _means(results, names),
        "scores": _scores(results, names),
        "preferences": _preferences(results),
        "agreement": _agreement(results, names),
        "metrics": _metrics(results),
    }
    written = {}
    for name, figure in drawings.items():
        if figure is not None:
            written[name] = folder / f"{name}.png"
            figure.savefig(written[name], dpi=130)
            library("matplotlib.pyplot", "reader-study").close(figure)
    return written


def _figure(height: float) -> tuple[Any, Any]:
    library("matplotlib", "reader-study").use("Agg")
    figure, axes = library("matplotlib.pyplot", "reader-study").subplots(
        figsize=(8, height), layout="constrained"
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def _whiskers(
    axes: Any, rows: Sequence[Mapping[str, Any]], places: Sequence[float], value: str, colour: str, label: str = ""
) -> None:  # fmt: skip
    """Draw values as dots with their intervals as lines."""
    for row, place in zip(rows, places, strict=True):
        if row.get("low") is not None and math.isfinite(row["low"]):
            axes.plot([row["low"], row["high"]], [place] * 2, color=colour, linewidth=2)
    values = [row[value] for row in rows]
    axes.plot(values, places, "o", color=colour, markersize=6, label=label or None)


def _means(results: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    rows = results["means"]
    criteria = list(dict.fromkeys(row["criterion"] for row in rows))
    sources = results["sources"]
    gap = len(sources) + 1
    figure, axes = _figure(1.4 + 0.24 * gap * len(criteria))
    for s, source in enumerate(sources):
        own = [row for row in rows if row["source"] == source]
        places = [k * gap + s for k in range(len(criteria))]
        _whiskers(axes, own, places, "value", _SOURCES[s % len(_SOURCES)], source)
    axes.set_yticks(
        [k * gap + (len(sources) - 1) / 2 for k in range(len(criteria))],
        [_wrapped(names[criterion]) for criterion in criteria],
    )
    axes.set(xlim=(0.9, 5.1), ylim=(gap * len(criteria) - 1.2, -0.8), xticks=range(1, 6))
    axes.set_xlabel("mean score, with 95 % interval")
    axes.grid(axis="x", color="#e5e5e5")
    figure.legend(loc="outside lower center", ncols=min(4, len(sources)), frameon=False)
    return figure


def _scores(results: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    criteria = [each["key"] for each in results["criteria"]]
    sources = results["sources"]
    gap = len(sources) + 0.7
    figure, axes = _figure(1.4 + 0.26 * gap * len(criteria))
    ticks, labels = [], []
    for k, criterion in enumerate(criteria):
        low = results["criteria"][k]["better"] == "low"
        for s, source in enumerate(sources):
            counts = next(
                row["counts"]
                for row in results["scores"]
                if row["criterion"] == criterion and row["source"] == source
            )
            place, left, total = k * gap + s, 0.0, max(1, sum(counts))
            for point, count in enumerate(counts):
                share = 100 * count / total
                colour = _POINTS[4 - point if low else point]
                axes.barh(place, share, left=left, height=0.85, color=colour)
                if share >= 5:
                    ink = "white" if colour in (_POINTS[0], _POINTS[4]) else _INK
                    axes.text(
                        left + share / 2, place, str(point + 1), color=ink, ha="center", va="center", fontsize=8
                    )  # fmt: skip
                left += share
            ticks.append(place)
            labels.append(source)
        axes.text(
            1.02, k * gap + (len(sources) - 1) / 2, _wrapped(names[criterion]), va="center",
            transform=axes.get_yaxis_transform(), fontsize=9,
        )  # fmt: skip
    axes.set_yticks(ticks, labels)
    axes.set(xlim=(0, 100), ylim=(gap * len(criteria) - 0.9, -0.7))
    axes.set_xlabel("share of the scores, % (blue is good)")
    return figure


def _preferences(results: Mapping[str, Any]) -> Any:
    rows = [row for row in results["win_rates"] if row["against"] is not None]
    order = {source: s for s, source in enumerate(results["sources"])}
    rows = [row for row in rows if order[row["source"]] < order[row["against"]]]
    if not rows:
        return None
    figure, axes = _figure(1.3 + 0.5 * len(rows))
    for place, row in enumerate(rows):
        counts = [row["wins"], row["ties"], row["losses"]]
        left = 0.0
        for count, colour in zip(counts, (_POINTS[4], _POINTS[2], _SOURCES[1]), strict=True):
            share = 100 * count / sum(counts)
            axes.barh(place, share, left=left, height=0.6, color=colour)
            if share >= 4:
                ink = "white" if colour == _POINTS[4] else _INK
                axes.text(left + share / 2, place, str(count), color=ink, ha="center", va="center")
            left += share
        axes.text(
            1.01, place, _wrapped(row["against"]), va="center", transform=axes.get_yaxis_transform()
        )
    axes.set_yticks(range(len(rows)), [_wrapped(row["source"]) for row in rows])
    axes.set(xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5))
    axes.axvline(50, color=_INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("preferred: left source (blue), neither (grey), right source (orange); %")
    return figure


def _agreement(results: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    between = [row for row in results["between_readers"] if math.isfinite(row["alpha"])]
    within = {row["criterion"]: row for row in results["within_readers"] if row["reader"] is None}
    if not between:
        return None
    figure, axes = _figure(1.5 + 0.5 * len(between))
    places = list(range(len(between)))
    _whiskers(axes, between, [p - 0.12 for p in places], "alpha", _SOURCES[0], "between readers")
    again = [
        (p, within[row["criterion"]]) for p, row in enumerate(between) if row["criterion"] in within
    ]
    again = [(p, row) for p, row in again if math.isfinite(row["alpha"])]
    if again:
        _whiskers(
            axes, [row for _, row in again], [p + 0.12 for p, _ in again], "alpha", _SOURCES[1], "the same reader again"
        )  # fmt: skip
    ends = [
        row["low"] for row in (*between, *(row for _, row in again)) if math.isfinite(row["low"])
    ]
    axes.set_yticks(places, [_wrapped(names[row["criterion"]]) for row in between])
    axes.set(xlim=(min(-0.05, *ends, 0) - 0.02, 1.02), ylim=(len(between) - 0.5, -0.5))
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_xlabel("Krippendorff's alpha, with 95 % interval")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _metrics(results: Mapping[str, Any]) -> Any:
    rows = [row for row in results["metrics"] if row["criterion"] == OVERALL and "low" in row]
    if not rows:
        return None
    rows = sorted(rows, key=lambda row: -row["tau"])
    figure, axes = _figure(1.2 + 0.32 * len(rows))
    _whiskers(axes, rows, range(len(rows)), "tau", _SOURCES[0])
    axes.set_yticks(range(len(rows)), [f"{row['metric']} ({row['texts']})" for row in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(-1.02, 1.02))
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_xlabel(
        "Kendall's tau with the readers' mean score (texts in brackets), with 95 % interval"
    )
    return figure


def _wrapped(text: str) -> str:
    return fill(text, 24)
