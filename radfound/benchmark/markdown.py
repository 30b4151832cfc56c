"""Tables of results in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable


def header(heads: Iterable[str]) -> list[str]:
    """Return the first two lines of a table."""
    heads = list(heads)
    return ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]


def number(interval: dict[str, float], percent: bool, with_ends: bool, sign: str = "") -> str:
    """Return a score as text, with the ends of its interval if wanted; "-" if there is none."""
    if not math.isfinite(interval["value"]):
        return "-"
    scale, places = (100, 1) if percent else (1, 2)
    value, low, high = (scale * interval[key] for key in ("value", "low", "high"))
    text = f"{value:{sign}.{places}f}"
    return f"{text} ({low:{sign}.{places}f} to {high:{sign}.{places}f})" if with_ends else text
