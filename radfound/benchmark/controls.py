"""What a score has to be compared with: no look at the study, a blank one, another patient's, and a probe."""

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
    """Return what someone would say who has read the training split and does not look.

    To a question: the commonest answer to training questions of the same group that begin with the same
    word, or else of the same group. For a caption or a report: the training text nearest to all others.
    """
    seen: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for item in training:
        for kind in _kinds(item):
            seen[kind][item.turn.answer] += 1
    known = {
        kind: _central_text(list(answers.elements()))
        if kind[0] in ("caption", "report")
        else answers.most_common(1)[0][0]
        for kind, answers in seen.items()
    }
    anything = Counter(item.turn.answer for item in training).most_common(1)[0][0]
    return [next((known[k] for k in _kinds(item) if k in known), anything) for item in items]


def _kinds(item: Item) -> list[tuple[str, ...]]:
    """Return the kinds of question that an item is of, the narrowest first."""
    words = (item.prompt.question or "").lower().split()
    return [(item.group, *words[:1]), (item.group,)] if item.turn.task == "vqa" else [(item.group,)]


def _central_text(texts: Sequence[str]) -> str:
    """Return the text whose words are, by cosine of their counts, nearest to those of all texts."""
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
    """Return, for each study, the place of another patient's; each study is taken once.

    Patients are shuffled, each one's studies kept together; then everyone is given the study that stands as
    many places on as the patient with most studies has, which cannot be one of his own.

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
            f"one patient has {most} of the {len(examples)} studies, so that some cannot be answered from another "
            "patient's image; give more patients, or a larger --limit"
        )
    patients = list(of_patient.values())
    random.Random(seed).shuffle(patients)
    order = [place for places in patients for place in places]
    given = dict(zip(order, order[most:] + order[:most], strict=True))
    return [given[place] for place in range(len(examples))]
