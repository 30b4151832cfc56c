import dataclasses
import json
import re

import numpy as np
import pytest
import safetensors
from PIL import Image

from radfound.cli import main as radfound_main
from radfound.correction import Correction
from radfound.engine.transformers.backend import TransformersBackend
from radfound.exceptions import NotFoundError, RequestError, StudyUnreadableError, TrainingError
from radfound.question import Question
from radfound.records.adapters import AdapterStore, store_path
from radfound.records.corrections import CorrectionLog, log_path, rows_digest
from radfound.study.study import Study, StudyImage
from tests.radfound.engine.tiny_models import build
from training.vlm.__main__ import main
from training.vlm.examples import examples_of
from training.vlm.finetune import VlmConfig, finetune
from training.vlm.gate import NAMES
from training.vlm.objective import answer_logits
from training.vlm.pictures import ProcessedPictures
from training.vlm.study_files import StudyFiles

FAMILIES = ("llava", "gemma3", "qwen2_vl", "smolvlm")
# Random weights need larger steps than trained ones. The trainings are of LLaVA, whose tiny
# model learns in few steps; that the loss is right for each family has a test of its own.
FAST = VlmConfig(rank=8, alpha=16, dropout=0.0, learning_rate=1e-2, epochs=100, batch_size=4)


def noise(name):
    voxels = np.random.default_rng(sum(name.encode())).integers(0, 99, (2, 40, 50))
    return Study((StudyImage(voxels.astype(np.int16), np.diag([-1.0, -1.0, 3.0, 1.0])),))


def read(name):
    if name == "lost":
        raise StudyUnreadableError("lost.nii: missing; put it back")
    return noise(name)


def correction(image, question, text):
    return Correction(
        images=(image,), task="vqa", question=question, model_text="?", verdict="edited", text=text,
        author="reader", answer_id="a",
    )  # fmt: skip


@pytest.fixture(scope="module")
def backends(tmp_path_factory):
    loaded = {}

    def backend(family):
        if family not in loaded:
            folder = build(family, tmp_path_factory.mktemp(family) / family)
            loaded[family] = TransformersBackend.load(folder, device="cpu", dtype="float32")
        return loaded[family]

    yield backend
    for each in loaded.values():
        each.close()


@pytest.fixture
def log(tmp_path):
    log = CorrectionLog(log_path(tmp_path))
    log.append(correction("ct01", "Is there an effusion?", "Yes."))
    log.append(correction("ct02", "Is there an effusion?", "No."))
    return log


def said(backend, image, adapter):
    question = Question("vqa", "Is there an effusion?")
    tokens = backend.stream(noise(image), question, adapter=adapter, limit=12)
    return "".join(token.text for token in tokens).strip()


