"""Pairs of pictures about which the same question has opposite answers: the words cannot tell them apart.

For every question that is asked in the same words about several pictures, with yes about one and no about another,
the model's probability of "yes" should be higher for the former. A model that does not look ranks half of them right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

from radfound.benchmark.scoring.metrics import YES_OR_NO, normalised, parts_of_mean, ratio
from radfound.benchmark.scoring.statistics import bootstrap
from radfound.benchmark.tasks import Item, pictures_of
from radfound.engine.protocol import Backend

Pair = tuple[Item, Item]


def opposite_pairs(items: Sequence[Item]) -> list[Pair]:
    """Return (yes, no) for each two questions in the same words, about different pictures, with opposite answers."""
    by_words: dict[str, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        answer = normalised(item.turn.answer)
        if answer in YES_OR_NO:
            by_words[normalised(item.question.text or "")][answer].append(item)
    return [
        (yes, no)
        for group in by_words.values()
        for yes, no in product(group["yes"], group["no"])
        if not pictures_of([yes.example]) & pictures_of([no.example])
    ]


def chances_of_yes(
    backend: Backend,
    pairs: Sequence[Pair],
    advance: Callable[[int], None] = lambda count: None,
    adapter: str | None = None,
) -> dict[str, float]:
    """Return the probability of yes, rather than no, for each item of the pairs by its id; each is asked once."""
    found: dict[str, float] = {}
    for item in _by_study(pairs):
        chances = backend.choose(item.example.read(), item.question, ("yes", "no"), adapter=adapter)
        found[item.id] = chances["yes"]
        advance(1)
    return found


def pair_rows(
    pairs: Sequence[Pair], chances: dict[str, float], trained: Collection[str], seed: int = 0
) -> list[dict[str, Any]]:
    """Return the share of pairs that are ranked right.

    Parameters
    ----------
    pairs : sequence of (yes, no)
    chances : dict of str to float
        As `chances_of_yes` returns them.
    trained : collection of str
        Ids of items that the model was trained on.
    seed : int
        Of the bootstrap over questions.

    Returns
    -------
    list of dict
        "row", "n" pairs, "questions", and the interval "right"; a tie counts half.
    """
    rows = []
    for name, wanted in (
        ("all pairs", lambda pair: True),
        ("both trained on", lambda pair: all(item.id in trained for item in pair)),
        ("one or none trained on", lambda pair: not all(item.id in trained for item in pair)),
    ):
        mine = [pair for pair in pairs if wanted(pair)]
        if not mine:
            continue
        scores = [
            (chances[yes.id] > chances[no.id]) + 0.5 * (chances[yes.id] == chances[no.id])
            for yes, no in mine
        ]
        questions = [normalised(yes.question.text or "") for yes, _ in mine]
        rows.append(
            {
                "row": name,
                "n": len(mine),
                "questions": len(set(questions)),
                "right": asdict(bootstrap(ratio, parts_of_mean(scores), questions, seed=seed)),
            }
        )
    return rows


def _by_study(pairs: Sequence[Pair]) -> Iterator[Item]:
    """Yield each item once, those about one study together, so that it is encoded once."""
    items = {item.id: item for pair in pairs for item in pair}
    yield from sorted(items.values(), key=lambda item: item.example.files)
