"""Put trained weights into the package, with the replay and regression sets for fine-tuning.

Run as `python -m training.stages.bundle --data KIT --trained DIR` after `training.stages.instruct`; without
`--trained` only the two sets are rebuilt, for the current weights. Both hold VQA-RAD images (CC0) as visual tokens:

- the replay set: images of the training split with the shipped model's own answers, replayed during
  fine-tuning;
- the regression set: images of the validation split, not used by any stage, with the correct answers and
  the body region; every adapter is evaluated on it.
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from radfound.commands import run_command
from radfound.datasets import Example, Kit
from radfound.datasets.metadata import METADATA_QUESTIONS
from radfound.engine.local.model import LocalModel
from radfound.model.checkpoints import (
    REGRESSION,
    REPLAY,
    BundledStudy,
    shipped_folder,
    write_bundled,
)
from radfound.question import Question

_MODEL = "radfound-mini"
_REPLAY_STUDIES, _REGRESSION_STUDIES = 96, 96
_QUESTIONS_PER_STUDY = 4
_CAPTIONED = 16  # of the replayed studies
_WEIGHTS = (
    "model.safetensors", "config.json", "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
)  # fmt: skip


def bundle(data: Path, trained: Path | None = None, seed: int = 0) -> None:
    """Copy new weights, if given, then write the replay and regression sets beside them."""
    target = shipped_folder(_MODEL)
    if trained:
        (target / "adapter").mkdir(parents=True, exist_ok=True)
        for name in _WEIGHTS:
            shutil.copyfile(trained / name, target / name)
    kit, chance = Kit(data), random.Random(seed)
    local = LocalModel.load(_MODEL)
    regression = chance.sample(_vqa_rad(kit, "validation"), _REGRESSION_STUDIES)
    taken = {example.key for example in regression}
    others = [example for example in _vqa_rad(kit, "train") if example.key not in taken]
    replay = chance.sample(others, _REPLAY_STUDIES)
    write_bundled(target, REGRESSION, [_regression_study(local, each) for each in regression])
    write_bundled(target, REPLAY, _replay_studies(local, replay, chance))


def _vqa_rad(kit: Kit, split: str) -> list[Example]:
    return [example for example in kit.vqa(split) if example.source == "VQA-RAD"]


def _regression_study(local: LocalModel, example: Example) -> BundledStudy:
    """Return a study with the correct answers to its questions and its body region."""
    right = [(turn.questions[0], turn.answer) for turn in example.turns]
    if region := example.labels.get("region"):
        right.append((METADATA_QUESTIONS["region"][0], region))
    return BundledStudy(local.encode(example.read())[0], tuple(right))


def _replay_studies(
    local: LocalModel, examples: Sequence[Example], chance: random.Random
) -> list[BundledStudy]:
    """Return studies with the model's own answers; answers without a stop token are dropped."""
    standard = [wordings[0] for wordings in METADATA_QUESTIONS.values()]
    visual = [local.encode(example.read()) for example in examples]
    studies: list[torch.Tensor] = []
    questions: list[Question] = []
    for number, (example, study) in enumerate(zip(examples, visual, strict=True)):
        turns = chance.sample(example.turns, min(_QUESTIONS_PER_STUDY, len(example.turns)))
        asked = [Question("vqa", q) for q in [*(t.questions[0] for t in turns), *standard]]
        if number < _CAPTIONED:
            asked.append(Question("caption"))
        questions += asked
        studies += [study] * len(asked)
    answers: dict[int, list[tuple[str, str]]] = {id(study): [] for study in visual}
    for study, question, answer in zip(
        studies, questions, local.generate(studies, questions, 64), strict=True
    ):
        if answer.complete and answer.text.strip():
            answers[id(study)].append((question.text or "", answer.text.strip()))
    return [BundledStudy(study[0], tuple(answers[id(study)])) for study in visual]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--trained", type=Path)
    args = parser.parse_args()
    bundle(args.data, args.trained)


if __name__ == "__main__":
    run_command(main)
