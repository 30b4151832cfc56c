"""Poison by one reader of four: what is found, and what it does to a head.

Run as `python -m training.teaching.readers --data KIT --cache FOLDER`. Each reader corrects forty studies, with one
honest error in twenty; a share of the studies is read by a second one. The fourth reader's answers are wrong in one
way. *Found* is the share of simulations in which the fourth reader is doubted, *false alarms* the share of honest
readers who are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from radfound.commands import run_command
from radfound.correction import Correction
from radfound.teaching.agreement import consistency
from radfound.teaching.heads import fit_head
from radfound.teaching.recall import confirmed_rows
from training.teaching.corrected import balanced, judged
from training.teaching.wards import Ward, divided, open_ward

POISONS = ("none", "exchanged", "one in four exchanged", "random", "always the same")
COLUMNS = (
    "found",
    "by others",
    "by pictures",
    "by sure answers",
    "false alarms",
    "head",
    "head, confirm 2",
    "learnt, confirm 2",
)
_READERS, _EACH, _ERRORS = 4, 40, 0.05


def assigned(rows: Sequence[int], shared: float) -> list[list[int]]:
    """Return the studies of each reader; each shares a part with the reader before and the one after."""
    left = list(rows)
    common = [[left.pop() for _ in range(round(_EACH * shared / 2))] for _ in range(_READERS)]
    return [
        own + [left.pop() for _ in range(_EACH - len(own))]
        for own in (common[k] + common[(k + 1) % _READERS] for k in range(_READERS))
    ]


def answers(
    right: Sequence[str], options: Sequence[str], kind: str, chance: np.random.Generator
) -> list[str]:
    """Return one reader's answers: honest ones with some errors, or a kind of poison."""
    flipped = [options[1 - options.index(text)] for text in right]
    if kind == "always the same":
        return [options[0]] * len(right)
    if kind == "random":
        return [options[int(each)] for each in chance.integers(0, 2, len(right))]
    share = {"none": _ERRORS, "exchanged": 1.0, "one in four exchanged": 0.25}[kind]
    is_wrong = chance.random(len(right)) < share
    return [
        wrong if each else text for each, wrong, text in zip(is_wrong, flipped, right, strict=True)
    ]


def corrections_of(
    ward: Ward, inside: Sequence[int], kind: str, shared: float, seed: int
) -> list[Correction]:
    """Return the corrections of four readers, the last one poisoned, in the order of recording."""
    chance = np.random.default_rng(seed)
    options = sorted(set(ward.right.tolist()))
    found = []
    for number, own in enumerate(assigned(inside, shared)):
        right = [str(ward.right[row]) for row in own]
        is_last = number == _READERS - 1
        given = answers(right, options, kind if is_last else "none", chance)
        found += [
            judged(
                ward,
                row,
                ward.question,
                str(ward.base[ward.question][row]),
                author=f"Dr {number}",
                right=text,
            )
            for row, text in zip(own, given, strict=True)
        ]
    return [found[each] for each in chance.permutation(len(found))]


def trial(ward: Ward, kind: str, shared: float, sure: float, seed: int) -> list[float]:
    """Return the columns of the table for one simulation."""
    inside, outside = divided(list(ward.patients), seed)
    features = dict(zip(ward.digests.tolist(), ward.features, strict=True))
    right = dict(zip(ward.digests.tolist(), ward.right.tolist(), strict=True))
    known = set(np.random.default_rng(seed).permutation(ward.digests)[: round(sure * len(ward))])
    rows = corrections_of(ward, inside.tolist(), kind, shared, seed)

    def sure_answer(row: Correction) -> str | None:
        return right[row.image_hash or ""] if row.image_hash in known else None

    readers = consistency(rows, sure=sure_answer, features=features.get)
    doubted = {each.author: bool(each.doubts) for each in readers}
    [last] = [each for each in readers if each.author == f"Dr {_READERS - 1}"]
    honest = [doubt for author, doubt in doubted.items() if author != last.author]
    heads, learnt = [], 0
    for confirm in (1, 2):
        taught = confirmed_rows(rows, confirm)
        head = fit_head(taught, features.get)
        share = float("nan")
        if head is not None and head.compared.is_better:
            given = np.array([head.answer(vector)[0] for vector in ward.features[outside]])
            share = balanced(ward.right[outside], given)
        heads.append(100 * share)
        learnt = len(taught)
    return [
        100.0 * doubted[last.author],
        *(100.0 * (each.p < 0.01) for each in (last.others, last.pictures, last.fields)),
        100 * float(np.mean(honest)),
        *heads,
        float(learnt),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.teaching.readers", description=__doc__
    )
    parser.add_argument("--data", type=Path, help="the data kit; needed once to fill the cache")
    parser.add_argument("--cache", type=Path, required=True, help="folder for features and answers")
    parser.add_argument("--wards", nargs="+", default=["projection", "contrast"])
    parser.add_argument("--shared", type=float, nargs="+", default=[0.0, 0.25, 0.5])
    parser.add_argument(
        "--sure", type=float, default=0.2, help="share of studies whose answer is known for sure"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    args = parser.parse_args(arguments)
    print("| ward | read twice | the fourth reader's answers | " + " | ".join(COLUMNS) + " |")
    print("| --- " * (len(COLUMNS) + 3) + "|", flush=True)
    for name in args.wards:
        ward = open_ward(name, args.cache, args.data)
        for shared in args.shared:
            for kind in POISONS:
                table = np.array(
                    [trial(ward, kind, shared, args.sure, seed) for seed in args.seeds]
                )
                numbers = [
                    "-" if np.isnan(column).all() else f"{np.nanmean(column):.0f}"
                    for column in table.T
                ]
                numbers[5:7] = [
                    f"{number} ({(~np.isnan(column)).sum()} of {len(column)})"
                    for number, column in zip(numbers[5:7], table.T[5:7], strict=True)
                ]
                print(
                    f"| {name} | {100 * shared:.0f} % | {kind} | {' | '.join(numbers)} |",
                    flush=True,
                )


if __name__ == "__main__":
    run_command(main)
