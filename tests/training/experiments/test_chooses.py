"""The trial of the strategies: the order in which a reader meets her images, and the table."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import asdict

import numpy as np
import pytest

from radfound.records.ranking import Score
from training.experiments.chooses import STRATEGIES, Outcome, main, order, table

KNOWN = {
    f"image-{n}": Score(n / 10, "Is this study normal?", np.array([float(n % 3), 0.0], np.float32))
    for n in range(9)
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_image_is_met_once(strategy):
    way = order(strategy, sorted(KNOWN), KNOWN, random.Random(0))
    assert sorted(way) == sorted(KNOWN)
    assert way == order(strategy, sorted(KNOWN), KNOWN, random.Random(0))


def test_uncertainty_and_diversity_meet_what_they_are_named_for_first():
    uncertain = order("uncertainty", sorted(KNOWN), KNOWN, random.Random(0))
    assert uncertain == sorted(KNOWN, reverse=True)
    diverse = order("diversity", sorted(KNOWN), KNOWN, random.Random(0))
    assert len({tuple(KNOWN[image].embedding) for image in diverse[:3]}) == 3


def test_the_table_compares_seed_by_seed():
    runs = [("base", 0), ("random", 4), ("hybrid", 3)]
    found = {
        (seed, strategy, count): Outcome("", seed, strategy, count, 2 * count, share + seed / 8)
        for seed in (0, 1)
        for (strategy, count), share in zip(runs, (0.25, 0.5, 0.625), strict=True)
    }
    assert list(table(found, (0, 1), runs))[2:] == [
        "| base | 0 | 0 | 31.2 | -25.0 |",
        "| random | 4 | 8 | 56.2 | +0.0 |",
        "| hybrid | 3 | 6 | 68.8 | +12.5 |",
    ]


def test_kept_outcomes_are_not_made_again_and_those_of_another_ward_are_not_used(
    tmp_path, monkeypatch, capsys
):
    runs = [("base", 0), ("random", 4), *((name, 3) for name in STRATEGIES)]
    kept = [
        Outcome(f"radfound-mini, {ward}, 0.5", 0, *run, 5, share)
        for ward, share in (("house-style", 0.5), ("vqa-rad", 0.25))
        for run in runs
    ]
    path = tmp_path / "outcomes.jsonl"
    path.write_text("".join(json.dumps(asdict(each)) + "\n" for each in kept))
    asked = f"--data nowhere --ward house-style --share 0.5 --corrections 4 --seeds 0 --out {path}"
    monkeypatch.setattr(sys, "argv", ["chooses", *asked.split()])
    main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == len(runs) and all("| 50.0 |" in row for row in rows)
