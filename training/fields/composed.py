"""Captions and reports of held-out pictures: how many loop, and how many findings a control gets too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import numpy as np

from radfound.fields.compose import compose
from radfound.fields.model import FieldModel
from radfound.fields.values import Reading
from training.fields.fit import Features, rows_of
from training.fields.samples import Sample

_LONGEST_GROUP = 8  # words


def loops(text: str) -> bool:
    """Return whether up to eight words come three times in a row."""
    words = re.findall(r"\w+", text.lower())
    return any(
        words[start : start + size]
        == words[start + size : start + 2 * size]
        == words[start + 2 * size : start + 3 * size]
        for size in range(1, _LONGEST_GROUP + 1)
        for start in range(len(words) - 3 * size + 1)
    )


def asserted(reading: Reading) -> set[str]:
    """Return the findings that a caption calls likely."""
    return {name for name, each in reading.findings.items() if each.probability >= 0.5}


def composed_table(
    model: FieldModel,
    samples: Sequence[Sample],
    values: Features,
    controls: Mapping[str, Features],
    count: int = 100,
) -> str:
    """Compose captions and reports of `count` held-out pictures, as many of each set as there are.

    Parameters
    ----------
    values : mapping of str to float array, shape (N, D)
    controls : mapping of str to features of one picture
        Pictures without a patient.

    Returns
    -------
    str
        A table in Markdown. A finding is right if the picture's source names it. "Another patient": the same finding is
        asserted of a picture of the same set whose source does not name it.
    """
    chosen = _of_each_set(samples, count)
    readings = [model.judge(rows_of(values, np.array([row]))) for row in chosen]
    texts = [
        compose(each.fields, task, each.findings)
        for each in readings
        for task in ("caption", "report")
    ]
    found = [
        (row, name) for row, each in zip(chosen, readings, strict=True) for name in asserted(each)
    ]
    right = sum(name in (samples[row].findings or ()) for row, name in found)
    lines = [
        ("captions and reports", str(len(texts))),
        ("that loop", str(sum(map(loops, texts)))),
        ("pictures of which a finding is asserted", str(len({row for row, _ in found}))),
        ("findings that are asserted", str(len(found))),
        ("of these named by the picture's source", str(right)),
    ]
    for name, features in controls.items():
        same = asserted(model.judge(features))
        lines.append(
            (f"of these asserted of a control too: {name}", str(sum(n in same for _, n in found)))
        )
    others = [(_another(samples, row, name), name) for row, name in found]
    also = sum(name in asserted(model.judge(rows_of(values, row))) for row, name in others)
    lines.append(
        ("of these asserted of another patient too, whose source does not name it", str(also))
    )
    return "\n".join(
        ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in lines)]
    )


def _another(samples: Sequence[Sample], row: int, finding: str) -> np.ndarray:
    """Return a held-out picture of the same set, of another patient, whose source does not name the finding."""
    mine = samples[row]
    rows = [
        index
        for index, each in enumerate(samples)
        if each.set == mine.set
        and each.split != "train"
        and each.patient != mine.patient
        and finding not in (each.findings or ())
    ]
    return np.random.default_rng(row).choice(rows, 1)


def _of_each_set(samples: Sequence[Sample], count: int) -> list[int]:
    """Return held-out pictures, one of each set in turn."""
    order = np.random.default_rng(0).permutation(len(samples)).tolist()
    of_set: dict[str, list[int]] = {}
    for row in order:
        if samples[row].split != "train":
            of_set.setdefault(samples[row].set, []).append(row)
    turns = zip_longest(*(of_set[name] for name in sorted(of_set)))
    return [row for turn in turns for row in turn if row is not None][:count]
