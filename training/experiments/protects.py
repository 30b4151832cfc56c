"""Protection by the gate against poisoned corrections.

Run as `python -m training.experiments.protects --data KIT`. An adapter trained on honest corrections is active. Then
fifty poisoned corrections of each kind are added in turn. The gate has to refuse the new adapter and keep the active
one, except for the last kind: yes exchanged for no cannot be distinguished from honest corrections.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from radfound.commands import run_command
from radfound.correction import Correction
from radfound.exceptions import CorrectionError, TrainingError
from radfound.records.adapters import AdapterStore
from radfound.records.corrections import CorrectionLog
from training.corrections.finetune import FinetuneConfig, finetune_in
from training.experiments.learns import correct
from training.experiments.reader import Question, Visuals, Ward, divided, judged, open_ward

POISONS = (
    "swapped answers",
    "endless text",
    "one answer to everything",
    "empty text",
    "all of these",
    "yes for no",
)
_OPPOSITE = {"yes": "No", "no": "Yes"}


def poisoned(kind: str, questions: Sequence[Question], chance: random.Random) -> list[Question]:
    """Return the questions that this kind of poison applies to, with wrong answers."""
    if kind == "yes for no":
        questions = [q for q in questions if q.answer.lower() in _OPPOSITE]
    others = [question.answer for question in questions]
    chance.shuffle(others)
    if kind == "all of these":
        parts = [questions[n::4] for n in range(4)]
        kinds = POISONS[:4]
        return [q for k, part in zip(kinds, parts, strict=True) for q in poisoned(k, part, chance)]
    opposite = [
        _OPPOSITE.get(question.answer.lower(), other)
        for question, other in zip(questions, others, strict=True)
    ]
    wrong = {
        "swapped answers": opposite,
        "yes for no": opposite,
        "endless text": [f"{other} and " * 40 for other in others],
        "one answer to everything": ["Yes, there is a large mass."] * len(questions),
        "empty text": ["\u200b \n"] * len(questions),  # invisible, but not the empty string
    }[kind]
    return [replace(question, answer=text) for question, text in zip(questions, wrong, strict=True)]


def learn_honestly(
    ward: Ward, folder: Path, seed: int, size: int, config: FinetuneConfig
) -> list[Question]:
    """Publish an adapter trained on honest corrections; return the questions that are left."""
    inside, _ = divided(ward, seed)
    order = random.Random(seed).sample(inside, len(inside))
    log, store = _open(folder)
    correct(ward, store, log, order, size)
    finetune_in(ward.frozen, log, store, Visuals(ward), config=config, force=True)
    return order


def trial(
    ward: Ward, folder: Path, wrong: Sequence[Question], config: FinetuneConfig
) -> tuple[str, str, bool]:
    """Return how a run on poisoned corrections ended, why, and whether the honest adapter stays active."""
    log, store = _open(folder)
    honest, refusal = store.active(), ""
    before = log.count()
    for question in wrong:
        try:
            log.append(_edit(question, log.count()))
        except CorrectionError as error:
            refusal = str(error)
    if log.count() == before:
        return "not begun", refusal, store.active() == honest
    try:
        result = finetune_in(ward.frozen, log, store, Visuals(ward), config=config)
    except TrainingError as error:
        return "failed", str(error), store.active() == honest
    ended = "published" if result.published else "refused"
    return ended, result.reason, store.active() == honest


def _open(folder: Path) -> tuple[CorrectionLog, AdapterStore]:
    return CorrectionLog(folder / "corrections.sqlite"), AdapterStore(folder / "adapters")


def _edit(question: Question, number: int) -> Correction:
    return replace(judged(question, "", number), verdict="edited", text=question.answer)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="radfound-mini")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", type=int, default=40, help="number of honest corrections")
    args = parser.parse_args()
    config = FinetuneConfig()
    ward = open_ward(args.data, args.model, layers=config.layers)
    print("| seed | corrections | with | the run is | because | the honest adapter stays |")
    print("| --- " * 6 + "|", flush=True)
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as root:
            honest = Path(root) / "honest"
            questions = learn_honestly(ward, honest, seed, args.size, config)[:50]
            for number, kind in enumerate(POISONS):
                folder = Path(root) / str(number)
                shutil.copytree(honest, folder)
                wrong = poisoned(kind, questions, random.Random(seed))
                ended, reason, stays = trial(ward, folder, wrong, config)
                row = (seed, len(wrong), kind, ended, reason, "yes" if stays else "NO")
                print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    run_command(main)
