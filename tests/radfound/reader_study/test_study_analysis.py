import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from radfound.cli import main
from radfound.exceptions import ReaderStudyError
from radfound.reader_study.analysis import agreement, effects
from radfound.reader_study.analysis.analyse import analyse
from radfound.reader_study.analysis.automatic import metric_scores
from radfound.reader_study.analysis.simulate import World, simulated
from radfound.reader_study.analysis.table import ratings_of
from radfound.reader_study.design.create import create
from radfound.reader_study.design.criteria import DEFAULT_CRITERIA
from radfound.reader_study.design.key import Key
from radfound.reader_study.design.plan import SCALE, Plan
from radfound.reader_study.rating.ratings import RatingStore

from .department import (
    HUMAN,
    MODEL,
    OTHER,
    comment,
    configuration,
    make_study,
    rate_item,
    write_yaml,
)

WORTH = {HUMAN: 5, MODEL: 4, OTHER: 2}


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """METEOR starts a Java machine, which takes longer than all of these tests."""
    monkeypatch.setattr("radfound.benchmark.scoring.metrics.shutil.which", lambda name: None)


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """A study in which every reader says the same, except that the second one slips once."""
    tmp_path = tmp_path_factory.mktemp("rated")
    config = configuration(tmp_path, cases=6)
    for k, case in enumerate(config["cases"]):
        case["modality"] = "CT" if k else "MR"
    made = create(write_yaml(tmp_path, config), tmp_path / "study")
    store = RatingStore(made.plan)
    for reader in made.plan.readers:
        for item in reader.items:
            rate_item(store, made.key, reader.id, item, WORTH)
    slip = store.rows("reader-2")[0]
    wrong = {"5": "4", "4": "3", "2": "1", "first": "tie", "second": "tie"}[slip.value]
    store.record(replace(slip, value=wrong))
    item = made.plan.readers[0].items[0]
    comment(store, "reader-1", item, item.candidates[0].id, "well | said")
    return made


@pytest.fixture(scope="module")
def analysed(rated):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("radfound.benchmark.scoring.metrics.shutil.which", lambda name: None)
        return analyse(rated.plan.folder, draws=50)


def test_the_whole_analysis_is_written(rated, analysed):
    folder = rated.plan.folder / "analysis"
    assert {file.name for file in folder.iterdir()} >= {
        "report.md", "results.json", "ratings.csv", "means.png", "scores.png", "preferences.png",
        "agreement.png", "metrics.png",
    }  # fmt: skip
    kept = json.loads((folder / "results.json").read_text())
    assert kept["sources"] == [HUMAN, MODEL, OTHER]
    assert [row["complete"] for row in kept["readers"]] == [8, 8, 8]
    text = (folder / "report.md").read_text()
    assert text == analysed["report"]
    for heading in ("Scores", "Comparisons", "Preferences", "Agreement between readers",
                    "The same reader again", "Readers and automatic metrics", "Modality: computed tomography (5 cases)"):  # fmt: skip
        assert f"## {heading}" in text
    assert "resonance" not in text and "Organ system" not in text  # one case; all cases
    for picture in folder.glob("*.png"):
        assert f"({picture.name})" in text


def test_means_and_wins_are_those_of_the_ratings(rated):
    ratings = ratings_of(rated.plan, rated.key, RatingStore(rated.plan).rows())
    for row in effects.means(ratings, 50):
        assert row["value"] == pytest.approx(WORTH[row["source"]], abs=0.1)
        assert row["cases"] == 6
    rates = {(row["source"], row["against"]): row for row in effects.win_rates(ratings, 50)}
    assert rates[HUMAN, OTHER]["wins"] + rates[HUMAN, OTHER]["ties"] == 18
    assert rates[OTHER, None]["losses"] + rates[OTHER, None]["ties"] == 36
    assert rates[MODEL, None]["value"] == pytest.approx(0.5, abs=0.05)


