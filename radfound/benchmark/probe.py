"""The anchor of the metadata task: what ImageNet features and a linear probe tell of the same figures.

A frozen EfficientNet-Lite0, the mean of its last features over the frame, and logistic regression on the
training split's figures. It knows the few answers there are and has not to put them into words. Size of the frame,
scaling and C are those that gave the probe its best scores on the held-out figures themselves, in its favour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from radfound.benchmark.tasks import Item
from radfound.datasets import Example
from radfound.model.stem import EfficientNetLite0Stem, load_imagenet_stem
from radfound.optional import library
from radfound.study.frames import FrameConfig, make_frames

BATCH = 32
FRAMES = FrameConfig(image_size=224)


@torch.no_grad()
def image_features(
    examples: Sequence[Example], advance: Callable[[int], None] = lambda count: None
) -> np.ndarray:
    """Return each study's mean feature over its frames, shape (N, 1280).

    Parameters
    ----------
    examples : sequence of N Example
    advance : callable, optional
        Told how many studies have been read since it was last called.
    """
    stem = EfficientNetLite0Stem().eval()
    load_imagenet_stem(stem)
    found = []
    for start in range(0, len(examples), BATCH):
        some = examples[start : start + BATCH]
        frames = [make_frames(e.read(), FRAMES, e.region).pixels for e in some]
        with torch.autocast("cpu", torch.bfloat16):
            features = stem(torch.cat(frames) * 2.0 - 1.0).float().mean((2, 3))
        found += [part.mean(0) for part in features.split([len(pixels) for pixels in frames])]
        advance(len(some))
    return torch.stack(found).numpy()


def probe_answers(
    items: Sequence[Item],
    training: Sequence[Item],
    features: Callable[[Sequence[Example]], np.ndarray] = image_features,
) -> list[str]:
    """Return a linear probe's answers to questions whose answers are classes.

    One probe for each group.
    """
    examples = {id(item.example): item.example for item in (*training, *items)}
    place = {name: row for row, name in enumerate(examples)}
    known = features(list(examples.values()))
    answers = [""] * len(items)
    for group in {item.group for item in items}:
        learnt = [item for item in training if item.group == group]
        asked = [k for k, item in enumerate(items) if item.group == group]
        told = _told(
            known[[place[id(item.example)] for item in learnt]],
            [item.turn.answer for item in learnt],
            known[[place[id(items[k].example)] for k in asked]],
        )
        for k, answer in zip(asked, told, strict=True):
            answers[k] = answer
    return answers


def _told(known: np.ndarray, classes: Sequence[str], asked: np.ndarray) -> list[str]:
    if len(set(classes)) < 2:  # there is nothing to tell apart
        return [classes[0] if classes else ""] * len(asked)
    probe = library("sklearn.linear_model", "bench").LogisticRegression(C=0.1, max_iter=2000)
    return [str(answer) for answer in probe.fit(known, classes).predict(asked)]
