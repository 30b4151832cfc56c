"""Put trained weights into the package, with the replay set that fine-tuning rehearses.

Run as `python -m training.bundle --data KIT --trained DIR` after `training.instruct`. The replay set is
made of VQA-RAD training images (CC0): their visual tokens, and what the shipped model says about them.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from radfound.checkpoints import WEIGHTS
from radfound.datasets import Kit
from radfound.study_model import LocalModel, Prompt

REPLAY_STUDIES = 32
QUESTIONS_PER_STUDY = 3


def bundle(data: Path, trained: Path, seed: int = 0) -> None:
    """Copy weights, then write `replay.safetensors` and `replay.json` beside them."""
    target = WEIGHTS / "radfound-mini"
    (target / "adapter").mkdir(parents=True, exist_ok=True)
    for name in (
        "model.safetensors",
        "config.json",
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
    ):
        shutil.copyfile(trained / name, target / name)
    chooser = random.Random(seed)
    examples = [example for example in Kit(data).vqa() if example.source == "VQA-RAD"]
    chosen = chooser.sample(examples, REPLAY_STUDIES)
    local = LocalModel.load("radfound-mini")
    visual, said = [], []
    for example in tqdm(chosen, desc="replay", unit="study"):
        study = local.encode(example.read())
        turns = chooser.sample(example.turns, min(QUESTIONS_PER_STUDY, len(example.turns)))
        questions = [turn.questions[0] for turn in turns]
        visual.append(study[0])
        said.append(
            [
                [question, answer]
                for question in questions
                if (answer := complete_answer(local, study, question))
            ]
        )
    save_file({"visual": torch.stack(visual).to(torch.bfloat16)}, target / "replay.safetensors")
    (target / "replay.json").write_text(
        json.dumps(said, indent=0, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def complete_answer(local: LocalModel, study: torch.Tensor, question: str, limit: int = 48) -> str:
    """Return the model's answer, or nothing where it does not stop by itself."""
    tokens = list(local.stream(study, Prompt("vqa", question), limit))
    return "".join(token.text for token in tokens).strip() if tokens[-1].last else ""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--trained", type=Path, required=True)
    args = parser.parse_args()
    bundle(args.data, args.trained)


if __name__ == "__main__":
    main()
