"""Put trained weights into the package, with the studies that fine-tuning on corrections needs.

Run as `python -m training.stages.bundle --data KIT --trained DIR` after `training.stages.instruct`; without `--trained` only the
studies are made anew, for the weights that are there. They are VQA-RAD images (CC0), as visual tokens:

- the replay set, images of its training questions with what the shipped model says about them, which
  fine-tuning rehearses;
- the regression set, images of its validation questions, which no stage has learnt from, with the right answers
  to those questions and the body region, on which every adapter is examined.
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
from radfound.engine.local.backend import LocalModel, Prompt
from radfound.model.checkpoints import (
    REGRESSION,
    REPLAY,
    BundledStudy,
    shipped_folder,
    write_bundled,
)

_MODEL = "radfound-mini"
_REPLAYED, _EXAMINED = 96, 96  # studies
_QUESTIONS_PER_STUDY = 4
_CAPTIONED = 16  # of the replayed studies
_WEIGHTS = (
    "model.safetensors", "config.json", "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
)  # fmt: skip


def bundle(data: Path, trained: Path | None = None, seed: int = 0) -> None:
    """Copy weights if there are new ones, then write replay and regression set beside them."""
    target = shipped_folder(_MODEL)
    if trained:
        (target / "adapter").mkdir(parents=True, exist_ok=True)
        for name in _WEIGHTS:
            shutil.copyfile(trained / name, target / name)
    kit, chance = Kit(data), random.Random(seed)
    local = LocalModel.load(_MODEL)
    examined = chance.sample(_vqa_rad(kit, "validation"), _EXAMINED)
    taken = {example.key for example in examined}
    others = [each for each in _vqa_rad(kit, "train") if each.key not in taken]
    write_bundled(target, REGRESSION, [_examined(local, example) for example in examined])
    write_bundled(target, REPLAY, _rehearsed(local, chance.sample(others, _REPLAYED), chance))


def _vqa_rad(kit: Kit, split: str) -> list[Example]:
    return [example for example in kit.vqa(split) if example.source == "VQA-RAD"]


def _examined(local: LocalModel, example: Example) -> BundledStudy:
    """Return a study with the right answers to its questions and to that for its body region."""
    right = [(turn.questions[0], turn.answer) for turn in example.turns]
    if region := example.labels.get("region"):
        right.append((METADATA_QUESTIONS["region"][0], region))
    return BundledStudy(local.encode(example.read())[0], tuple(right))


def _rehearsed(
    local: LocalModel, examples: Sequence[Example], chance: random.Random
) -> list[BundledStudy]:
    """Return studies with the model's own answers, of those that it ends by itself."""
    standard = [wordings[0] for wordings in METADATA_QUESTIONS.values()]
    visual = [local.encode(example.read()) for example in examples]
    studies: list[torch.Tensor] = []
    prompts: list[Prompt] = []
    for number, (example, study) in enumerate(zip(examples, visual, strict=True)):
        turns = chance.sample(example.turns, min(_QUESTIONS_PER_STUDY, len(example.turns)))
        asked = [Prompt("vqa", q) for q in [*(t.questions[0] for t in turns), *standard]]
        if number < _CAPTIONED:
            asked.append(Prompt("caption"))
        prompts += asked
        studies += [study] * len(asked)
    said: dict[int, list[tuple[str, str]]] = {id(study): [] for study in visual}
    for study, prompt, answer in zip(
        studies, prompts, local.generate(studies, prompts, 64), strict=True
    ):
        if answer.complete and answer.text.strip():
            said[id(study)].append((prompt.question or "", answer.text.strip()))
    return [BundledStudy(study[0], tuple(said[id(study)])) for study in visual]


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
