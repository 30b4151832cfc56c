"""How long a training on a few corrections takes, beside another version of this project.

Run as `python -m training.experiments.minutes --data KIT --beside CHECKOUT`. Both versions learn the same wrong answers
about VQA-RAD's images, gate included, in turn, each time in a process of its own: a first training, and one more
correction after it. Processor time is more reliable than wall time on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radfound.benchmark.scoring.metrics import exact_match
from radfound.commands import run_command
from radfound.correction import Correction
from radfound.datasets import Kit
from radfound.reading import read_study
from radfound.records.adapters import AdapterStore
from radfound.records.corrections import CorrectionLog

TRAININGS = ("first", "next")
_LIMIT = 24  # tokens of an answer


def wrong_answers(kit: Kit, count: int, seed: int) -> list[dict[str, str]]:
    """Return questions about so many images that the model answers wrongly, with the right answers."""
    from radfound.engine.local.model import LocalModel
    from radfound.question import Question

    asked: dict[Path, list[tuple[str, str]]] = {}
    for split in ("validation", "test"):
        for example in kit.vqa(split):
            if example.source == "VQA-RAD":
                pairs = [(turn.questions[0], turn.answer) for turn in example.turns]
                asked.setdefault(example.files[0], []).extend(pairs)
    model, chance = LocalModel.load("radfound-mini"), random.Random(seed)
    model.tune()
    found: list[dict[str, str]] = []
    for file in chance.sample(sorted(asked), len(asked)):
        question, right = chance.choice(asked[file])
        encoded = model.encode(read_study(file))
        [answer] = model.generate([encoded], [Question("vqa", question)], _LIMIT)
        text = answer.text.strip()
        if not exact_match(text, right):
            found.append(
                {"file": str(file.resolve()), "question": question, "text": right, "said": text}
            )
        if len(found) == count:
            break
    return found


def train_once(folder: Path, corrections: Path) -> dict[str, Any]:
    """Train on corrections beside earlier runs in a folder, in this process; return its time and verdict."""
    from training.corrections.finetune import finetune

    rows = json.loads(corrections.read_text(encoding="utf-8"))
    log = CorrectionLog(folder / "corrections.sqlite")
    for number, row in enumerate(rows):
        log.append(
            Correction(
                images=(str(number),), task="vqa", question=row["question"], model_text=row["said"],
                verdict="edited", text=row["text"], author="a reader", id=f"c-{number}",
            )
        )  # fmt: skip
    began = time.monotonic()
    result = finetune(
        log,
        AdapterStore(folder / "adapters"),
        lambda image: read_study(Path(rows[int(image)]["file"])),
        version=lambda image: image,
        cache=folder / "kept",
    )
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "clock_s": time.monotonic() - began,
        "processor_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 2**10,
        "steps": result.metrics["steps"],
        "published": result.published,
        "strength": result.metrics.get("strength"),
        "checks": {check["name"]: check["passed"] for check in result.gate["checks"]},
        "words": {check["name"]: check["words"] for check in result.gate["checks"]},
    }


def _apart(code: Path, folder: Path, corrections: Path, threads: int) -> dict[str, Any]:
    """Run `train_once` with the code of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, __file__, "--here", str(folder), "--corrections", str(corrections)],
        stdout=subprocess.PIPE,
        env=environment,
        cwd=code,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: dict[tuple[str, str], dict[str, Any]], sides: Sequence[str]) -> str:
    """Return the Markdown table, with ratios of the last version to each, and the decisions that differ."""
    lines = [
        "| training | version | steps | wall, s | processor, s | faster | by processor time | peak MiB | published |",
        "| --- " * 9 + "|",
    ]
    told = []
    for training in TRAININGS:
        own, other = found[training, sides[0]], found[training, sides[-1]]
        for side in sides:
            row = found[training, side]
            ratios = [f"{other[key] / row[key]:.1f} ×" for key in ("clock_s", "processor_s")]
            lines.append(
                f"| {training} | {side} | {row['steps']:.0f} | {row['clock_s']:.0f} | {row['processor_s']:.0f} | "
                f"{' | '.join(ratios)} | {row['peak_mib']:.0f} | {'yes' if row['published'] else 'no'} |"
            )
        both = own["checks"].keys() & other["checks"].keys()
        differing = [name for name in sorted(both) if own["checks"][name] != other["checks"][name]]
        told.append(f"{training}: checks of the gate that differ: {', '.join(differing) or 'none'}")
    return "\n".join([*lines, "", *told])


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, help="the data kit")
    parser.add_argument("--beside", type=Path, help="a checkout of another version")
    parser.add_argument("--count", type=int, default=10, help="corrections of the first training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--corrections", type=Path, help="file of corrections; default: made anew")
    parser.add_argument("--here", type=Path, help="train once in this folder and print JSON")
    args = parser.parse_args(argv)
    if args.here:
        print(json.dumps(train_once(args.here, args.corrections)))
        return
    root = Path(__file__).resolve().parents[2]
    sides = {"this": root} | ({"other": args.beside.resolve()} if args.beside else {})
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rows = (
            json.loads(args.corrections.read_text(encoding="utf-8"))
            if args.corrections
            else wrong_answers(Kit(args.data), args.count + 1, args.seed)
        )
        for training, count in zip(TRAININGS, (args.count, args.count + 1), strict=True):
            (place / "rows.json").write_text(json.dumps(rows[:count]), encoding="utf-8")
            for side, code in sides.items():
                (place / side).mkdir(exist_ok=True)
                found[training, side] = _apart(
                    code, place / side, place / "rows.json", args.threads
                )
                print(
                    training, side, json.dumps(found[training, side]), file=sys.stderr, flush=True
                )
    print(table(found, list(sides)))


if __name__ == "__main__":
    run_command(main)
