import errno
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import radfound
from radfound.cli import main
from radfound.exceptions import StudyUnreadableError
from radfound.question import Answer, ModelVersion
from radfound.records.adapters import AdapterStore, store_path
from radfound.records.answers import AnswerJournal, journal_path
from radfound.records.corrections import Correction, CorrectionLog, log_path
from radfound.study.region import Box

from .adapter_files import save_adapter

ROOT = Path(__file__).parents[2]


class FakeEngine:
    """Stands where the engine stands, so that these tests load no model."""

    def __init__(self):
        self.loaded = []
        self.asked = []
        self.answer = Answer(
            task="vqa",
            images=("study",),
            question=None,
            text="No effusion.",
            model=ModelVersion("radfound-mini", "0123456789ab", "a-0003"),
            confidence=0.834,
            timings_ms={"read": 0, "encode": 5, "first_token": 7, "total": 9},
        )

    def load(self, checkpoint, adapters, device, hosts=()):
        self.loaded.append((checkpoint, adapters, device))
        return self

    def stream(self, study, task, question, **options):
        self.asked.append((study, task, question, options))
        yield "No "
        print("a library that writes to stdout")
        yield "effusion."
        yield replace(self.answer, task=task, question=question)


@pytest.fixture
def engine(monkeypatch):
    fake = FakeEngine()
    monkeypatch.setattr("radfound.cli.ask._load_engine", fake.load)
    monkeypatch.setattr("radfound.cli.ask._read_study", lambda *arguments: arguments)
    return fake


@pytest.fixture
def studies(tmp_path) -> Path:
    """A folder of studies with two corrections and two adapters, the second one active."""
    log = CorrectionLog(log_path(tmp_path))
    shared = {"task": "vqa", "question": "Is there an effusion?", "author": "reader 1"}
    log.append(
        Correction(
            id="c1", images=["ct01"], model_text="No.", verdict="edited", text="Yes.", **shared
        )
    )
    log.append(Correction(id="c2", images=["ct02"], model_text="No.", verdict="accepted", **shared))
    trained = save_adapter(tmp_path / "trained")
    for _ in range(2):
        AdapterStore(store_path(tmp_path)).publish(trained, {})
    return tmp_path


