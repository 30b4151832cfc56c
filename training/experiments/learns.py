"""Does fine-tuning work? A simulated reader corrects wrong answers in several rounds.

Run as `python -m training.experiments.learns --data KIT`; prints a table after each round of each seed, and their means.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from radfound.commands import run_command
from radfound.records.adapters import AdapterStore
from radfound.records.corrections import CorrectionLog
from training.corrections.finetune import FinetuneConfig, FinetuneResult, finetune_in
from training.experiments.reader import (
    Question,
    Visuals,
    Ward,
    divided,
    judged,
    open_ward,
    reworded,
)

COLUMNS = ("corrected", "reworded", "new images", "regression")


def rounds(
    ward: Ward, seed: int, count: int, size: int, config: FinetuneConfig
) -> Iterator[tuple[FinetuneResult | None, dict[str, float]]]:
    """Yield the result of the run and the accuracies, before the first round and after each."""
    inside, outside = divided(ward, seed)
    order = random.Random(seed).sample(inside, len(inside))
    corrected: list[Question] = []
    with tempfile.TemporaryDirectory() as folder:
        log = CorrectionLog(Path(folder) / "corrections.sqlite")
        store = AdapterStore(Path(folder) / "adapters")
        yield None, evaluation(ward, store, corrected, outside)
        for _ in range(count):
            corrected += correct(ward, store, log, order, size)
            result = finetune_in(ward.frozen, log, store, Visuals(ward), config=config)
            yield result, evaluation(ward, store, corrected, outside)


def correct(
    ward: Ward, store: AdapterStore, log: CorrectionLog, order: list[Question], size: int
) -> list[Question]:
    """Judge answers until `size` were wrong, and log corrections; return the wrongly answered questions."""
    wrong: list[Question] = []
    with ward.frozen.loaded(store, store.active()):
        while order and len(wrong) < size:
            batch = [order.pop() for _ in range(min(size, len(order)))]
            for question, answer in zip(batch, ward.answers(batch), strict=True):
                if len(wrong) == size:
                    order.append(question)
                    continue
                correction = judged(question, answer, log.count())
                log.append(correction)
                if correction.verdict == "edited":
                    wrong.append(question)
    return wrong


def evaluation(
    ward: Ward, store: AdapterStore, corrected: list[Question], outside: list[Question]
) -> dict[str, float]:
    """Return the accuracies of the active adapter."""
    with ward.frozen.loaded(store, store.active()):
        return {
            "corrected": ward.accuracy(corrected),
            "reworded": ward.accuracy(reworded(corrected)),
            "new images": ward.accuracy(outside),
            "regression": float(np.mean(ward.frozen.score(ward.regression).correct)),
        }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="radfound-mini")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=40)
    parser.add_argument("--out", type=Path, help="file for the numbers, as JSON lines")
    args = parser.parse_args()
    config = FinetuneConfig()
    ward = open_ward(args.data, args.model, layers=config.layers)
    print("| seed | round | " + " | ".join(COLUMNS) + " | gate | s |", flush=True)
    print("| --- " * (len(COLUMNS) + 4) + "|")
    tables = []
    for seed in args.seeds:
        table = []
        for number, (result, found) in enumerate(
            rounds(ward, seed, args.rounds, args.size, config)
        ):
            table.append([found[name] for name in COLUMNS])
            outcome = ("published" if result.published else result.reason) if result else ""
            seconds = f"{result.metrics['seconds']:.0f}" if result else ""
            print(f"| {seed} | {number} | {_row(table[-1])} | {outcome} | {seconds} |", flush=True)
            if args.out:
                line = {"seed": seed, "round": number, **found, "gate": result and result.gate}
                with open(args.out, "a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
        tables.append(table)
    for number, row in enumerate(np.mean(np.array(tables), axis=0)):
        print(f"| mean | {number} | {_row(row)} | | |")


def _row(shares) -> str:
    return " | ".join("-" if np.isnan(share) else f"{100 * share:.1f}" for share in shares)


if __name__ == "__main__":
    run_command(main)
