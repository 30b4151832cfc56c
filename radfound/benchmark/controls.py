"""Controls for a score: majority answer, blank image, another patient's image, any or of the same kind."""

from __future__ import annotations

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from radfound.benchmark.scoring.metrics import words_of
from radfound.benchmark.tasks import Item, studies_of
from radfound.datasets import Example
from radfound.exceptions import DatasetError
from radfound.fields.model import FieldModel
from radfound.model.checkpoints import shipped_folder

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


LIKENESS = {
    "modality and region": ("modality", "region"),
    "region": ("region",),
    "modality": ("modality",),
    "nothing": (),
}
"""How alike another patient's image may be, the most alike first, and the labels that are then equal."""


def alike_patients(
    items: Sequence[Item], labels: Callable[[Example], Mapping[str, str]], seed: int
) -> tuple[list[Example], Counter[str]]:
    """Choose for each item the study of another patient with the same modality and body region.

    A question for the modality is compared with another patient of the same region, and one for the region with
    another of the same modality. Where nobody is left, the most alike of `LIKENESS` is taken.

    Parameters
    ----------
    items : sequence of Item
        Of two patients or more.
    labels : callable
        From an example to its "modality" and "region", as far as they are known.
    seed : int

    Returns
    -------
    list of Example, and a count of items by `LIKENESS`
    """
    studies = studies_of(items)
    known = {id(example): labels(example) for example in studies}
    by_kind: dict[tuple[str, ...], list[Example]] = defaultdict(list)
    for example in studies:
        for names in LIKENESS.values():
            values = [known[id(example)].get(name, "") for name in names]
            if all(values):
                by_kind[(*names, *values)].append(example)
    chance = random.Random(seed)
    chosen: dict[tuple[int, str], tuple[Example, str]] = {}
    found = []
    for item in items:
        key = id(item.example), item.group if item.group in ("modality", "region") else ""
        if key not in chosen:
            chosen[key] = _alike(item, known[id(item.example)], by_kind, chance)
        found.append(chosen[key])
    return [example for example, _ in found], Counter(how for _, how in found)


def _alike(
    item: Item,
    own: Mapping[str, str],
    by_kind: Mapping[tuple[str, ...], list[Example]],
    chance: random.Random,
) -> tuple[Example, str]:
    for how, names in LIKENESS.items():
        if item.group in names:
            continue
        key = (*names, *(own.get(name, "") for name in names))
        others = [each for each in by_kind.get(key, ()) if each.key != item.example.key]
        if others:
            return chance.choice(others), how
    raise DatasetError("all studies are of one patient; give more patients, or a larger --limit")


def picture_labels() -> Callable[[Example], Mapping[str, str]]:
    """Return a callable that gives an example's modality and region: as stated, else read by `radfound.fields`."""
    loaded: list[FieldModel] = []

    def labels(example: Example) -> Mapping[str, str]:
        stated: dict[str, str] = {
            name: example.labels[name] for name in ("modality", "region") if name in example.labels
        }
        if len(stated) == 2:
            return stated
        if not loaded:
            loaded.append(FieldModel.load(shipped_folder("radfound-mini")))
        reading = loaded[0].reading(example.read())
        return {**reading.values, **stated}

    return labels


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
