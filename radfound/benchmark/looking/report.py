"""The tables on what a model can see, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from radfound.benchmark.looking.leads import CONTROLS
from radfound.benchmark.markdown import header, number
from radfound.benchmark.runner import MODEL

KINDS = {
    "presence": "is it there (yes or no)",
    "normality": "normal, or what is wrong",
    "location": "where",
    "size": "how many, how large",
    "picture": "modality, plane, region",
    "other": "other open questions",
    "finding": "all yes/no questions and those about what is abnormal",
    "open": "all others",
}
"""Kinds of question in the order of the table, in words."""


def looking_lines(results: Mapping[str, Any]) -> list[str]:
    """Return the tables that lead a report; empty for results without them."""
    return [
        *_kind_lines(results.get("competence", {}).get("kinds", {})),
        *_rank_lines(results.get("looking", {})),
        *_pair_lines(results.get("looking", {}).get("pairs", ())),
        *_word_lines(results.get("looking", {}).get("image_disjoint", ())),
    ]


def _kind_lines(kinds: Mapping[str, Any]) -> list[str]:
    if not kinds:
        return []
    lines = [
        "",
        "**What it sees, by kind of question**: its lead over the control that comes nearest",
        "",
    ]
    lines += header(
        ["question", "n", "model", *CONTROLS.values(), "least lead", "over", "it answers"]
    )
    for kind in sorted(kinds, key=list(KINDS).index):
        row = kinds[kind]
        cells = [
            KINDS[kind],
            str(row["n"]),
            number(row[MODEL], True, True),
            *(number(row[name], True, False) for name in CONTROLS),
            number(row["lead"], True, True, "+"),
            row["over"],
            "yes" if row["lead"]["low"] > 0 else "no: it is silent",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _rank_lines(looking: Mapping[str, Any]) -> list[str]:
    rank = looking.get("effective_rank")
    if rank is None:
        return []
    return [
        "",
        f"Effective rank of the visual tokens over {rank['n']} held-out figures: {rank['value']:.1f} of at most "
        f"{min(rank['n'] - 1, rank['width'])}.",
    ]


def _pair_lines(rows: Any) -> list[str]:
    if not rows:
        return []
    lines = [
        "",
        "**The same question about two pictures**, one yes and one no: P(yes) ranked right (chance 50)",
        "",
    ]
    lines += header(["pairs", "n", "questions", "ranked right"])
    for row in rows:
        cells = [row["row"], str(row["n"]), str(row["questions"]), number(row["right"], True, True)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _word_lines(rows: Any) -> list[str]:
    if not rows:
        return []
    lines = [
        "",
        "**Words alone, where training and test share no image** (ten folds over all splits)",
        "",
    ]
    lines += header(["question", "score", "n", "words alone", "nearest question"])
    for row in rows:
        found = [number(row[name], row["percent"], True) for name in ("words", "nearest")]
        lines.append("| " + " | ".join([row["row"], row["score"], str(row["n"]), *found]) + " |")
    return lines
