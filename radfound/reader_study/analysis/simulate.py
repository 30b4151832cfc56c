"""Check the analysis with simulated readers whose effects and agreement are known.

    python -m radfound.reader_study.analysis.simulate

prints, over many simulated studies, the coverage of the intervals of differences and agreement, the power to find a
true difference, and the rate of false positives.

A score is the sum of the text's quality (of its source and its own), the reader's bias and a random error, rounded and
clipped to 1 to 5. The true values come from the same formula with 100,000 cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from radfound.commands import run_command
from radfound.reader_study.analysis import agreement, effects
from radfound.reader_study.analysis.table import Ratings
from radfound.reader_study.design.criteria import DEFAULT_CRITERIA
from radfound.reader_study.design.order import showings
from radfound.reader_study.design.plan import SCALE

ALPHA_P = 0.05
_MANY = 100_000


@dataclass(frozen=True)
class World:
    """Parameters of the simulated readers and texts.

    Parameters
    ----------
    effect : float
        Advantage of the first source over the second in points, before rounding.
    slip : float
        Standard deviation of a reader's random error; more means less agreement.
    leanings : tuple of float
        Bias of each reader.
    case_spread, text_spread : float
        Standard deviations of quality between cases, and between texts of a case.
    sources, criteria : int
        Numbers of sources and criteria; further sources are as good as the second.
    """

    effect: float = 0.0
    slip: float = 0.6
    leanings: tuple[float, ...] = (-0.3, 0.0, 0.3)
    case_spread: float = 0.5
    text_spread: float = 0.7
    sources: int = 2
    criteria: int = 1


def simulated(world: World, cases: int, repeats: float | None, seed: int) -> Ratings:
    """Return the ratings of a simulated study, with repeats as in a real one; None repeats every case."""
    numbers = np.random.default_rng(seed)
    readers, sources, criteria = len(world.leanings), world.sources, world.criteria
    worth = 3 + numbers.normal(0, world.case_spread, (cases, 1, 1))
    worth = worth + numbers.normal(0, world.text_spread, (cases, sources, criteria))
    worth[:, 0] += world.effect
    leaning = np.asarray(world.leanings)[:, None, None, None]
    slips = numbers.normal(0, world.slip, (2, readers, cases, sources, criteria))
    felt = worth + leaning + slips
    scores = np.clip(np.round(felt), SCALE[0], SCALE[-1])
    if repeats is not None:
        never = np.ones((readers, cases), dtype=bool)
        for reader, shown in enumerate(showings(cases, sources, readers, repeats, seed)):
            never[reader, [showing.case for showing in shown if showing.repeat]] = False
        scores[1, never] = np.nan
    pairs = [(a, b) for a in range(sources) for b in range(a + 1, sources)]
    gaps = np.stack([(felt[..., a, :] - felt[..., b, :]).mean(-1) for a, b in pairs], axis=-1)
    preferences = np.where(np.abs(gaps) < 0.25, 0.0, np.sign(gaps))
    return Ratings(
        tuple(f"reader-{r + 1}" for r in range(readers)),
        tuple(f"case-{c + 1}" for c in range(cases)),
        tuple("ABCDEFGH"[:sources]),
        DEFAULT_CRITERIA[:criteria],
        scores,
        preferences,
        (None,) * cases,
        (None,) * cases,
    )


@cache
def truth(world: World) -> dict[str, float]:
    """Return the true difference of the first two sources, win rate, and agreement between and within readers."""
    many = simulated(world, _MANY, None, seed=12345)
    scores = many.scores[..., 0]
    again = np.stack([np.concatenate(list(showing), axis=-1) for showing in scores])
    first = scores[0].reshape(len(scores[0]), -1)
    return {
        "difference": float((scores[0, :, :, 0] - scores[0, :, :, 1]).mean()),
        "win_rate": float((many.preferences[0, :, :, 0].mean() + 1) / 2),
        "between": agreement.alpha(first, SCALE),
        "within": agreement.alpha(again.reshape(2, -1), SCALE),
        "icc": float(agreement.intraclass(first.T[:5000])["icc_single"]["value"]),
    }


@dataclass(frozen=True)
class Found:
    """Shares of the simulated studies: intervals that cover the true value, right signs, differences found."""

    difference_within: float
    sign_right: float
    found: float
    win_rate_within: float
    between_within: float
    icc_within: float
    within_within: float


def try_out(world: World, cases: int, seeds: int, draws: int, repeats: float = 0.25) -> Found:
    """Analyse many simulated studies and return coverage and power."""
    true = truth(world)
    rows = []
    for seed in range(seeds):
        ratings = simulated(world, cases, repeats, seed)
        scored = effects.comparisons(ratings, draws)[0]
        win_rate = effects.win_rates(ratings, draws)[0]
        between = agreement.between_readers(ratings, draws)[0]
        within = agreement.within_readers(ratings, draws)[0]
        rows.append(
            (
                _holds(scored, true["difference"]),
                np.sign(scored["difference"]) == np.sign(world.effect),
                scored["p"] < ALPHA_P,
                _holds(win_rate, true["win_rate"]),
                _holds(between, true["between"]),
                _holds(between["icc_single"], true["icc"]),
                _holds(within, true["within"]),
            )
        )
    return Found(*np.mean(rows, axis=0).tolist())


def false_alarms(cases: int, seeds: int, world: World | None = None) -> float:
    """Return the share of studies without differences that have a comparison with corrected p below 5 %."""
    world = world or World()
    alarms = 0
    for seed in range(seeds):
        rows = effects.comparisons(simulated(world, cases, 0.0, seed), draws=1)
        scored = [
            row for row in rows if row["criterion"] not in (effects.PREFERENCE, effects.OVERALL)
        ]
        alarms += min(row["p" if len(scored) == 1 else "p_holm"] for row in scored) < ALPHA_P
    return alarms / seeds


def _holds(row: dict[str, float], value: float) -> bool:
    return bool(row["low"] <= value <= row["high"])


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100, help="simulated studies per line")
    parser.add_argument("--draws", type=int, default=400, help="bootstrap draws")
    args = parser.parse_args(argv)
    print("Shares of studies, %; the interval is the 95 % one\n")
    heads = ["true difference", "alpha", "cases", "difference in its interval", "sign right", "found, p < 0.05",
             "win rate in its", "alpha in its", "ICC(2,1) in its", "same reader's alpha in its"]  # fmt: skip
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for effect in (0.0, 0.4, 0.8):
        for slip, cases in ((0.5, 20), (0.5, 50), (1.2, 50)):
            world = World(effect, slip)
            true, found = truth(world), try_out(world, cases, args.seeds, args.draws)
            shares = [
                found.difference_within, found.sign_right if effect else None, found.found,
                found.win_rate_within, found.between_within, found.icc_within, found.within_within,
            ]  # fmt: skip
            cells = ["-" if share is None else f"{100 * share:.0f}" for share in shares]
            head = [f"{true['difference']:+.2f}", f"{true['between']:.2f}", str(cases)]
            print("| " + " | ".join([*head, *cells]) + " |", flush=True)
    print("\nFalse alarms without any difference, % of 1000 studies\n")
    print(
        "| cases | two sources, one criterion | three sources, five criteria, Holm |\n| --- | --- | --- |"
    )
    for cases in (10, 20, 50):
        one, many = (
            false_alarms(cases, 1000),
            false_alarms(cases, 1000, World(sources=3, criteria=5)),
        )
        print(f"| {cases} | {100 * one:.1f} | {100 * many:.1f} |", flush=True)


if __name__ == "__main__":
    run_command(main)
