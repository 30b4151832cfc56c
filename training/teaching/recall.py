"""Recall on VQA-RAD: how many questions in other words are recalled, and how often wrongly.

Run as `python -m training.teaching.recall --data KIT`. VQA-RAD asks many images the same in several ways. Every
question is corrected with its answer, and each other question about the image is asked. A recalled answer that
differs from VQA-RAD's own is wrong, or its two answers to one question differ; `--show` prints these.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from radfound.commands import run_command
from radfound.correction import Correction
from radfound.datasets.kit import Kit
from radfound.question import Question
from radfound.records.corrections import CorrectionLog
from radfound.teaching.questions import exact_key, needs_history, question_key, same_answer
from radfound.teaching.recall import Memory, recalled


def pairs(kit: Kit) -> dict[str, list[tuple[str, str]]]:
    """Return the distinct questions about each image with their answers."""
    found: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for row in kit.rows("vqa/vqa_rad.jsonl"):
        key = exact_key("vqa", row["question"])
        found[row["image"]].setdefault(key, (row["question"].strip(), str(row["answer"]).strip()))
    return {image: list(asked.values()) for image, asked in found.items()}


def same_words(
    asked: dict[str, list[tuple[str, str]]], folder: Path
) -> tuple[int, int, int, float]:
    """Correct everything, ask everything again; return asked, recalled, right, and the median time in ms."""
    log = CorrectionLog(folder / "corrections.sqlite")
    for number, (image, questions) in enumerate(asked.items()):
        for text, answer in questions:
            log.append(
                Correction(
                    images=(image,),
                    task="vqa",
                    question=text,
                    model_text="",
                    verdict="edited",
                    text=answer,
                    author="Dr A",
                    image_hash=f"h{number}",
                )
            )
    memory, found, right, took_ms = Memory(log), 0, 0, []
    memory.rows()
    for number, (image, questions) in enumerate(asked.items()):
        for text, answer in questions:
            began = time.perf_counter()
            taught = recalled(memory.about(f"h{number}", (image,), Question("vqa", text)))
            took_ms.append(1000 * (time.perf_counter() - began))
            found += taught is not None
            right += taught is not None and taught.text == answer
    return sum(map(len, asked.values())), found, right, statistics.median(took_ms)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.teaching.recall", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--show", action="store_true", help="print the recalled answers that differ"
    )
    args = parser.parse_args(arguments)
    asked = pairs(Kit(args.data))
    with tempfile.TemporaryDirectory() as folder:
        total, found, right, took_ms = same_words(asked, Path(folder))
    print(
        f"same words: {total} asked, {found} recalled, {right} of them right, {took_ms:.1f} ms each"
    )
    agree, differ = 0, []
    for questions in asked.values():
        for (first, one), (second, other) in itertools.combinations(questions, 2):
            if question_key("vqa", first) == question_key("vqa", second):
                agree += same_answer(one, other)
                if not same_answer(one, other):
                    differ.append((first, one, second, other))
    print(f"other words: {agree + len(differ)} pairs recalled, {len(differ)} with another answer")
    everything = [each for questions in asked.values() for each in questions]
    chance = random.Random(0)
    crossed = [(chance.choice(everything), chance.choice(everything)) for _ in range(100_000)]
    opposite = [
        (first[0], second[0])
        for first, second in crossed
        if question_key("vqa", first[0]) == question_key("vqa", second[0])
    ]
    print(f"any two questions: {len(opposite)} of {len(crossed)} count as the same")
    back = sum(needs_history(text) for text, _ in everything)
    print(f"never recalled, because they point to an earlier turn: {back} of {len(everything)}")
    if args.show:
        for row in differ:
            print(" | ".join(row))


if __name__ == "__main__":
    run_command(main)
