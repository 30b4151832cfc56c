"""Linear probes of a vision encoder: modality, plane, region and slice order.

`python -m training.experiments.probes --data KIT NAME=FOLDER/vision.safetensors …` prints a table; the row "untrained"
is the encoder before pretraining. The ablation in docs/experiments.md is measured in this way.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radfound.commands import run_command
from radfound.datasets.kit import Kit
from radfound.model.checkpoints import new_mini_model
from radfound.model.modeling_radfound import RadFoundVisionModel
from radfound.model.stem import load_imagenet_stem
from radfound.optional import library
from radfound.study.frames import FrameConfig
from training.data.frame_bank import FrameBank, stem_features
from training.stages.common import load_parts

LABELS = ("modality", "plane", "region")
PAIRS_PER_VOLUME = 60


def linear_probe() -> Any:
    """Return logistic regression on standardised features."""
    classifier = sklearn("linear_model").LogisticRegression(max_iter=2000, C=0.01)
    return sklearn("pipeline").make_pipeline(sklearn("preprocessing").StandardScaler(), classifier)


def sklearn(module: str) -> Any:
    """Import a module of scikit-learn."""
    return library(f"sklearn.{module}", "train")


@torch.no_grad()
def pooled_frames(vision: RadFoundVisionModel, stem: torch.Tensor) -> np.ndarray:
    """Return the mean token of each of M studies' frames, (M, F, C, H, W) to (M, F * width)."""
    parts = []
    for batch in stem.split(64):
        with torch.autocast("cpu", torch.bfloat16):
            hidden = vision(stem_features=batch).last_hidden_state
        parts.append(hidden.float().mean(2).flatten(1))
    return torch.cat(parts).numpy()


def probe_labels(
    vision: RadFoundVisionModel,
    train: FrameBank,
    held: FrameBank,
    names: Sequence[str] = LABELS,
) -> dict[str, float]:
    """Return the accuracy of linear probes for modality, plane and region on held-out frames."""
    features, held_features = (
        pooled_frames(vision, stem_features(vision, bank.pixels[torch.cat(bank.rows)])[:, None])
        for bank in (train, held)
    )
    shares = {}
    for name in names:
        labels, held_labels = (
            np.array([example.labels.get(name, "") for example in bank.examples])
            for bank in (train, held)
        )
        probe = linear_probe().fit(features[labels != ""], labels[labels != ""])
        right = probe.predict(held_features[held_labels != ""]) == held_labels[held_labels != ""]
        shares[name] = float(right.mean())
    return shares


def probe_order(vision: RadFoundVisionModel, volumes: FrameBank, seed: int = 0) -> float:
    """Return the accuracy of a linear probe for the order of two slices of a volume.

    The encoder gets both slices together, without their positions. Each volume is evaluated with a probe
    fitted on the others; chance is 0.5.
    """
    stem = stem_features(vision, volumes.pixels)
    chooser = random.Random(seed)
    first, second, label, group = [], [], [], []
    for number, rows in enumerate(volumes.rows):
        for _ in range(PAIRS_PER_VOLUME):
            one, other = chooser.sample(range(len(rows)), 2)
            first.append(int(rows[one]))
            second.append(int(rows[other]))
            label.append(one < other)
            group.append(number)
    features = pooled_frames(vision, torch.stack([stem[first], stem[second]], dim=1))
    selection = sklearn("model_selection")
    predicted = selection.cross_val_predict(
        linear_probe(), features, np.array(label), groups=group, cv=selection.LeaveOneGroupOut()
    )
    return float((predicted == np.array(label)).mean())


def table(results: dict[str, dict[str, float]]) -> str:
    """Return results as a Markdown table, in percent."""
    columns = list(next(iter(results.values())))
    lines = [
        "| encoder | " + " | ".join(columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for name, shares in results.items():
        numbers = " | ".join(f"{100 * shares[column]:.1f}" for column in columns)
        lines.append(f"| {name} | {numbers} |")
    return "\n".join(lines)


def compare(data: Path, encoders: dict[str, Path | None]) -> dict[str, dict[str, float]]:
    """Probe several encoders on the same frames; None is the encoder before pretraining."""
    kit, config = Kit(data), FrameConfig(max_frames=16)
    train = FrameBank([e for e in kit.medpix_figures() if e.labels], config)
    held = FrameBank(
        [e for split in ("validation", "test") for e in kit.medpix_figures(split) if e.labels],
        config,
    )
    volumes = FrameBank([e for e in kit.volumes(slices_per_plane=0) if e.region is None], config)
    results = {}
    for name, path in encoders.items():
        torch.manual_seed(0)
        model = new_mini_model().eval()
        load_imagenet_stem(model.vision_model.stem)
        if path is not None:
            load_parts(path, model)
        shares = probe_labels(model.vision_model, train, held)
        results[name] = shares | {"slice order": probe_order(model.vision_model, volumes)}
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.experiments.probes", description=__doc__
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("encoders", nargs="*", metavar="NAME=FILE")
    given = parser.parse_args(arguments)
    encoders: dict[str, Path | None] = {"untrained": None}
    encoders |= {name: Path(path) for name, path in (e.split("=", 1) for e in given.encoders)}
    print(table(compare(given.data, encoders)))


if __name__ == "__main__":
    run_command(main)