def test_corrections_become_a_published_adapter_that_gives_them(backends, log, tmp_path):
    backend, store = backends("llava"), AdapterStore(store_path(tmp_path))
    before = said(backend, "ct01", None)
    result = finetune(log, store, read, backend, config=FAST, author="engineer")
    assert result.adapter == "a-0001", result.reason
    backend.use_adapter("a-0001", store.path("a-0001"))
    assert said(backend, "ct01", "a-0001") == "Yes."
    assert said(backend, "ct02", "a-0001") == "No."
    assert said(backend, "ct01", None) == before
    backend.drop_adapter("a-0001")
    manifest = store.manifest("a-0001")
    assert manifest["base_revision"] == backend.describe().revision
    assert (manifest["rank"], manifest["author"]) == (FAST.rank, "engineer")
    assert len(manifest["corrections"]) == 2
    checks = {check["name"]: check for check in manifest["gate"]["checks"]}
    assert checks["corrections"]["numbers"]["share"] == 1.0
    assert checks["regression"]["passed"] is None
    assert checks["regression"]["words"].startswith("not done: this model has no set")
    assert list(checks) == list(NAMES)
    assert manifest["snapshot"] == rows_digest(log.rows(withdrawn=True))
    with safetensors.safe_open(store.path("a-0001") / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    assert names and all("language_model" in name and ".lora_" in name for name in names)


def test_a_failed_gate_publishes_nothing_and_says_why(backends, log, tmp_path):
    store = AdapterStore(store_path(tmp_path))
    weak = dataclasses.replace(FAST, learning_rate=1e-6, epochs=1)
    result = finetune(log, store, read, backends("llava"), config=weak)
    assert result.adapter is None and "corrections: 0% of 2 reproduced" in result.reason
    assert store.list() == [] and store.refusals()[0]["reason"] == result.reason


def test_a_failed_gate_can_be_overruled_which_is_kept_with_the_adapter(backends, log, tmp_path):
    store = AdapterStore(store_path(tmp_path))
    weak = dataclasses.replace(FAST, learning_rate=1e-4, epochs=1)
    phases = []
    result = finetune(
        log, store, read, backends("llava"), config=weak, force=True,
        progress=lambda news: phases.append(news.message),
    )  # fmt: skip
    assert result.published and result.reason.startswith("published a-0001 although corrections:")
    assert store.manifest("a-0001")["gate"]["forced"] is True
    assert list(dict.fromkeys(phases)) == [
        "reading the studies", "learning the corrections", "checking against known questions",
    ]  # fmt: skip


def test_a_study_that_cannot_be_read_is_left_out_with_the_reason(backends, log, tmp_path):
    log.append(correction("lost", "Is there an effusion?", "No."))
    pictures = ProcessedPictures(backends("llava"), read)
    examples = examples_of(backends("llava"), log.rows(), pictures, 0)
    assert len(examples.corrections) == 2
    assert list(examples.left_out.values()) == ["lost.nii: missing; put it back"]
    with pytest.raises(TrainingError, match="none can be learnt from .lost.nii"):
        examples_of(backends("llava"), log.rows()[-1:], pictures, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_on_the_tokens_that_the_backend_scores(family, backends, log):
    backend = backends(family)
    [example, _] = examples_of(backend, log.rows(), ProcessedPictures(backend, read), 0).corrections
    logits, targets = answer_logits(backend.model, example)
    logs = logits.detach().log_softmax(-1).gather(-1, targets[:, None])
    score = backend.score(example.study, example.question, example.text, adapter=None)
    assert float(logs.mean()) == pytest.approx(score, abs=1e-3)


def test_pictures_are_processed_once_and_again_when_the_file_changes(backends, log, tmp_path):
    versions = {"ct01": "1", "ct02": "1"}
    backend = backends("qwen2_vl")

    def processed():
        pictures = ProcessedPictures(backend, read, versions.__getitem__, tmp_path / "cache")
        found = examples_of(backend, log.rows(), pictures, 0)
        return pictures.processed, found.corrections[0].inputs

    count, first = processed()
    again, second = processed()
    assert (count, again) == (2, 0)
    assert all((first[name] == second[name]).all() for name in first)
    versions["ct02"] = "2"
    assert processed()[0] == 1
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"damaged")
    assert processed()[0] == 2


def test_the_command_trains_on_a_folder_of_studies(tmp_path, capsys):
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in ("ct01", "ct02"):
        Image.fromarray(noise(name).images[0].voxels[0].astype(np.uint8)).save(
            studies / f"{name}.png"
        )
    log = CorrectionLog(log_path(studies))
    log.append(correction("ct01", "Is there an effusion?", "Yes."))
    log.append(correction("ct02", "Is there an effusion?", "No."))
    model = build("llava", tmp_path / "llava")
    options = ["--studies", str(studies), "--model", str(model), "--device", "cpu"]
    fast = ["--dtype", "float32", "--learning-rate", "1e-2", "--epochs", "100", "--author", "e"]
    assert main([*options, *fast]) == 0
    assert "published a-0001" in capsys.readouterr().out
    store = AdapterStore(store_path(studies))
    assert store.active() == "a-0001"
    assert json.loads((store.path("a-0001") / "adapter_config.json").read_text())["r"] == 16
    with pytest.raises(RequestError, match="--studies: there is no folder"):
        main(["--studies", str(tmp_path / "none"), "--model", str(model)])


def test_the_command_finds_uploads_folders_and_dotted_names(tmp_path):
    uploads = tmp_path / ".radfound" / "uploads"
    uploads.mkdir(parents=True)
    for folder in ("series.of.two", "ward"):
        (tmp_path / folder).mkdir()
    places = {
        "one": uploads / "one.nii.gz", "two": tmp_path / "two.DCM", "ct.v2": tmp_path / "ct.v2.png",
        "both": uploads / "both.png", "ward/mr": tmp_path / "ward" / "mr.nrrd",
    }  # fmt: skip
    for path in (*places.values(), tmp_path / "both.png"):
        path.touch()
    files = StudyFiles(tmp_path)
    for image, path in {**places, "series.of.two": tmp_path / "series.of.two"}.items():
        assert files.path(image) == path
    for image in ("ct", "../one", "/one", ".radfound", "", "three"):
        with pytest.raises(NotFoundError, match="no study"):
            files.path(image)


def test_the_command_trains_for_a_server_whose_state_is_in_another_folder(tmp_path, capsys):
    studies, state = tmp_path / "archive", tmp_path / "state"
    studies.mkdir()
    for folder, name in ((studies, "ct01"), (state / ".radfound" / "uploads", "ct02")):
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(name).images[0].voxels[0].astype(np.uint8)).save(
            folder / f"{name}.png"
        )
    log = CorrectionLog(log_path(state))
    log.append(correction("ct01", "Is there an effusion?", "Yes."))
    log.append(correction("ct02", "Is there an effusion?", "No."))
    options = ["--studies", str(studies), "--model", str(build("llava", tmp_path / "llava"))]
    fast = ["--device", "cpu", "--dtype", "float32", "--learning-rate", "1e-2", "--epochs", "100"]
    assert main([*options, *fast, "--conf", "state", str(state)]) == 0
    assert "published a-0001" in capsys.readouterr().out
    store = AdapterStore(store_path(state))
    assert store.active() == "a-0001" and len(store.manifest("a-0001")["corrections"]) == 2
    assert [each.name for each in studies.iterdir()] == ["ct01.png"]
    with pytest.raises(TrainingError, match="with 2 readers who agree"):
        main([*options, *fast, "--conf", "state", str(state), "--conf", "confirm", "2"])


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("stat", "x", "--conf: found 'stat'; expected state or confirm"),
        ("state", "/no/such/folder", "state: there is no folder"),
        ("confirm", "many", "confirm: expected a number of readers"),
    ],
)
def test_a_mistyped_setting_of_the_command_is_named(tmp_path, name, value, named):
    with pytest.raises(RequestError, match=re.escape(named)):
        main(["--studies", str(tmp_path), "--model", "x", "--conf", name, value])


