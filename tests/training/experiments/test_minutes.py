"""The table of the time that a training takes, beside another version."""

from training.experiments.minutes import table


def row(seconds, **checks):
    return {
        "clock_s": seconds, "processor_s": 2 * seconds, "peak_mib": 900.0, "steps": 30.0,
        "published": all(checks.values()), "checks": checks,
    }  # fmt: skip


def test_the_table_has_the_ratio_of_the_other_version_and_the_decisions_that_differ():
    found = {
        ("first", "this"): row(50.0, regression=True, corrections=True),
        ("first", "other"): row(200.0, regression=True, corrections=True),
        ("next", "this"): row(20.0, regression=True, corrections=True, memory=True),
        ("next", "other"): row(200.0, regression=False, corrections=True),
    }
    lines = table(found, ["this", "other"]).splitlines()
    assert lines[2].startswith("| first | this | 30 | 50 | 100 | 4.0 × | 4.0 × | 900 | yes |")
    assert lines[5].endswith("| 1.0 × | 1.0 × | 900 | no |")
    assert lines[-2:] == [
        "first: checks of the gate that differ: none",
        "next: checks of the gate that differ: regression",
    ]


def test_one_version_alone_is_compared_with_itself():
    found = {(training, "this"): row(50.0, regression=True) for training in ("first", "next")}
    assert "| 1.0 × | 1.0 × |" in table(found, ["this"])
