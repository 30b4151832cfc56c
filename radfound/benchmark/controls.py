"""Controls for a score: majority answer, blank image, another patient's image."""

from __future__ import annotations

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from radfound.benchmark.scoring.metrics import words_of
from radfound.benchmark.tasks import Item
from radfound.datasets import Example
from radfound.exceptions import DatasetError
from radfound.study.study import Study

logger = logging.getLogger(__name__)


def majority_answers(items: Sequence[Item], training: Sequence[Item]) -> list[str]:
    """Return answers from the training split alone, without the image.

    For a question: the most frequent answer to training questions of its group with the same first word, or
    else of its group. For a caption or report: the training text nearest to all others.
    """
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for item in training:
        for kind in _kinds(item):
            counts[kind][item.turn.answer] += 1
    majority = {
        kind: _central_text(list(answers.elements()))
        if kind[0] in ("caption", "report")
        else answers.most_common(1)[0][0]
        for kind, answers in counts.items()
    }
    overall = Counter(item.turn.answer for item in training).most_common(1)[0][0]
    return [next((majority[k] for k in _kinds(item) if k in majority), overall) for item in items]


def _kinds(item: Item) -> list[tuple[str, ...]]:
    """Return the kinds of question of an item, narrowest first."""
    words = (item.question.text or "").lower().split()
    return [(item.group, *words[:1]), (item.group,)] if item.turn.task == "vqa" else [(item.group,)]


def _central_text(texts: Sequence[str]) -> str:
    """Return the text with the highest mean cosine similarity of word counts to all texts."""
    bags = [Counter(words_of(text).split()) for text in texts]
    places = {word: place for place, word in enumerate(sorted(set().union(*bags)))}
    counts = np.zeros((len(bags), len(places)), dtype=np.float32)
    for row, bag in enumerate(bags):
        for word, count in bag.items():
            counts[row, places[word]] = count
    counts /= np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)
    return texts[int((counts @ counts.sum(0)).argmax())]


def blanked(study: Study) -> Study:
    """Return the study with every voxel zero."""
    return Study(
        tuple(replace(image, voxels=np.zeros_like(image.voxels)) for image in study.images)
    )


def other_patients(examples: Sequence[Example], seed: int) -> list[int]:
    """Return a permutation of the studies that gives each the study of another patient.

    Patients are shuffled with their studies together; then the order is rotated by the largest number of
    studies of one patient, so that no patient keeps one of their own.

    Raises
    ------
    DatasetError
        If one patient has more than half of the studies.
    """
    of_patient: dict[str, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        of_patient[example.key].append(place)
    most = max(map(len, of_patient.values()))
    if 2 * most > len(examples):
        raise DatasetError(
            f"one patient has {most} of the {len(examples)} studies, too many to swap images between patients; "
            "give more patients, or a larger --limit"
        )
    patients = list(of_patient.values())
    random.Random(seed).shuffle(patients)
    order = [place for places in patients for place in places]
    swapped = dict(zip(order, order[most:] + order[:most], strict=True))
    return [swapped[place] for place in range(len(examples))]
