"""Does it choose well? What the strategies for the next study are worth in corrections.

Run as `python -m training.trials.chooses --data KIT`. The simulated reader goes through her images in the order
of a strategy, by the base model's scores, and corrects what is wrong; an adapter learns her first corrections
and answers about images that she never saw. The question is whether `hybrid` needs fewer of them than `random`.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

from radfound.corrections import CorrectionLog
from radfound.ranking import Choice, Score, at_random, by_both, by_diversity, by_uncertainty
from radfound.study_model import Prompt
from training.adapt import learn
from training.finetune import FinetuneConfig
from training.lessons import lessons_of
from training.trials.reader import Question, Visuals, Ward, divided, judged, open_ward

QUESTIONS = (
    "Is this study normal?",
    "What is the most important finding?",
    "Which organ is abnormal?",
)  # those that the server's scoring asks
STRATEGIES = ("random", "uncertainty", "diversity", "hybrid")


def scores(ward: Ward) -> dict[str, Score]:
    """Return what the base model is uncertain of, and where each image lies."""
    asked = [Question(image, text, "") for image in ward.images for text in QUESTIONS]
    base = ward.workshop.base
    written = ward.workshop.write(
        [ward.tokens(each.image) for each in asked],
        [base.question_ids(Prompt("vqa", each.text)) for each in asked],
        24,
    )
    highest: dict[str, tuple[float, str]] = {}
    for each, answer in zip(asked, written, strict=True):
        uncertainty = float(np.mean(answer.entropies)) / np.log(base.vocabulary)
        highest[each.image] = max(highest.get(each.image, (0.0, "")), (uncertainty, each.text))
    return {image: Score(*told, base.embed(ward.tokens(image))) for image, told in highest.items()}


def order(
    strategy: str, images: Sequence[str], known: dict[str, Score], chance: random.Random
) -> list[str]:
    """Return the images in the order in which a strategy proposes them, one after the other."""
    unread, read = list(images), list[str]()
    while unread:
        chosen = _ranked(strategy, unread, known, read, chance)[0].image
        unread.remove(chosen)
        read.append(chosen)
    return read


def _ranked(
    strategy: str,
    unread: Sequence[str],
    known: dict[str, Score],
    read: Sequence[str],
    chance: random.Random,
) -> list[Choice]:
    if strategy == "uncertainty":
        return by_uncertainty(unread, known, chance)
    if strategy == "diversity":
        return by_diversity(unread, known, read, chance)
    if strategy == "hybrid":
        return by_both(unread, known, read, chance)
    return at_random(unread, chance)


def learnt_from(
    ward: Ward, images: Sequence[str], inside: Sequence[Question], said: dict, count: int,
    config: FinetuneConfig,
) -> None:  # fmt: skip
    """Put an adapter on that has learnt the first corrections about images in this order."""
    with tempfile.TemporaryDirectory() as folder:
        log = CorrectionLog(Path(folder) / "corrections.sqlite")
        wrong = 0
        for image in images:
            for question in inside:
                if question.image == image and wrong < count:
                    correction = judged(question, said[question], log.count())
                    log.append(correction)
                    wrong += correction.verdict == "edited"
        workshop = ward.workshop
        workshop.base.load_adapter(None)
        lessons = lessons_of(workshop.base, log.latest(), Visuals(ward))
        workshop.new_adapter(config.rank, seed=config.seed)
        corrected = workshop.read(lessons.corrected)
        rehearsed = workshop.read(lessons.rehearsed + workshop.rehearsed)
        learn(workshop.base, workshop.upper, corrected, rehearsed, config, lambda _: None)


def trial(
    ward: Ward, known: dict[str, Score], seed: int, counts: Mapping[str, Sequence[int]],
    config: FinetuneConfig,
) -> dict[tuple[str, int], float]:  # fmt: skip
    """Return the accuracy on new images after so many corrections by each strategy."""
    inside, outside = divided(ward, seed)
    images = sorted({question.image for question in inside})
    ward.workshop.base.load_adapter(None)
    said = dict(zip(inside, ward.answers(inside), strict=True))
    found = {("base", 0): ward.accuracy(outside)}
    for strategy, some in counts.items():
        way = order(strategy, images, known, random.Random(seed))
        for count in some:
            learnt_from(ward, way, inside, said, count, config)
            found[strategy, count] = ward.accuracy(outside)
            print(f"seed {seed}, {strategy} {count}: {found[strategy, count]:.3f}", flush=True)
    ward.workshop.base.load_adapter(None)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="radfound-mini")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--corrections", type=int, default=80, help="what random is given")
    parser.add_argument("--out", type=Path, help="where to keep the numbers, as JSON lines")
    args = parser.parse_args()
    config = FinetuneConfig()
    ward = open_ward(args.data, args.model, layers=config.layers)
    known = scores(ward)
    fewer = round(0.75 * args.corrections)
    counts = {name: (fewer,) for name in STRATEGIES} | {"random": (fewer, args.corrections)}
    found = []
    for seed in args.seeds:
        found.append(trial(ward, known, seed, counts, config))
        if args.out:
            line = {f"{name} {count}": share for (name, count), share in found[-1].items()}
            with open(args.out, "a", encoding="utf-8") as file:
                file.write(json.dumps({"seed": seed, **line}) + "\n")
    print(f"| strategy | corrections | new images | less than random's {args.corrections}: 95 % |")
    print("| --- | --- | --- | --- |")
    for key in found[0]:
        shares = np.array([each[key] for each in found])
        lead = shares - np.array([each["random", args.corrections] for each in found])
        print(f"| {key[0]} | {key[1]} | {100 * shares.mean():.1f} | {_interval(100 * lead)} |")


def _interval(values: np.ndarray) -> str:
    if np.ptp(values) == 0:
        return f"{values.mean():+.1f}"
    found = bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    return f"{values.mean():+.1f} ({found.low:+.1f} to {found.high:+.1f})"


if __name__ == "__main__":
    main()
