"""Does active learning save corrections? Comparison of the strategies for the next study.

Run as `python -m training.experiments.chooses --data KIT [--ward house-style]`. The simulated reader takes her images in
the order of a strategy, by the base model's scores, and corrects wrong answers. An adapter is trained on her first
corrections and evaluated on images of other cases. The question is whether `hybrid` needs fewer corrections than
`random`.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

from radfound.commands import run_command
from radfound.engine.confidence import normalised_entropy
from radfound.question import Question as Prompt
from radfound.records.corrections import CorrectionLog
from radfound.records.ranking import Choice, Score, at_random, by_both, by_diversity, by_uncertainty
from training.corrections.finetune import FinetuneConfig
from training.corrections.frozen.lessons import lessons_of
from training.corrections.trainer import train_adapter
from training.experiments.reader import WARDS, Question, Visuals, Ward, divided, judged, open_ward

QUESTIONS = (
    "Is this study normal?",
    "What is the most important finding?",
    "Which organ is abnormal?",
)  # the questions of the server's scoring
STRATEGIES = ("random", "uncertainty", "diversity", "hybrid")


def scores(ward: Ward) -> dict[str, Score]:
    """Return the base model's uncertainty about each image, and its embedding."""
    asked = [Question(image, text, "") for image in ward.images for text in QUESTIONS]
    base = ward.frozen.base
    answers = ward.frozen.generate(
        [ward.tokens(each.image) for each in asked],
        [base.question_ids(Prompt("vqa", each.text)) for each in asked],
        24,
    )
    highest: dict[str, tuple[float, str]] = {}
    for question, answer in zip(asked, answers, strict=True):
        uncertainty = normalised_entropy(answer.entropies or (), base.vocabulary) or 0.0
        known = highest.get(question.image, (0.0, ""))
        highest[question.image] = max(known, (uncertainty, question.text))
    return {
        image: Score(*found, base.embed(ward.tokens(image))) for image, found in highest.items()
    }


def order(
    strategy: str, images: Sequence[str], known: dict[str, Score], chance: random.Random
) -> list[str]:
    """Return the images in the order in which a strategy proposes them."""
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
    ward: Ward, images: Sequence[str], inside: Sequence[Question], answers: dict, count: int,
    config: FinetuneConfig,
) -> int:  # fmt: skip
    """Train an adapter on the first corrections about images in this order, and leave it loaded.

    Returns
    -------
    int
        Number of images that the reader read for these corrections.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = CorrectionLog(Path(folder) / "corrections.sqlite")
        wrong = 0
        for image in images:
            for question in inside:
                if question.image == image and wrong < count:
                    correction = judged(question, answers[question], log.count())
                    log.append(correction)
                    wrong += correction.verdict == "edited"
        frozen = ward.frozen
        frozen.base.load_adapter(None)
        lessons = lessons_of(frozen.base, log.latest(), Visuals(ward))
        frozen.new_adapter(config.rank, seed=config.seed)
        corrected = frozen.activations.of(lessons.corrected)
        replay = frozen.activations.of(lessons.replay + frozen.replay)
        train_adapter(frozen.base, frozen.upper, corrected, replay, config, lambda _: None)
        return len({image for row in log.rows() for image in row.images})


@dataclass(frozen=True)
class Outcome:
    """Accuracy after training on a strategy's corrections.

    Parameters
    ----------
    setting : str
        The model, the ward and the reader's share of its cases; only equal settings are compared.
    seed : int
    strategy : str
        One of `STRATEGIES`, or "base" for the base model.
    corrections, read : int
        Number of corrections, and of images that the reader read for them.
    accuracy : float
        On new images.
    """

    setting: str
    seed: int
    strategy: str
    corrections: int
    read: int
    accuracy: float


def trial(
    ward: Ward, known: dict[str, Score], seed: int, share: float,
    runs: Sequence[tuple[str, int]], config: FinetuneConfig,
) -> Iterator[tuple[str, int, int, float]]:  # fmt: skip
    """Yield strategy, corrections, images read, and accuracy on new images."""
    inside, outside = divided(ward, seed, share)
    images = sorted({question.image for question in inside})
    ward.frozen.base.load_adapter(None)
    answers = dict(zip(inside, ward.answers(inside), strict=True))
    for strategy, count in runs:
        ward.frozen.base.load_adapter(None)
        read = 0
        if count:
            proposed = order(strategy, images, known, random.Random(seed))
            read = learnt_from(ward, proposed, inside, answers, count, config)
        yield strategy, count, read, ward.accuracy(outside)
    ward.frozen.base.load_adapter(None)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="radfound-mini")
    parser.add_argument("--ward", choices=WARDS, default="vqa-rad")
    parser.add_argument("--share", type=float, default=0.75, help="the reader's share of the cases")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--corrections", type=int, default=80, help="corrections for random")
    parser.add_argument(
        "--out", type=Path, help="JSON lines with the outcomes; known ones are not computed again"
    )
    args = parser.parse_args()
    config = FinetuneConfig()
    fewer = round(0.75 * args.corrections)
    runs = [("base", 0), ("random", args.corrections), *((name, fewer) for name in STRATEGIES)]
    setting = f"{args.model}, {args.ward}, {args.share:g}"
    found = _kept(args.out, setting) if args.out and args.out.exists() else {}
    missing = {s: [run for run in runs if (s, *run) not in found] for s in args.seeds}
    if any(missing.values()):
        ward = open_ward(args.data, args.model, args.ward, layers=config.layers)
        known = scores(ward)
        for seed, missing_runs in missing.items():
            for row in trial(ward, known, seed, args.share, missing_runs, config):
                outcome = Outcome(setting, seed, *row)
                found[seed, outcome.strategy, outcome.corrections] = outcome
                print(outcome, flush=True)
                if args.out:
                    with open(args.out, "a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(outcome)) + "\n")
    print("\n".join(table(found, args.seeds, runs)))


def table(
    found: Mapping[tuple[int, str, int], Outcome],
    seeds: Sequence[int],
    runs: Sequence[tuple[str, int]],
) -> Iterator[str]:
    """Yield the rows of means over the seeds; all runs are compared with the second one."""
    yield "| strategy | corrections | images read | new images | beside random's all (95 %) |"
    yield "| --- | --- | --- | --- | --- |"
    against = np.array([found[(seed, *runs[1])].accuracy for seed in seeds])
    for run in runs:
        outcomes = [found[(seed, *run)] for seed in seeds]
        shares = np.array([outcome.accuracy for outcome in outcomes])
        read = np.mean([outcome.read for outcome in outcomes])
        lead = _interval(100 * (shares - against))
        yield f"| {run[0]} | {run[1]} | {read:.0f} | {100 * shares.mean():.1f} | {lead} |"


def _kept(path: Path, setting: str) -> dict[tuple[int, str, int], Outcome]:
    lines = path.read_text(encoding="utf-8").splitlines()
    outcomes = [Outcome(**json.loads(line)) for line in lines]
    return {
        (each.seed, each.strategy, each.corrections): each
        for each in outcomes
        if each.setting == setting
    }


def _interval(values: np.ndarray) -> str:
    if np.ptp(values) == 0:
        return f"{values.mean():+.1f}"
    found = bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    return f"{values.mean():+.1f} ({found.low:+.1f} to {found.high:+.1f})"


if __name__ == "__main__":
    run_command(main)
