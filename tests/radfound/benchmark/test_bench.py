"""`radfound bench` from its command line to the files it leaves, on a model that knows nothing."""

import csv
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from radfound.benchmark import bench as bench_module
from radfound.benchmark import probe
from radfound.benchmark.kept_answers import KeptAnswers
from radfound.benchmark.output import MARKS, write_docs
from radfound.benchmark.runner import BLANK, MODEL, OTHER, run_tasks
from radfound.benchmark.scoring.radeval import radeval_metrics
from radfound.benchmark.scoring.scores import Scorer, calibration_table
from radfound.benchmark.tasks import Source, load_task, trained_task
from radfound.cli import main
from radfound.engine.competence import Competence
from radfound.engine.engine import Engine
from radfound.engine.protocol import Abilities, Description
from radfound.engine.stream import Stream, Token
from radfound.exceptions import ModelServerError, RequestError
from radfound.model.checkpoints import load


class FakeBackend:
    """Says "axial" where the left half of the picture is the brighter one; or always the same."""

    def __init__(self, looks: bool, probabilities: str = "all"):
        self.looks, self.probabilities = looks, probabilities
        self.asked = []
        self.most = 1000

    def describe(self):
        abilities = Abilities(self.probabilities, embed=True)
        return Description("fake", "0", None, 4, 10, "fake", abilities)

    def embed(self, study):
        return np.array(study.images[0].voxels.mean(), np.float32)

    def stream(self, study, question, *, adapter, limit):
        if len(self.asked) == self.most:
            raise ModelServerError("the server has died")
        self.asked.append((study.digest, question))
        left, right = np.array_split(study.images[0].voxels[0].astype(float), 2, axis=1)
        is_axial = self.looks and left.mean() > right.mean() + 10
        stream, known = Stream(), self.probabilities == "all"
        stream.put(Token("axial" if is_axial else "coronal", -0.1 if known else None, None, True))
        stream.end()
        return stream


def plane_scores(model, data):
    task = load_task("metadata", Source(str(data)))
    task = type(task)("metadata", tuple(i for i in task.items if i.group == "plane"), task.training)
    return Scorer().task(run_tasks(model, [task])[0])["rows"]


@pytest.fixture(autouse=True)
def quick_features(monkeypatch):
    """The frozen network's place is taken by the mean of the picture's halves."""

    def features(examples, advance=lambda count: None):
        halves = [np.array_split(e.read().images[0].voxels[0], 2, axis=1) for e in examples]
        return np.array([[left.mean(), right.mean()] for left, right in halves])

    monkeypatch.setattr(probe, "image_features", features)
    monkeypatch.setattr("radfound.benchmark.runner.image_features", features)


def test_a_model_that_looks_is_above_its_blind_and_mistaken_selves(own_data):
    row = next(
        r for r in plane_scores(FakeBackend(looks=True), own_data) if r["row"] == "plane, both"
    )
    assert row["model"]["value"] == row["probe"]["value"] == 1.0
    assert row["blank"]["value"] == row["majority"]["value"] == 0.5
    assert row["other"]["value"] < 1.0
    assert row["over_blank"]["low"] > 0 and row["over_blank"]["p"] < 0.05


def test_a_model_that_ignores_the_image_scores_as_on_a_blank_one(own_data):
    for row in plane_scores(FakeBackend(looks=False), own_data):
        assert row["model"] == row["blank"] == row["other"]
        assert (row["over_blank"]["value"], row["over_other"]["value"]) == (0, 0)


def test_equal_questions_about_equal_studies_are_asked_once(own_data):
    backend = FakeBackend(looks=False)
    task = load_task("vqa", Source(str(own_data)))
    run = run_tasks(backend, [task])[0]
    assert (
        len(backend.asked) == len(set(backend.asked)) == 3 * (8 + 1)
    )  # the blank images are equal
    assert run.answers[MODEL] == run.answers[BLANK] == run.answers[OTHER]


def test_a_run_that_is_ended_keeps_its_answers_from_the_first_one_on(own_data, tmp_path):
    task = load_task("vqa", Source(str(own_data)))
    dying, whole = FakeBackend(looks=True), FakeBackend(looks=True)
    dying.most = 5
    with pytest.raises(ModelServerError):
        run_tasks(dying, [task], at_once=1, kept=KeptAnswers(tmp_path, dying.describe()))
    kept = KeptAnswers(tmp_path, whole.describe())
    assert len(kept) == 5
    resumed = run_tasks(whole, [task], kept=kept)[0]
    assert len(whole.asked) == 27 - 5
    assert resumed == run_tasks(FakeBackend(looks=True), [task])[0]


def test_a_backend_without_probabilities_is_scored_without_a_calibration_table(own_data):
    task = load_task("metadata", Source(str(own_data)))
    run = run_tasks(FakeBackend(looks=True, probabilities="none"), [task])[0]
    assert set(run.probabilities) == {None}
    assert Scorer().task(run)["rows"] and calibration_table([run], None) == {}


