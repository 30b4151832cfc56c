"""Linear probe on ImageNet features, a control for the metadata task.

A frozen EfficientNet-Lite0, its last features averaged over the frame, and logistic regression on the
figures of the training split. The probe chooses among known classes and generates no text. Frame size, scaling
and C were chosen on the held-out figures themselves, in favour of the probe.
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
        Called with the number of studies processed since the last call.
    """
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
    examples = {id(item.example): item.example for item in (*training, *items)}
    place = {name: row for row, name in enumerate(examples)}
    known = features(list(examples.values()))
    answers = [""] * len(items)
    for group in {item.group for item in items}:
        fitted = [item for item in training if item.group == group]
        tested = [k for k, item in enumerate(items) if item.group == group]
        predicted = _predict(
            known[[place[id(item.example)] for item in fitted]],
            [item.turn.answer for item in fitted],
            known[[place[id(items[k].example)] for k in tested]],
        )
        for k, answer in zip(tested, predicted, strict=True):
            answers[k] = answer
    return answers


def _predict(known: np.ndarray, classes: Sequence[str], tested: np.ndarray) -> list[str]:
    if len(set(classes)) < 2:  # logistic regression needs two classes
        return [classes[0] if classes else ""] * len(tested)
    probe = library("sklearn.linear_model", "bench").LogisticRegression(C=0.1, max_iter=2000)
    return [str(answer) for answer in probe.fit(known, classes).predict(tested)]