def test_the_csv_has_every_rating_that_counts_with_its_source(rated, analysed):
    with (rated.plan.folder / "analysis" / "ratings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 8 * (3 * 5 + 3) + 1
    assert sum(row["repeat"] == "1" for row in rows) == 3 * 2 * 18
    for row in rows:
        assert row["case"].startswith("patient-") and " " in row["modality"]
        if row["kind"] == "preference":
            assert row["value"] in (*row["source"].split("|"), "tie")
        elif row["kind"] == "score" and row["reader"] != "reader-2":
            assert int(row["value"]) == WORTH[row["source"]]
            assert row["text"] and row["position"] in "123"
    assert [row["value"] for row in rows if row["kind"] == "comment"] == ["well | said"]


def test_a_study_without_ratings_says_so(tmp_path, capsys):
    made = make_study(tmp_path)
    with pytest.raises(ReaderStudyError, match="nothing was rated yet"):
        analyse(made.plan.folder)
    assert main(["reader-study", "analyse", str(made.plan.folder)]) == 2
    assert "nothing was rated yet" in capsys.readouterr().err


def test_half_a_study_of_one_reader_is_analysed_too(tmp_path):
    made = make_study(tmp_path)
    store = RatingStore(made.plan)
    for item in made.plan.readers[0].items[:2]:
        rate_item(store, made.key, "reader-1", item, WORTH)
    results = analyse(made.plan.folder, tmp_path / "elsewhere", draws=10)
    assert "| reader-2 | 0 of 8 | - |" in (tmp_path / "elsewhere" / "report.md").read_text()
    assert all(math.isnan(row["alpha"]) for row in results["between_readers"])


def test_one_source_has_no_comparisons_and_no_wins(tmp_path, capsys):
    config = configuration(tmp_path, cases=3, sources=[{"name": HUMAN}], pairwise=False)
    made = create(write_yaml(tmp_path, config), tmp_path / "study")
    for item in made.plan.readers[0].items:
        rate_item(RatingStore(made.plan), made.key, "reader-1", item, WORTH)
    assert main(["reader-study", "analyse", str(made.plan.folder)]) == 0
    text = capsys.readouterr().out
    assert "## Scores" in text and "## Comparisons" not in text and "## Preferences" not in text
    assert f"written to {made.plan.folder / 'analysis'}" in text
    assert main(["reader-study", "analyse", str(made.plan.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sources"] == [HUMAN]


def test_a_criterion_whose_good_end_is_one_is_turned_for_the_mean_of_all():
    ratings = simulated(World(criteria=2), 4, None, 0)
    criteria = (ratings.criteria[0], replace(ratings.criteria[1], better="low"))
    ratings = replace(ratings, criteria=criteria, scores=np.full_like(ratings.scores, 5.0))
    assert (ratings.goodness == 3).all()  # 5 is the best of one and the worst of the other
    scores = {"metric": np.arange(8.0).reshape(4, 2)}
    told = ratings.scores.copy()
    told[..., 1] = np.arange(8.0).reshape(4, 2) / 2
    ratings = replace(ratings, scores=told)
    rows = {row["criterion"]: row["tau"] for row in agreement.with_metrics(ratings, scores, 10)}
    assert rows[criteria[1].key] == pytest.approx(-1)
    assert rows[effects.OVERALL] == pytest.approx(-1)


def test_metrics_rank_texts_by_their_likeness_to_the_reference(tmp_path):
    key = make_study(tmp_path).key
    scores = metric_scores(key)
    human, model, other = range(3)
    for name in ("ROUGE-L", "BLEU-1", "token F1", "CIDEr", "finding F1"):
        assert np.isnan(scores[name][:, human]).all()  # it wrote the references
        assert (scores[name][:, model] > scores[name][:, other]).all()


def test_without_references_there_are_no_metrics(tmp_path):
    made = make_study(tmp_path)
    cases = {name: replace(case, reference=None) for name, case in made.key.cases.items()}
    assert metric_scores(replace(made.key, cases=cases)) == {}


# The statistics, against published examples ----------------------------------------------------


def test_icc_is_that_of_shrout_and_fleiss():
    said = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = agreement.intraclass(np.array(said, dtype=float))
    assert found["icc_single"]["value"] == pytest.approx(0.29, abs=0.005)
    assert found["icc_mean"]["value"] == pytest.approx(0.62, abs=0.005)


def test_alpha_is_that_of_krippendorffs_example():
    nan = math.nan  # Krippendorff 2011, four observers and twelve units: ordinal alpha 0.815
    said = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
            [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
        ]
    )
    assert agreement.alpha(said, SCALE) == pytest.approx(0.815, abs=0.001)


def test_agreement_on_preferences_is_the_same_whichever_source_is_named_first():
    ratings = simulated(World(effect=2.0), 30, 0.0, 1)
    turned = replace(ratings, preferences=-ratings.preferences)
    one, same = (agreement.between_readers(each, 10)[-1] for each in (ratings, turned))
    assert one["criterion"] == effects.PREFERENCE and one["texts"] == 30
    assert one["alpha"] == pytest.approx(same["alpha"]) and one["alpha"] > 0.5


def test_wilcoxon_is_exact_for_few_cases_and_scipys_for_more():
    stats = pytest.importorskip("scipy.stats")
    numbers = np.random.default_rng(0)
    for cases in (2, 5, 9, 40):
        differences = numbers.integers(-3, 4, cases) / 3
        moved = differences[differences != 0]
        expected = stats.wilcoxon(moved).pvalue if len(moved) else 1.0
        assert effects.wilcoxon(differences) == pytest.approx(expected)
    assert effects.wilcoxon(np.zeros(5)) == effects.wilcoxon(np.array([0.0, 2.0])) == 1.0
    assert math.isnan(effects.wilcoxon(np.array([])))
    # what rounding alone keeps apart is a tie
    assert effects.wilcoxon(np.array([0.1 + 0.2 - 0.3, 0, 0])) == 1.0


def test_a_generous_reader_who_rated_one_text_alone_makes_no_difference():
    ratings = simulated(World(slip=0.0, leanings=(0.0, 2.0)), 20, 0.0, 0)
    told = ratings.scores.copy()
    told[0, 1, :, 1] = np.nan
    partial, without = (replace(ratings, scores=scores) for scores in (told, told[:, :1]))
    found = effects.comparisons(partial, 10)[0]["difference"]
    assert found == effects.comparisons(without, 10)[0]["difference"]
    generous, other = (row["value"] for row in effects.means(partial, 10))
    assert generous - other > found + 0.5


def test_holm_corrects_over_all_comparisons():
    rows = effects.comparisons(simulated(World(0.8, sources=3, criteria=2), 20, 0.0, 3), 10)
    assert len(rows) == 3 * (2 + 1 + 1)  # two criteria, all criteria, preference
    raw = sorted(row["p"] for row in rows)
    least = min(row["p_holm"] for row in rows)
    assert least == pytest.approx(min(1.0, raw[0] * len(rows)))
    assert all(row["p_holm"] >= row["p"] for row in rows)


def test_readers_who_say_one_thing_only_have_no_agreement_to_speak_of():
    ratings = simulated(World(), 6, None, 0)
    same = replace(ratings, scores=np.full_like(ratings.scores, 3.0))
    (row, *_) = agreement.between_readers(same, 10)
    assert math.isnan(row["alpha"]) and row["icc_single"] is None
    again = agreement.within_readers(same, 10)[0]
    assert again["same"] == 1.0 and math.isnan(again["alpha"])


def test_the_plan_beside_a_key_is_that_of_the_table(rated):
    plan = Plan.load(rated.plan.folder)
    ratings = ratings_of(plan, Key.load(plan), RatingStore(plan).rows())
    assert ratings.criteria == DEFAULT_CRITERIA
    assert np.isfinite(ratings.scores[0]).all() and np.isfinite(ratings.preferences[0]).all()
    assert np.isfinite(ratings.scores[1]).sum() == 3 * 2 * 3 * 5