def test_scores_are_split_by_modality_and_organ_system(own_data):
    run = run_tasks(FakeBackend(looks=True), [load_task("vqa", Source(str(own_data)))])[0]
    by = Scorer().task(run)["by"]
    assert by["modality"]["computed tomography"]["closed"]["n"] == 16
    assert by["organ system"]["brain"]["open"]["score"] == "token recall"


# The command


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """`radfound-tiny` in a folder that a calibration can be kept in."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    model, processor, _, _ = load("radfound-tiny")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def without_java():
    """METEOR starts Java anew for each column; test_metrics tries it."""
    with pytest.MonkeyPatch.context() as patch:
        found = shutil.which
        patch.setattr(
            shutil, "which", lambda name, *a, **k: name != "java" and found(name, *a, **k) or None
        )
        yield


@pytest.fixture(scope="module")
def outcome(own_data, checkpoint, tmp_path_factory, without_java):
    """The folder that a run with calibration left."""
    out = tmp_path_factory.mktemp("out") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "radfound.benchmark.runner.image_features",
            lambda examples, advance: np.random.default_rng(0).random((len(examples), 4)),
        )
        command = ["bench", "--model", str(checkpoint), "--data", str(own_data), "--out", str(out)]
        assert main([*command, "--calibrate"]) == 0
    return out


def test_the_table_has_every_score_beside_its_controls(outcome):
    results = json.loads((outcome / "results.json").read_text())
    assert set(results["tasks"]) == {"metadata", "vqa", "caption", "report"}
    for name, task in results["tasks"].items():
        controls = {"model", "majority", "blank", "alike"} | {
            "metadata": {"other", "probe"}, "vqa": {"other", "words", "nearest"},
        }.get(name, set())  # fmt: skip
        assert all(controls <= set(row) for row in task["rows"])
        assert len(task["data_sha256"]) == 64
    scores = {row["score"] for row in results["tasks"]["caption"]["rows"]}
    assert {"BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr", "finding F1", "laterality errors"} <= scores
    assert results["versions"]["torch"] and results["seed"] == 0
    report = (outcome / "report.md").read_text()
    for heading in (
        "majority answer", "words alone", "blank image", "another patient's image",
        "another patient, same kind of image", "ImageNet probe",
    ):  # fmt: skip
        assert heading in report


def test_what_the_model_sees_leads_the_report_and_is_kept_for_the_engine(outcome):
    results = json.loads((outcome / "results.json").read_text())
    looking = results["looking"]
    assert looking["effective_rank"]["n"] == 16 and looking["effective_rank"]["value"] > 0
    assert looking["pairs"][0]["n"] > 16
    assert {row["row"] for row in looking["image_disjoint"]} == {
        "closed", "closed, yes or no", "open",
    }  # fmt: skip
    assert set(results["competence"]["kinds"]) == {"picture"}  # of the others there are too few
    report = (outcome / "report.md").read_text()
    assert report.index("What it sees") < report.index("Effective rank") < report.index("Captions")
    kept = Competence.read(outcome, results["model"]["revision"])
    assert kept is not None and set(kept.leads) == {"picture"}


def test_questions_that_it_was_trained_on_have_a_table_of_their_own(own_data):
    task = trained_task(Source(str(own_data)), 9)
    assert len(task.items) == 9 and {item.example.split for item in task.items} == {"train"}
    run = run_tasks(FakeBackend(looks=True), [task])[0]
    assert set(run.answers) == {"model", "blank", "other", "alike"}
    rows = Scorer().task(run)["rows"]
    assert [row["row"] for row in rows if row["score"] == "accuracy"] == ["closed, trained on"]


def test_a_question_that_does_not_fit_is_named_and_does_not_end_the_run(own_data):
    class Small(FakeBackend):
        def stream(self, study, question, *, adapter, limit):
            stream = super().stream(study, question, adapter=adapter, limit=limit)
            if study.digest == large:
                stream = Stream()
                stream.fail(RequestError("the question does not fit"))
            return stream

    task = load_task("vqa", Source(str(own_data)))
    large = task.items[0].example.read().digest
    run = run_tasks(Small(looks=True), [task])[0]
    assert set(run.refused.values()) == {"the question does not fit"}
    assert task.items[0].id in run.refused and run.answers[MODEL][0] == ""
    assert any(run.answers[MODEL])
    large = None
    assert run_tasks(Small(looks=True), [task])[0].refused == {}


def test_a_model_that_takes_nothing_ends_the_run(own_data):
    class Full(FakeBackend):
        def stream(self, study, question, *, adapter, limit):
            stream = Stream()
            stream.fail(RequestError("the question does not fit"))
            return stream

    with pytest.raises(RequestError, match="does not fit"):
        run_tasks(Full(looks=True), [load_task("vqa", Source(str(own_data)))])


def test_every_answer_is_written_down(outcome):
    rows = list(csv.DictReader((outcome / "answers.csv").open()))
    assert len(rows) == 2 * 24 + 24 + 8 + 8
    asked = [row for row in rows if row["task"] in ("metadata", "vqa")]
    assert all(row["right"] in "01" and 0 <= float(row["probability"]) <= 1 for row in asked)
    assert all(0 < float(row["confidence"]) < 1 for row in asked if row["group"] == "open")
    assert {row["confidence"] for row in rows if row["task"] == "caption"} == {""}


def test_plots_are_written(outcome):
    assert {path.name for path in outcome.glob("*.png")} == {
        "scores-metadata.png", "scores-vqa.png", "scores-caption.png", "scores-report.png",
        "reliability.png",
    }  # fmt: skip


def test_the_calibration_is_kept_beside_the_checkpoint_and_used(outcome, checkpoint):
    kept = json.loads((checkpoint / "calibration.json").read_text())
    engine = Engine.load(checkpoint)
    assert kept["revision"] == engine.model_version.revision
    assert set(engine.calibration.curves) == {"open"}
    table = json.loads((outcome / "results.json").read_text())["calibration"]
    assert table["metadata"]["n"] == 24
    assert table["open questions"]["calibrated"]["ece"] <= 1


def test_two_runs_are_compared_on_the_same_items(
    outcome, own_data, checkpoint, tmp_path, without_java
):
    docs = tmp_path / "page.md"
    docs.write_text(f"before\n{MARKS[0]}\nstale\n{MARKS[1]}\nafter\n")
    assert main(
        ["bench", "--model", str(checkpoint), "--data", str(own_data), "--out", str(tmp_path / "b"),
         "--tasks", "vqa", "--compare", str(outcome), "--write-docs", str(docs), "--json"]
    ) == 0  # fmt: skip
    comparison = json.loads((tmp_path / "b" / "results.json").read_text())["comparison"]
    assert {row["row"] for row in comparison["rows"]} == {"closed", "open"}
    assert all(row["difference"]["value"] == 0 for row in comparison["rows"])
    page = docs.read_text()
    assert page.startswith(f"before\n{MARKS[0]}\nModel `tiny`") and page.endswith("after\n")
    assert "stale" not in page and "Beside `run`" in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--data": "nowhere"}, "--data"),
        ({"--tasks": "vqas"}, "--tasks"),
        ({"--limit": "1"}, "--limit"),
        ({"--compare": "nowhere"}, "--compare"),
        ({"--radeval": "crimson"}, "--radeval"),
        ({"--write-docs": "nowhere"}, "--write-docs"),
        ({"--device": "cpu", "--calibrate": None}, "--calibrate"),
        ({"--model": "nowhere"}, "model: found 'nowhere'"),
    ],
)
def test_wrong_arguments_end_in_one_line(own_data, tmp_path, capsys, change, said):
    options = {
        "--data": str(own_data),
        "--out": str(tmp_path),
        "--model": "radfound-tiny",
        "--tasks": "vqa",
    }
    assert (
        main(["bench", *(word for pair in {**options, **change}.items() for word in pair if word)])
        == 2
    )
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "option", "extra"),
    [
        ("rouge_score", "caption", "bench"),
        ("sklearn", "metadata", "bench"),
        ("matplotlib", "vqa", "bench"),
    ],
)
def test_a_missing_library_is_named_with_how_to_get_it(
    monkeypatch, own_data, tmp_path, module, option, extra
):
    real = bench_module.library

    def missing(name, extra):
        return real("no_such_library" if name.startswith(module) else name, extra)

    monkeypatch.setattr(bench_module, "library", missing)
    with pytest.raises(RequestError, match=rf"pip install '.\[{extra}\]'"):
        bench_module.bench(
            bench_module.Options(str(own_data), tmp_path, "radfound-tiny", tasks=(option,))
        )


def test_a_page_without_marks_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("no marks")
    with pytest.raises(RequestError, match="radvlbench"):
        write_docs("tables", page)
    assert page.read_text() == "no marks"


def test_radeval_scores_texts_behind_the_same_command(monkeypatch):
    class RadEval:
        metric_keys = ("radgraph_simple",)

        def __init__(self, metrics, per_sample, show_progress):
            assert (metrics, per_sample) == (["radgraph"], True)

        def __call__(self, refs, hyps):
            return {"radgraph_simple": [float(r == h) for r, h in zip(refs, hyps, strict=True)]}

    monkeypatch.setitem(sys.modules, "radeval", SimpleNamespace(RadEval=RadEval))
    [metric] = radeval_metrics(("radgraph",))
    assert metric.value(metric.statistics(["a", "b"], ["a", "c"]).sum(0)) == 0.5


def test_radeval_that_is_not_installed_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "radeval", None)
    with pytest.raises(RequestError, match=r"pip install '.\[radeval\]'"):
        radeval_metrics(("radgraph",))
