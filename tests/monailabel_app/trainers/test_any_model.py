"""The whole loop with models of other makers: ask, stop, correct, train, ask again, go back."""

import json
import subprocess
import sys
import time

import pytest

from ...radfound.engine.openai import engines
from ...radfound.engine.tiny_models import build
from ..conftest import PICTURE, VOLUME, fill_with_studies, running_server

QUESTION = "Is there an effusion?"
# Random weights need larger steps than trained ones.
FAST = {"learning_rate": 1e-2, "epochs": 150, "rank": 8, "dropout": 0.0, "least_kept": 0}


def served(folder, settings):
    """A server of the models in a settings file, with studies of its own."""
    studies = folder / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    (folder / "models.yaml").write_text(json.dumps(settings))  # JSON is YAML
    conf = ("--conf", "models", str(folder / "models.yaml"))
    return running_server(studies, folder / "server.log", *conf, model=None)


def ask(server, image, limit=16):
    """The pieces of a streamed answer, and the answer."""
    asked = {"image": image, "question": QUESTION, "max_new_tokens": limit, "model": "tiny"}
    asked["model_only"] = True  # not the correction, which answers at once
    reply = server.post("/radfound/ask", json=asked)
    assert reply.ok, reply.text
    found = []
    for part in reply.text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in part.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    assert found[-1][0] == "answer", found[-1]
    return [data for name, data in found if name == "token"], found[-1][1]


def stop_an_answer(server):
    asked = {"image": PICTURE, "question": QUESTION, "max_new_tokens": 256, "model": "tiny"}
    asked["model_only"] = True
    with server.post("/radfound/ask", json=asked, stream=True) as reply:
        next(reply.iter_lines())
    deadline = time.monotonic() + 20
    while "radfound_answers_running 0" not in server.get("/radfound/metrics").text:
        assert time.monotonic() < deadline, "the answer goes on although nobody listens"
        time.sleep(0.05)


def correct(server, answer, text):
    correction = {
        "schema": "radfound.correction/1", "id": f"of-{answer['id']}", "answer_id": answer["id"],
        "images": answer["images"], "task": "vqa", "question": QUESTION, "model_text": answer["text"],
        "verdict": "edited", "text": text, "author": "Dr A", "model": answer["model"],
    }  # fmt: skip
    assert server.post("/radfound/corrections", json=correction).ok


def adapter_of(server):
    return server.get("/radfound/adapters", params={"model": "tiny"}).json()["active"]


def test_a_model_in_a_folder_learns_the_corrections_and_answers_with_them(tmp_path):
    model = build("gemma3", tmp_path / "gemma")
    settings = {
        "models": [
            {"name": "tiny", "backend": "transformers", "place": str(model), "device": "cpu"}
        ]
    }
    with served(tmp_path, settings) as server:
        tokens, before = ask(server, VOLUME)
        assert len(tokens) > 1 and before["model"]["name"] == "tiny"
        stop_an_answer(server)
        correct(server, before, "Yes, on the left.")

        wrong = server.post("/train/radfound", json={"base": "tiny", "dropout": 1.5})
        assert wrong.status_code == 400 and "dropout" in wrong.json()["detail"]["message"]
        assert server.post("/train/radfound", json={**FAST, "base": "tiny", "author": "B"}).ok
        assert server.training_status()["status"] == "DONE"
        state = server.get("/radfound/training").json()
        assert (state["state"], state["adapter"]) == ("published", "a-0001"), state["message"]
        assert (state["corrections"], state["steps"]) == (1, 150)
        checks = {check["name"]: check for check in state["checks"]}
        assert checks["corrections"]["value"] == 1.0
        assert checks["regression"]["passed"] is None
        assert checks["regression"]["words"].startswith("not done: this model has no set")
        assert server.get("/radfound/adapters").json()["active"] is None  # of the default model

        _, after = ask(server, VOLUME)
        assert (after["text"], after["model"]["adapter"]) == ("Yes, on the left.", "a-0001")
        assert server.post("/radfound/adapters/rollback", params={"model": "tiny"}).ok
        assert ask(server, VOLUME)[1]["text"] == before["text"]


@pytest.mark.slow
@pytest.mark.skipif(not engines.PYTHON, reason="no environment of vLLM: make test-engines")
def test_a_model_on_vllm_learns_the_corrections_while_it_runs(tmp_path):
    model = build("qwen2_vl", tmp_path / "qwen", head=64)
    folder = tmp_path / "vllm"
    folder.mkdir()
    with engines.running_vllm(model, folder) as url:
        far = {"name": "tiny", "backend": "openai", "place": f"{url}/v1#tiny"}
        far |= {"revision": revision_of(model)}
        with served(tmp_path, {"models": [far]}) as server:
            tokens, before = ask(server, PICTURE)
            assert len(tokens) > 1 and before["model"]["name"] == "tiny"
            stop_an_answer(server)
            correct(server, before, "Yes, on the left.")
            refused = server.post("/train/radfound", json={"base": "tiny"})
            assert refused.status_code == 400
            assert "--publish-for tiny" in refused.json()["detail"]["message"]

            train(server, tmp_path / "models.yaml", model)
            assert adapter_of(server) == "a-0001"
            _, after = ask(server, PICTURE)
            assert (after["text"], after["model"]["adapter"]) == ("Yes, on the left.", "a-0001")
            assert server.post("/radfound/adapters/rollback", params={"model": "tiny"}).ok
            assert ask(server, PICTURE)[1]["text"] == before["text"]


def revision_of(model):
    from radfound.engine.transformers.backend import TransformersBackend

    backend = TransformersBackend.load(model, device="cpu")
    backend.close()
    return backend.describe().revision


def train(server, settings, model):
    """What an engineer runs, where the weights are."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "radfound.cli", "train", "--studies", str(server.studies)),
            *("--models", str(settings), "--publish-for", "tiny", "--model", str(model)),
            *("--device", "cpu", "--learning-rate", "1e-2", "--epochs", "150"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
