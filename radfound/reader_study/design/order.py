"""The order of cases and texts for each reader.

Positions are counterbalanced and reveal nothing about the source:

- Every reader sees all cases in one shuffled cycle, from a different start, every second reader backwards; so a
  case that is late for one reader is early for another.
- The order of a case's texts comes from a Latin square. In each block of as many cases as sources, every source
  takes every position once, for every reader; over as many readers as sources, every source takes every position
  once for every case. Each block has a new random square, and the cases of a block are spread over the cycle, so
  that no order predicts another.
- Repeated cases come from the first half and return at least half a cycle later, with the texts in another order.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Showing:
    """One case shown to one reader: case index, source indices in order, and whether it is a repeat."""

    case: int
    sources: tuple[int, ...]
    repeat: bool = False


def showings(
    cases: int, sources: int, readers: int, repeats: float, seed: int
) -> list[list[Showing]]:
    """Return the showings of each reader, in order.

    Parameters
    ----------
    cases, sources, readers : int
        Numbers of cases, sources and readers.
    repeats : float
        Share of the cases, 0 to 0.5, that a reader sees twice; at least one case unless 0.
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
        shown = [Showing(case, _rotated(*squares[case], reader)) for case in order]
        count = max(1, round(repeats * cases)) if repeats else 0
        again = _repeats(shown, count, random_numbers)
        found.append(_inserted(shown, again, random_numbers))
    return found


def _squares(
    cases: int, sources: int, random_numbers: random.Random
) -> list[tuple[tuple[int, ...], int]]:
    """Return an order of the sources and a rotation of it, for each case."""
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


def _rotated(order: Sequence[int], turn: int, more: int) -> tuple[int, ...]:
    places = (turn + more) % len(order)
    return tuple(order[places:]) + tuple(order[:places])


def _repeats(
    shown: Sequence[Showing], count: int, random_numbers: random.Random
) -> list[tuple[int, Showing]]:
    """Return the repeated showings, each with its earliest position in `shown`."""
    half = (len(shown) + 1) // 2
    chosen = sorted(random_numbers.sample(range(half), min(count, half)))
    return [
        (place + half, Showing(shown[place].case, _rotated(shown[place].sources, 0, 1), True))
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