def test_the_command_publishes_into_the_store_of_the_served_model(tmp_path, capsys):
    studies = tmp_path / "studies"
    studies.mkdir()
    Image.fromarray(noise("ct01").images[0].voxels[0].astype(np.uint8)).save(studies / "ct01.png")
    CorrectionLog(log_path(studies)).append(correction("ct01", "Is there an effusion?", "Yes."))
    model = build("llava", tmp_path / "llava")
    settings = tmp_path / "models.yaml"
    served = "models: [{name: far, backend: openai, place: 'http://127.0.0.1:1/v1#m'REVISION}]"
    settings.write_text(served.replace("REVISION", ""))
    options = ["--studies", str(studies), "--device", "cpu", "--dtype", "float32", "--models", str(settings)]  # fmt: skip
    fast = ["--model", str(model), "--publish-for", "far", "--learning-rate", "1e-2", "--epochs", "100"]  # fmt: skip
    with pytest.raises(RequestError, match="revision of the served model is not named") as caught:
        main([*options, *fast])
    revision = re.search("revision: ([^`]+)`", str(caught.value)).group(1)
    settings.write_text(served.replace("REVISION", f", revision: {revision}"))
    assert main([*options, *fast]) == 0
    assert AdapterStore(store_path(studies, "far")).active() == "a-0001"
    assert AdapterStore(store_path(studies)).active() is None
    with pytest.raises(RequestError, match="--model: missing"):
        main([*options, "--publish-for", "far"])
    with pytest.raises(RequestError, match="radfound-mini is trained by its server"):
        main([*options, *fast[:2]])
    with pytest.raises(RequestError, match="--publish-for: needs --models"):
        main(["--studies", str(studies), *fast])


def test_radfound_train_runs_it(capfd):
    assert radfound_main(["train", "--help"]) == 0
    assert "--studies DIR" in capfd.readouterr().out
    assert radfound_main(["train", "--studies", "/nowhere", "--model", "m"]) == 1
    assert "error: --studies: there is no folder" in capfd.readouterr().err
