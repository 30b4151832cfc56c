"""The analysis as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from radfound.reader_study.analysis.effects import OVERALL, PREFERENCE

_NOTES = """Scores run from 1 to 5. "{overall}" is the mean of all criteria, with reversed scales where 1 is good.
Only the first showing of a case counts, except for "the same reader again". Ratings of a text are averaged over the
readers, and intervals (bootstrap, 95 %) and tests (Wilcoxon's signed-rank, two-sided) are over cases: they generalise
to other cases with these readers. Holm's correction of p covers all comparisons of a table. Alpha
is Krippendorff's for ordinal data; ICC(2,1) and ICC(2,k) are absolute agreement of one reader and of the mean of all.
Agreement of 1 is perfect, 0 is that of chance. tau is Kendall's tau-b."""


def report(results: Mapping[str, Any], pictures: Mapping[str, Path]) -> str:
    """Return the Markdown of an analysis, with links to its pictures by name."""
    names = _names(results)
    parts = [
        [f"# {results['title']}", "", *_progress(results)],
        _part("Scores", _means(results, names), pictures, "means", "scores"),
        _part("Comparisons", _comparisons(results["comparisons"], names)),
        _part("Preferences", _win_rates(results["win_rates"]), pictures, "preferences"),
        _part("Agreement between readers", _between(results, names), pictures, "agreement"),
        _part("The same reader again", _within(results["within_readers"], names)),
        _part("Readers and automatic metrics", _metrics(results, names), pictures, "metrics"),
        *_groups(results, names),
        ["## How to read this", "", _NOTES.format(overall=names[OVERALL])],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _names(results: Mapping[str, Any]) -> dict[str, str]:
    names = {
        each["key"]: each["name"] + (" (1 is good)" if each["better"] == "low" else "")
        for each in results["criteria"]
    }
    return {**names, OVERALL: "All criteria", PREFERENCE: "Preference"}


def _part(
    title: str, lines: Sequence[str], pictures: Mapping[str, Path] = {}, *shown: str
) -> list[str]:
    if not lines:
        return []
    links = [f"![{title}: {name}]({pictures[name].name})" for name in shown if name in pictures]
    return [f"## {title}", "", *lines, *(line for link in links for line in ("", link))]


def _progress(results: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            each["reader"],
            f"{each['complete']} of {each['items']}",
            "-" if each["median_seconds"] is None else f"{each['median_seconds']:.0f}",
        ]
        for each in results["readers"]
    ]
    about = f"{results['cases']} cases, texts of {len(results['sources'])} sources: {', '.join(results['sources'])}."
    return [about, "", *table(["reader", "items complete", "median seconds an item"], rows)]


def _means(part: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    sources = list(dict.fromkeys(row["source"] for row in part["means"]))
    rows: dict[str, list[str]] = {}
    for row in part["means"]:
        rows.setdefault(row["criterion"], [names[row["criterion"]]]).append(interval(row))
    return table(["criterion", *sources], rows.values())


def _comparisons(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[str]:
    if not rows:
        return []
    cells = [
        [
            names[row["criterion"]],
            f"{row['first']} less {row['second']}",
            str(row["cases"]),
            interval({**row, "value": row["difference"]}, "+"),
            p_value(row["p"]),
            p_value(row["p_holm"]),
        ]
        for row in rows
    ]
    return table(["criterion", "sources", "cases", "difference", "p", "p, Holm"], cells)


def _win_rates(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    cells = [
        [
            row["source"],
            row["against"] or "all others",
            *(str(row[name]) for name in ("wins", "ties", "losses")),
            interval(row, scale=100),
        ]
        for row in rows
    ]
    return table(["source", "against", "wins", "ties", "losses", "win rate, %"], cells)


def _between(part: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    if len(part.get("readers", (0, 0))) < 2:
        return ["Only one reader; nothing to compare."]
    cells = [
        [
            names[row["criterion"]],
            str(row["texts"]),
            interval({**row, "value": row["alpha"]}),
            *(interval(row.get(name)) for name in ("icc_single", "icc_mean")),
        ]
        for row in part["between_readers"]
    ]
    return table(["criterion", "texts", "alpha", "ICC(2,1)", "ICC(2,k)"], cells)


def _within(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[str]:
    if not rows:
        return []
    cells = [
        [
            names[row["criterion"]],
            row["reader"] or "all",
            str(row["pairs"]),
            interval({**row, "value": row["alpha"]}),
            f"{100 * row['same']:.0f} %",
            f"{100 * row['within_one']:.0f} %",
        ]
        for row in rows
    ]
    heads = ["criterion", "reader", "texts twice", "alpha", "same score", "at most 1 apart"]
    return table(heads, cells)


def _metrics(results: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    rows: dict[str, dict[str, str]] = {}
    finite = {row["metric"] for row in results["metrics"] if math.isfinite(row["tau"])}
    for row in results["metrics"]:
        if row["metric"] not in finite:
            continue
        shown = interval({**row, "value": row["tau"]}) if "low" in row else number(row["tau"])
        line = rows.setdefault(row["metric"], {"metric": row["metric"]})
        line[row["criterion"]] = shown
        line["texts"] = str(row["texts"])
    if not rows:
        return []
    keys = [OVERALL, *(each["key"] for each in results["criteria"])]
    cells = [
        [line["metric"], line["texts"], *(line[key] for key in keys)] for line in rows.values()
    ]
    about = "Kendall's tau of each metric and the readers' mean score, over all texts that have a reference."
    return [about, "", *table(["metric", "texts", *(names[key] for key in keys)], cells)]


def _groups(results: Mapping[str, Any], names: Mapping[str, str]) -> list[list[str]]:
    found = []
    for kind, groups in results["by"].items():
        for name, part in groups.items():
            lines = _means(part, names)
            if part["win_rates"]:
                lines += ["", *_win_rates(part["win_rates"])]
            if len(results["readers"]) > 1:
                lines += ["", *_between(part, names)]
            found.append(_part(f"{kind.capitalize()}: {name} ({part['cases']} cases)", lines))
    return found


# Cells -----------------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def number(value: float | None, sign: str = "", scale: int = 1) -> str:
    """Format a number with two decimals, or none if `scale` is 100; "-" for a missing number."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{scale * value:{sign}.{0 if scale == 100 else 2}f}"


def interval(row: Mapping[str, Any] | None, sign: str = "", scale: int = 1) -> str:
    """Return a value with its interval, if it has one."""
    if row is None:
        return "-"
    value, low, high = (number(row[name], sign, scale) for name in ("value", "low", "high"))
    return value if "-" in (value, low, high) else f"{value} ({low} to {high})"


def p_value(p: float) -> str:
    """Format a p-value with three decimals."""
    if not math.isfinite(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
