"""Heads for a question, after thirty wrong answers were corrected.

Run as `python -m training.teaching.heads --data KIT --cache FOLDER`. A reader of half of the patients corrects
`radfound-mini` until thirty answers were wrong; the head is examined on the other half. By default the field's classifier
answers before any correction, as on a server; `--wards contrast projection` are those of a model that knows nothing of the
field.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from radfound.commands import run_command
from radfound.question import Question
from radfound.records.corrections import CorrectionLog
from radfound.teaching import Teaching
from radfound.teaching.decisions import Decisions
from training.teaching.corrected import accuracy, balanced, read_until
from training.teaching.wards import Ward, divided, open_ward

COLUMNS = (
    "read",
    "base",
    "base, balanced",
    "majority",
    "right",
    "balanced",
    "used",
    "answered",
    "ECE",
    "ms",
)


def trial(ward: Ward, seed: int, wrong: int, folder: Path) -> dict[str, float]:
    """Teach one reader's corrections, and return what the answers on other patients are worth."""
    inside, outside = divided(list(ward.patients), seed)
    features = dict(zip(ward.digests.tolist(), ward.features, strict=True))
    patients = dict(zip(ward.digests.tolist(), ward.patients.tolist(), strict=True))
    fields, chances = (
        dict(zip(ward.digests.tolist(), each, strict=True)) for each in (ward.fields, ward.chances)
    )
    log = CorrectionLog(folder / "corrections.sqlite")
    rows = read_until(ward, inside.tolist(), wrong)
    for row in rows:
        log.append(row)
    teaching = Teaching(
        log,
        Decisions(folder / "templates.sqlite"),
        features=features.get,
        fields=lambda digest: fields[digest],
        chances=lambda digest: chances[digest],
        patient=lambda row: patients[row.image_hash or ""],
    )
    question = Question("vqa", ward.question)
    base = ward.base[ward.question][outside]
    began = time.perf_counter()
    head = teaching.head(question)
    took_ms = 1000 * (time.perf_counter() - began)
    taught = [
        teaching.after_answer(str(ward.digests[row]), (f"i{row}",), question, str(text))
        for row, text in zip(outside, base, strict=True)
    ]
    given = np.array(
        [text if each is None else each.text for each, text in zip(taught, base, strict=True)]
    )
    right = ward.right[outside]
    by_head = np.array([each is not None and each.source == "head" for each in taught])
    common = Counter(row.text.lower() for row in rows).most_common(1)[0][0]
    told = np.array([each.confidence for each in taught if each and each.source == "head"])
    hits = np.char.lower(given.astype(str)) == np.char.lower(right)
    return {
        "read": len(rows),
        "base": 100 * accuracy(right, base),
        "base, balanced": 100 * balanced(right, base),
        "majority": 100 * float((np.char.lower(right) == common).mean()),
        "right": 100 * accuracy(right, given),
        "balanced": 100 * balanced(right, given),
        "used": float(head is not None and head.compared.is_better),
        "answered": 100 * float(by_head.mean()),
        "ECE": calibration_error(told, hits[by_head]) if by_head.any() else float("nan"),
        "ms": took_ms,
    }


def calibration_error(told: np.ndarray, hits: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error over equal bins of confidence."""
    number = np.minimum((told * bins).astype(int), bins - 1)
    gaps = [
        (number == each).mean() * abs(told[number == each].mean() - hits[number == each].mean())
        for each in np.unique(number)
    ]
    return float(sum(gaps))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.teaching.heads", description=__doc__)
    parser.add_argument("--data", type=Path, help="the data kit; needed once to fill the cache")
    parser.add_argument("--cache", type=Path, required=True, help="folder for features and answers")
    parser.add_argument("--wards", nargs="+", default=["contrast-field", "projection-field"])
    parser.add_argument(
        "--wrong", type=int, nargs="+", default=[30], help="wrong answers corrected"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    args = parser.parse_args(arguments)
    print("| ward | wrong | seed | " + " | ".join(COLUMNS) + " |")
    print("| --- " * (len(COLUMNS) + 3) + "|", flush=True)
    for name in args.wards:
        ward = open_ward(name, args.cache, args.data)
        for wrong in args.wrong:
            table = []
            for seed in args.seeds:
                with tempfile.TemporaryDirectory() as folder:
                    found = trial(ward, seed, wrong, Path(folder))
                table.append([found[column] for column in COLUMNS])
                print(_line(name, wrong, str(seed), table[-1]), flush=True)
            print(_line(name, wrong, "mean", np.nanmean(table, axis=0)))
            print(_line(name, wrong, "lowest", np.nanmin(table, axis=0)))
            print(f"{name}, {wrong} wrong: {_reached(table)}", flush=True)


def _reached(table: Sequence[Sequence[float]]) -> str:
    """Return in how many divisions the goal of docs/teaching.md is reached, with corrections and without."""
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in table]
    counts = (
        sum(r["balanced"] >= 70 and r["right"] >= r["majority"] + 10 for r in rows),
        sum(r["base, balanced"] >= 70 and r["base"] >= r["majority"] + 10 for r in rows),
        sum(r["right"] >= r["base"] and r["balanced"] >= r["base, balanced"] for r in rows),
    )
    return (
        "balanced >= 70 and >= 10 above the majority in {} (base: {}), not below the base, balanced neither, "
        "in {} of {}"
    ).format(*counts, len(rows))


def _line(name: str, wrong: int, seed: str, row: Sequence[float]) -> str:
    numbers = [
        f"{n:.2f}" if c in ("used", "ECE") else f"{n:.1f}"
        for c, n in zip(COLUMNS, row, strict=True)
    ]
    return f"| {name} | {wrong} | {seed} | " + " | ".join(numbers) + " |"


if __name__ == "__main__":
    run_command(main)
