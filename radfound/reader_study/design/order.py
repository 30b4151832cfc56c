"""In which order each reader sees cases and texts.

No place says who wrote what, and no source, case or reader has an advantage by place:

- Every reader has all cases, each beginning elsewhere in one shuffled round, every second going backwards; so a
  case that is late for one reader is early for another.
- The texts of a case stand in an order from a Latin square. Within each block of as many cases as there are
  sources, every source is once in every place, for every reader; and over as many readers as there are sources,
  every source is once in every place for every case. The squares are drawn anew for each block, and blocks are
  spread over the round, so that no order foretells another.
- Repeated cases are some of the first half, shown again at least half a round later, with the texts in another order.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Showing:
    """One case as it is shown to one reader: its number, those of the sources in order, and whether it was seen."""

    case: int
    sources: tuple[int, ...]
    repeat: bool = False


def showings(
    cases: int, sources: int, readers: int, repeats: float, seed: int
) -> list[list[Showing]]:
    """Return what each reader is shown, in order.

    Parameters
    ----------
    cases, sources, readers : int
        How many there are.
    repeats : float
        Share of the cases, 0 to 0.5, that a reader sees twice; at least one case if it is not 0.
    seed : int
    """
    random_numbers = random.Random(seed)
    rounds = list(range(cases))
    random_numbers.shuffle(rounds)
    squares = _squares(cases, sources, random_numbers)
    found = []
    for reader in range(readers):
        start = reader * cases // readers
        order = rounds[start:] + rounds[:start]
        if reader % 2:
            order.reverse()
        shown = [Showing(case, _turned(*squares[case], reader)) for case in order]
        count = max(1, round(repeats * cases)) if repeats else 0
        again = _repeats(shown, count, random_numbers)
        found.append(_inserted(shown, again, random_numbers))
    return found


def _squares(
    cases: int, sources: int, random_numbers: random.Random
) -> list[tuple[tuple[int, ...], int]]:
    """Return an order of the sources and a number of places to turn it by, for each case."""
    members = list(range(cases))
    random_numbers.shuffle(members)
    found: list[tuple[tuple[int, ...], int]] = [((), 0)] * cases
    for begin in range(0, cases, sources):
        order = list(range(sources))
        random_numbers.shuffle(order)
        turns = list(range(sources))
        random_numbers.shuffle(turns)
        for case, turn in zip(members[begin : begin + sources], turns, strict=False):
            found[case] = tuple(order), turn
    return found


def _turned(order: Sequence[int], turn: int, more: int) -> tuple[int, ...]:
    places = (turn + more) % len(order)
    return tuple(order[places:]) + tuple(order[:places])


def _repeats(
    shown: Sequence[Showing], count: int, random_numbers: random.Random
) -> list[tuple[int, Showing]]:
    """Return what is shown again, with the first place among `shown` where it may be."""
    half = (len(shown) + 1) // 2
    chosen = sorted(random_numbers.sample(range(half), min(count, half)))
    return [
        (place + half, Showing(shown[place].case, _turned(shown[place].sources, 0, 1), True))
        for place in chosen
    ]


def _inserted(
    shown: Sequence[Showing],
    again: Sequence[tuple[int, Showing]],
    random_numbers: random.Random,
) -> list[Showing]:
    keyed = [(float(place), showing) for place, showing in enumerate(shown)]
    keyed += [
        (random_numbers.uniform(least - 0.5, len(shown)), showing) for least, showing in again
    ]
    return [showing for _, showing in sorted(keyed, key=lambda pair: pair[0])]