def refusal(capsys, *argv: str) -> str:
    """Run a command that must fail, and return its one line."""
    assert main([*map(str, argv)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("radfound: error: ")
    assert err.count("\n") == 1
    return err


# Asking


def test_answer_comes_first_and_then_its_confidence_and_model(engine, capsys):
    assert main(["ask", "ct.nii.gz", "Is there an effusion?"]) == 0
    assert capsys.readouterr().out == (
        "No effusion.\nconfidence 0.83 · radfound-mini, adapter a-0003\n"
    )


def test_answer_of_the_base_model_without_calibration_names_just_the_model(engine, capsys):
    model = ModelVersion("radfound-mini", "0123456789ab")
    engine.answer = replace(engine.answer, confidence=None, model=model, finished=False)
    assert main(["ask", "ct.nii.gz", "Is there an effusion?"]) == 0
    assert capsys.readouterr().out == "No effusion.\nradfound-mini · cut off\n"


def test_json_is_one_document_whatever_libraries_write(engine, capsys):
    assert main(["ask", "ct.nii.gz", "Is there an effusion?", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["schema"] == "radfound.answer/1"
    assert document["text"] == "No effusion."
    assert document["question"] == "Is there an effusion?"
    assert "a library that writes to stdout" in err


def test_last_word_is_the_question_and_the_others_are_views(engine):
    assert main(["ask", "l cc.dcm", "r cc.dcm", "Any mass?"]) == 0
    [(study, task, question, _)] = engine.asked
    assert study == (["l cc.dcm", "r cc.dcm"], None, None)
    assert (task, question) == ("vqa", "Any mass?")


def test_options_may_stand_before_between_and_after(engine):
    for argv in (
        ["ask", "--series", "2", "--volume", "1", "a.nii", "b.nii", "Any mass?"],
        ["ask", "a.nii", "b.nii", "--series", "2", "--volume=1", "Any mass?"],
        ["ask", "a.nii", "--volume", "1", "b.nii", "Any mass?", "--series", "2"],
    ):
        assert main(argv) == 0
    assert [(study, question) for study, _, question, _ in engine.asked] == [
        ((["a.nii", "b.nii"], "2", 1), "Any mass?")
    ] * 3


@pytest.mark.parametrize("task", ["caption", "report"])
def test_caption_and_report_need_no_question(engine, task):
    assert main([task, "ct.nii.gz"]) == 0
    [(study, asked_task, question, _)] = engine.asked
    assert (study[0], asked_task, question) == (["ct.nii.gz"], task, None)


def test_model_adapters_region_and_token_limit_reach_the_engine(engine, studies):
    box = ["--box-mm", "-10", "-20.5", "0", "10", "20", "30"]
    options = ["--model", "radfound-tiny", "--studies", str(studies), "--max-new-tokens", "12"]
    assert main(["caption", "ct.nii.gz", *box, *options, "--device", "cpu"]) == 0
    [(checkpoint, adapters, device)] = engine.loaded
    assert (checkpoint, adapters.active(), device) == ("radfound-tiny", "a-0002", "cpu")
    assert engine.asked[0][3] == {
        "region": Box(((-10.0, -20.5, 0.0), (10.0, 20.0, 30.0))),
        "max_new_tokens": 12,
    }


def test_timings_count_the_reading(engine, capsys, monkeypatch):
    moments = iter([1.0, 1.25])
    monkeypatch.setattr("radfound.cli.ask.time.monotonic", lambda: next(moments))
    assert main(["caption", "ct.nii.gz", "--json"]) == 0
    timings = json.loads(capsys.readouterr().out)["timings_ms"]
    assert timings == {"read": 250, "encode": 255, "first_token": 257, "total": 259}


def test_unreadable_study_is_one_line_and_the_model_is_not_loaded(engine, capsys, monkeypatch):
    def fail(*_):
        raise StudyUnreadableError("ct.nii.gz: not NIfTI;\nfound text")

    monkeypatch.setattr("radfound.cli.ask._read_study", fail)
    assert "ct.nii.gz: not NIfTI; found text" in refusal(capsys, "caption", "ct.nii.gz")
    assert engine.loaded == []


@pytest.mark.parametrize(
    ("words", "argv"),
    [
        ("a question", ["ask", "ct.nii.gz"]),
        ("question", ["ask", "ct.nii.gz", " "]),
        ("FILE", ["ask"]),
        ("max_new_tokens", ["caption", "ct.nii.gz", "--max-new-tokens", "0"]),
        ("--max-new-tokens", ["caption", "ct.nii.gz", "--max-new-tokens", "many"]),
        ("region.box_mm", ["caption", "ct.nii.gz", "--box-mm", "0", "0", "0", "0", "1", "1"]),
        ("--studies", ["caption", "ct.nii.gz", "--studies", "no-such-folder"]),
        ("--colour", ["caption", "ct.nii.gz", "--colour"]),
        ("--studies", ["adapters", "list"]),
        ("--studies", ["corrections", "list", "--studies", "no-such-folder"]),
        ("extra", ["corrections", "list", "extra", "--studies", "."]),
        ("paint", ["paint"]),
        ("COMMAND", []),
    ],
)
def test_bad_input_is_one_line_that_names_it(engine, capsys, words, argv):
    assert words in refusal(capsys, *argv)
    assert engine.loaded == []


def test_results_that_cannot_be_written_are_one_line(engine, capsys, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "results.json")

    monkeypatch.setattr("radfound.cli.ask._read_study", fail)
    assert refusal(capsys, "caption", "ct.nii.gz").endswith(
        "results.json: No space left on device\n"
    )


def test_interrupt_ends_without_a_traceback(engine, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("radfound.cli.ask._read_study", interrupt)
    assert main(["caption", "ct.nii.gz"]) == 130
    assert capsys.readouterr() == ("", "radfound: interrupted\n")


# Corrections


def test_corrections_are_listed_for_people(studies, capsys):
    assert main(["corrections", "list", "--studies", str(studies)]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert "edited by reader 1" in first
    assert "ct01: Is there an effusion?" in first
    assert "model:  No." in first and "reader: Yes." in first
    assert "accepted" in second and "reader:" not in second


def test_corrections_are_listed_as_json(studies, capsys):
    assert main(["corrections", "list", "--json", "--studies", str(studies)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["id"] for each in document["corrections"]] == ["c1", "c2"]
    assert {each["schema"] for each in document["corrections"]} == {"radfound.correction/1"}


def test_corrections_of_one_image_are_listed(studies, capsys):
    argv = ["corrections", "list", "--image", "ct02", "--json", "--studies", str(studies)]
    assert main(argv) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["id"] for each in document["corrections"]] == ["c2"]


def test_withdrawn_correction_is_no_longer_listed(studies, capsys):
    argv = ["corrections", "withdraw", "c1", "--author", "reader 2", "--studies", str(studies)]
    assert main(argv) == 0
    assert capsys.readouterr().out == "c1 is withdrawn; its row stays in the log\n"
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": "c1", "withdrawn": False}
    assert main(["corrections", "list", "--json", "--studies", str(studies)]) == 0
    listed = json.loads(capsys.readouterr().out)["corrections"]
    assert [each["id"] for each in listed] == ["c2"]
    assert "no correction 'c9'" in refusal(
        capsys, "corrections", "withdraw", "c9", "--author", "reader 2", "--studies", studies
    )


def test_folder_without_corrections_says_so_and_stays_as_it_is(tmp_path, capsys):
    assert main(["corrections", "list", "--studies", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no corrections yet\n"
    assert list(tmp_path.iterdir()) == []


def test_corrections_are_verified(studies, capsys):
    assert main(["corrections", "verify", "--studies", str(studies)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 corrections, none changed, removed or moved\nhead ")
    head = said.split()[-1]
    assert main(["corrections", "verify", "--studies", str(studies), "--head", head]) == 0
    capsys.readouterr()
    connection = sqlite3.connect(log_path(studies))
    connection.executescript(
        "DROP TRIGGER corrections_are_not_changed; UPDATE corrections SET text = 'No.' WHERE seq = 1"
    )
    connection.close()
    said = refusal(capsys, "corrections", "verify", "--studies", studies)
    assert "row 1 was changed" in said


def test_corrections_are_exported(studies, capsys, tmp_path):
    out = tmp_path / "corrections.jsonl"
    assert main(["corrections", "export", "--studies", str(studies), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"2 corrections written to {out}\n"
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["c1", "c2"]


def test_an_answer_is_traced(studies, capsys):
    model = ModelVersion("radfound-mini", "0123456789ab", "a-0002")
    given = Answer(task="caption", images=("ct01",), question=None, text="A CT.", model=model)
    AnswerJournal(journal_path(studies)).record(given, None)
    assert main(["trace", given.id, "--studies", str(studies)]) == 0
    assert "adapter a-0002, published" in capsys.readouterr().out
    assert main(["trace", given.id, "--json", "--studies", str(studies)]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["adapter"] == "a-0002"
    assert "never-given" in refusal(capsys, "trace", "never-given", "--studies", studies)


def test_damaged_log_is_one_line(studies, capsys):
    log_path(studies).write_text("not a database")
    assert "corrections.sqlite" in refusal(capsys, "corrections", "list", "--studies", studies)


# Adapters


def test_adapters_are_listed_with_a_star_at_the_active_one(studies, capsys):
    assert main(["adapters", "list", "--studies", str(studies)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines][0] == ["base"]
    assert lines[1].startswith("  a-0001 ")
    assert lines[2].startswith("* a-0002 ")


def test_adapters_are_listed_as_json(studies, capsys):
    assert main(["adapters", "list", "--json", "--studies", str(studies)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["active"] == "a-0002"
    assert [each["id"] for each in document["adapters"]] == ["a-0001", "a-0002"]


def test_adapters_are_listed_with_what_the_gate_said(studies, capsys):
    good = {"name": "answers end", "passed": True, "told": "100% of 32", "numbers": {}}
    bad = {"name": "corrections", "passed": False, "told": "40% of 10 reproduced", "numbers": {}}
    gate = {"passed": False, "forced": True, "checks": [good, bad]}
    store = AdapterStore(store_path(studies))
    told = "closed questions: 40 answers, fitted"
    manifest = {"gate": gate, "author": "an annotator", "calibration": told}
    store.publish(studies / "trained", manifest)
    store.note_refusal({"gate": {**gate, "forced": False, "checks": [bad]}, "reason": "too few"})
    assert main(["adapters", "list", "--studies", str(studies)]) == 0
    lines = capsys.readouterr().out.splitlines()[3:]
    assert lines[0].startswith("* a-0003 ")
    assert lines[1:5] == [
        "    passed  answers end: 100% of 32",
        "    FAILED  corrections: 40% of 10 reproduced",
        "            confidence: closed questions: 40 answers, fitted",
        "    published all the same by an annotator",
    ]
    assert lines[5].startswith("  refused  2")
    assert lines[6:] == ["    FAILED  corrections: 40% of 10 reproduced"]


def test_adapters_of_another_served_model_are_listed_apart(studies, capsys):
    left = {"name": "regression", "passed": None, "words": "not done: no set", "numbers": {}}
    store = AdapterStore(store_path(studies, "far"))
    store.publish(studies / "trained", {"gate": {"passed": True, "checks": [left]}})
    at = ["--studies", str(studies)]
    assert main(["adapters", "list", "--model", "far", *at]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("* a-0001 ") and len(lines) == 3
    assert lines[2] == "            regression: not done: no set"
    assert main(["adapters", "rollback", "--model", "far", *at]) == 0
    assert store.active() is None and AdapterStore(store_path(studies)).active() == "a-0002"


@pytest.mark.parametrize("command", [["list"], ["rollback"], ["activate", "base"], ["prune"]])
def test_a_model_without_adapters_is_said_and_those_with_some_are_named(studies, capsys, command):
    at = ["--studies", str(studies)]
    assert main(["adapters", *command, "--model", "fra", *at]) == 2
    assert "of their own: none. Leave --model out" in capsys.readouterr().err

    store_path(studies, "far").mkdir(parents=True)
    assert main(["adapters", *command, "--model", "fra", *at]) == 2
    assert "no adapters of a model named 'fra'" in (said := capsys.readouterr().err)
    assert "of their own: far." in said
    assert not store_path(studies, "fra").exists()


def test_old_adapters_lose_their_weights_but_never_the_active_one(studies, capsys):
    at = ["--studies", str(studies)]
    AdapterStore(store_path(studies)).publish(studies / "trained", {})
    assert main(["adapters", "activate", "base", *at]) == 0
    assert main(["adapters", "activate", "a-0002", *at]) == 0
    capsys.readouterr()
    assert main(["adapters", "prune", "--keep", "1", *at]) == 0
    assert main(["adapters", "prune", "--keep", "1", *at]) == 0
    assert capsys.readouterr().out == "pruned: a-0001\nnothing to prune\n"


def test_adapter_is_activated_and_rolled_back(studies, capsys):
    at = ["--studies", str(studies)]
    assert main(["adapters", "activate", "a-0001", *at]) == 0
    assert main(["adapters", "activate", "base", "--json", *at]) == 0
    assert main(["adapters", "rollback", *at]) == 0
    assert capsys.readouterr().out == 'active: a-0001\n{\n  "active": null\n}\nactive: a-0001\n'
    assert AdapterStore(store_path(studies)).active() == "a-0001"


def test_unknown_adapter_is_one_line_and_nothing_changes(studies, capsys):
    assert "a-0009" in refusal(capsys, "adapters", "activate", "a-0009", "--studies", studies)
    assert AdapterStore(store_path(studies)).active() == "a-0002"


# The process


def run(*argv: object, **environment: str) -> subprocess.CompletedProcess:
    script = "from radfound.cli import main; raise SystemExit(main())"
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, argv)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding=environment.get("PYTHONIOENCODING", "utf-8"),
        timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8", **environment},
    )


def test_version_is_the_packages():
    assert run("--version").stdout == f"radfound {radfound.__version__}\n"


def test_help_names_every_command():
    done = run("--help")
    assert done.returncode == 0
    for command in ("ask", "caption", "report", "corrections", "adapters"):
        assert command in done.stdout


def test_terminal_that_lacks_a_letter_still_shows_the_rest(studies):
    made = {"images": ["ct09"], "task": "caption", "model_text": "Größe 大", "verdict": "accepted"}
    CorrectionLog(log_path(studies)).append(Correction(author="reader", **made))
    listed = run("corrections", "list", "--studies", studies, PYTHONIOENCODING="latin-1")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "Größe ?" in listed.stdout


def test_list_ends_quietly_when_its_reader_has_seen_enough(studies):
    log = CorrectionLog(log_path(studies))
    for number in range(40):
        log.append(
            Correction(
                images=["ct03"], task="caption", model_text="x" * 10_000, verdict="accepted",
                author=f"reader {number}",
            )
        )  # fmt: skip
    script = "from radfound.cli import main; raise SystemExit(main())"
    listing = subprocess.Popen(
        [sys.executable, "-c", script, "corrections", "list", "--studies", str(studies)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    listing.stdout.read(10)
    listing.stdout.close()
    assert listing.stderr.read() == b""
    listing.stderr.close()
    assert listing.wait(timeout=60) == 0


def test_real_engine_answers_about_a_real_file(tmp_path):
    import nibabel

    voxels = np.random.default_rng(0).integers(0, 1000, (24, 20, 6)).astype(np.int16)
    path = tmp_path / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 4.0, 1.0])), path)
    options = ("--model", "radfound-tiny", "--max-new-tokens", 4, "--json")
    done = run("ask", path, "Which imaging modality is this?", *options)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "radfound.answer/1"
    assert document["task"] == "vqa"
    assert document["model"]["name"] == "radfound-tiny"
    assert document["model"]["adapter"] is None
    assert document["timings_ms"]["read"] <= document["timings_ms"]["total"]


def test_real_engine_refuses_a_file_that_is_no_image(tmp_path):
    path = tmp_path / "volume.nii.gz"
    path.write_text("not an image")
    done = run("caption", path, "--model", "radfound-tiny")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("radfound: error: ")
    assert done.stderr.count("\n") == 1
    assert "volume.nii.gz" in done.stderr
