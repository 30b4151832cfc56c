"""Linear probe on ImageNet features, a control for the metadata task.

A frozen EfficientNet-Lite0, its last features averaged over the frame, and logistic regression on the
figures of the training split, whose features are kept in the cache folder. The probe chooses among known classes and generates no text. Frame size, scaling
and C were chosen on the held-out figures themselves, in favour of the probe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from radfound.benchmark.tasks import Item
from radfound.datasets import Example
from radfound.model.cache import cache_dir, made_once
from radfound.model.stem import EfficientNetLite0Stem, load_imagenet_stem
from radfound.optional import library
from radfound.study.frames import FrameConfig, make_frames

BATCH = 32
_FILE = "features.npy"
FRAMES = FrameConfig(image_size=224)


def image_features(
    examples: Sequence[Example], advance: Callable[[int], None] = lambda count: None
) -> np.ndarray:
    """Return each study's mean feature over its frames, shape (N, 1280); those of the same pictures are kept.

    Parameters
    ----------
    examples : sequence of N Example
    advance : callable, optional
        Called with the number of studies processed since the last call.
    """

    def make(folder: Path) -> None:
        np.save(folder / _FILE, _computed(examples, advance))

    folder = made_once(cache_dir() / f"imagenet-{_digest(examples)}", make)
    found: np.ndarray = np.load(folder / _FILE)
    return found


def _digest(examples: Sequence[Example]) -> str:
    """Hash all that the features depend on."""
    sha = hashlib.sha256(repr(FRAMES).encode())
    for example in examples:
        sha.update(repr((len(example.files), example.footer, example.region)).encode())
        for file in example.files:
            sha.update(hashlib.sha256(file.read_bytes()).digest())
    return sha.hexdigest()[:16]


@torch.no_grad()
def _computed(examples: Sequence[Example], advance: Callable[[int], None]) -> np.ndarray:
    stem = EfficientNetLite0Stem().eval()
    load_imagenet_stem(stem)
    found = []
    for start in range(0, len(examples), BATCH):
        chunk = examples[start : start + BATCH]
        frames = [make_frames(e.read(), FRAMES, e.region).pixels for e in chunk]
        with torch.autocast("cpu", torch.bfloat16):
            features = stem(torch.cat(frames) * 2.0 - 1.0).float().mean((2, 3))
        found += [part.mean(0) for part in features.split([len(pixels) for pixels in frames])]
        advance(len(chunk))
    return torch.stack(found).numpy()


def probe_answers(
    items: Sequence[Item],
    training: Sequence[Item],
    features: Callable[[Sequence[Example]], np.ndarray] = image_features,
) -> list[str]:
    """Return the answers of linear probes, one for each group, to questions with classes as answers."""
    known, asked = _features_of(training, features), _features_of(items, features)
    answers = [""] * len(items)
    for group in {item.group for item in items}:
        fitted = [item for item in training if item.group == group]
        tested = [k for k, item in enumerate(items) if item.group == group]
        predicted = _predict(
            np.array([known[id(item.example)] for item in fitted]),
            [item.turn.answer for item in fitted],
            np.array([asked[id(items[k].example)] for k in tested]),
        )
        for k, answer in zip(tested, predicted, strict=True):
            answers[k] = answer
    return answers


def _features_of(
    items: Sequence[Item], features: Callable[[Sequence[Example]], np.ndarray]
) -> dict[int, np.ndarray]:
    examples = {id(item.example): item.example for item in items}
    return dict(zip(examples, features(list(examples.values())), strict=True))


def _predict(known: np.ndarray, classes: Sequence[str], tested: np.ndarray) -> list[str]:
    if len(set(classes)) < 2:  # logistic regression needs two classes
        return [classes[0] if classes else ""] * len(tested)
    probe = library("sklearn.linear_model", "bench").LogisticRegression(C=0.1, max_iter=2000)
    return [str(answer) for answer in probe.fit(known, classes).predict(tested)]
