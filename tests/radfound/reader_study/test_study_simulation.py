"""Simulated readers with known effects and agreement: does the analysis find what is there?"""

import pytest

from radfound.reader_study.analysis import agreement
from radfound.reader_study.analysis.simulate import World, false_alarms, main, simulated, try_out

SEEDS = 50
NEARLY_ALL = (
    0.86  # of 50 intervals that hold the truth 95 times of 100, 43 do with 99.3 % certainty
)


def test_effect_sign_and_agreement_are_found_over_fifty_seeds():
    world = World(effect=0.8, slip=0.6)
    found = try_out(world, cases=30, seeds=SEEDS, draws=80)
    assert found.sign_right == 1.0
    assert found.found >= 0.9
    assert found.difference_within >= NEARLY_ALL
    assert found.win_rate_within >= NEARLY_ALL
    assert found.between_within >= 0.8  # the percentile bootstrap of alpha is a little narrow
    assert found.icc_within >= NEARLY_ALL


def test_without_an_effect_false_alarms_stay_near_five_per_cent():
    # of 400, 5 % are 20 with a standard deviation of 4.4
    assert 0.02 <= false_alarms(cases=20, seeds=400) <= 0.085


def test_less_slip_is_more_agreement():
    much, little = (
        agreement.between_readers(simulated(World(slip=slip), 300, 0.0, 0), 0)[0]["alpha"]
        for slip in (0.3, 1.5)
    )
    assert much > 0.6 > 0.4 > little


@pytest.mark.slow
def test_the_table_of_the_docs_is_printed(capsys):
    main(["--seeds", "10", "--draws", "100"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| +") for line in lines) == 9
