"""Heads for a new question, after thirty wrong answers were corrected.

Run as `python -m training.teaching.heads --data KIT --cache FOLDER`. A reader of half of the patients corrects
`radfound-mini` until thirty answers were wrong; the head is examined on the other half.
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
from training.fields.fit import fit_linear
from training.teaching.corrected import accuracy, balanced, read_until
from training.teaching.wards import Ward, divided, open_ward

_FOLDS = 5
_PENALTY = 0.003  # as the shipped head of the field has it
COLUMNS = ("read", "base", "majority", "head", "balanced", "used", "answered", "ECE", "ms")


def trial(ward: Ward, seed: int, wrong: int, folder: Path) -> dict[str, float]:
    """Teach one reader's corrections, and return what the answers on other patients are worth."""
    inside, outside = divided(list(ward.patients), seed)
    features = dict(zip(ward.digests.tolist(), ward.features, strict=True))
    patients = dict(zip(ward.digests.tolist(), ward.patients.tolist(), strict=True))
    log = CorrectionLog(folder / "corrections.sqlite")
    rows = read_until(ward, inside.tolist(), wrong)
    for row in rows:
        log.append(row)
    teaching = Teaching(
        log,
        Decisions(folder / "templates.sqlite"),
        features=features.get,
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
        "majority": 100 * float((np.char.lower(right) == common).mean()),
        "head": 100 * accuracy(right, given),
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
    parser.add_argument("--wards", nargs="+", default=["contrast", "projection"])
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
            ready = [row for row in table if is_reached(row[4], row[3], row[2])]
            above = sum(row[3] >= row[1] for row in table)
            print(
                f"{name}, {wrong} wrong: balanced >= 70 and >= 10 above the majority in "
                f"{len(ready)} of {len(table)}; not below the base in {above} of {len(table)}"
            )
        print(f"{name}, the field's own head: {field_alone(ward, args.seeds)}", flush=True)


def is_reached(balanced_right: float, right: float, majority: float) -> bool:
    """Return whether the goal of docs/teaching.md is reached; all in per cent."""
    return balanced_right >= 70 and right >= majority + 10


def field_alone(ward: Ward, seeds: Sequence[int]) -> str:
    """Return what the classifier of the ward's field reaches before any correction, in words.

    The shipped one learnt from patients of the ward, so that it is fitted again in five folds, and never asked about a
    patient that it was fitted to.
    """
    right = np.char.lower(ward.right)
    given = np.empty_like(right)
    for fold in range(_FOLDS):
        _, numbers = np.unique(ward.patients, return_inverse=True)
        chance = np.random.default_rng(0).permutation(numbers.max() + 1)
        left = chance[numbers] % _FOLDS == fold
        head = fit_linear(ward.features[~left], right[~left], _PENALTY)
        given[left] = np.array(head.names)[head.probabilities(ward.features[left]).argmax(1)]
    table = []
    for seed in seeds:
        inside, outside = divided(list(ward.patients), seed)
        common = Counter(right[inside].tolist()).most_common(1)[0][0]
        truth, answers = right[outside], given[outside]
        scores = balanced(truth, answers), accuracy(truth, answers), float((truth == common).mean())
        table.append([100 * score for score in scores])
    means, lowest = np.mean(table, axis=0), np.min(table, axis=0)
    reached = sum(is_reached(*row) for row in table)
    return (
        f"right {means[1]:.1f}, balanced {means[0]:.1f} (lowest {lowest[0]:.1f}), balanced >= 70 and >= 10 above the "
        f"majority in {reached} of {len(table)}"
    )


def _line(name: str, wrong: int, seed: str, row: Sequence[float]) -> str:
    numbers = [
        f"{n:.2f}" if c in ("used", "ECE") else f"{n:.1f}"
        for c, n in zip(COLUMNS, row, strict=True)
    ]
    return f"| {name} | {wrong} | {seed} | " + " | ".join(numbers) + " |"


if __name__ == "__main__":
    run_command(main)
