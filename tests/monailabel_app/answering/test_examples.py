"""Worked examples before a model's questions, at a real server: off until they were measured to win."""

import json

import numpy as np
import pytest
from PIL import Image

from ...radfound.engine.openai.scripted import Scripted, serving
from ..conftest import running_server
from .test_taught import correct

QUESTION = "Is this a PA or an AP film?"


@pytest.fixture(scope="module")
def far():
    with serving(Scripted()) as server:
        yield server


@pytest.fixture(scope="module")
def server(far, tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    studies = folder / "studies"
    studies.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32)).astype(np.uint8)
        Image.fromarray(pixels).save(studies / f"film{number}.png")
    settings = folder / "models.yaml"
    settings.write_text(
        f"default: far\nmodels:\n  - {{name: far, backend: openai, place: '{far.url}#m', recipe: plain}}\n"
    )
    conf = ("--conf", "models", str(settings))
    with running_server(studies, folder / "server.log", *conf, model=None) as server:
        yield server


def last_prompt(far):
    return json.dumps([each for each in far.requests if each.get("stream")][-1]["messages"])


def measured(server, answer, low):
    content = {
        "schema": "radfound.examples/1", "revision": answer["model"]["revision"], "count": 2, "corrections": 40,
        "patients": 40, "without": 0.5, "shown": 0.7, "low": low, "high": 0.3,
    }  # fmt: skip
    (server.studies / ".radfound" / "examples.json").write_text(json.dumps(content))


def test_examples_are_shown_once_they_win_and_not_after_a_withdrawal(server, far):
    first = server.ask("film0", QUESTION).json()
    correct(server, first, "PA", "Dr A", "example-1")
    assert server.ask("film1", QUESTION).ok
    assert "ANSWER" not in last_prompt(far)

    measured(server, first, low=-0.1)
    assert server.ask("film1", QUESTION).ok
    assert "ANSWER" not in last_prompt(far)

    measured(server, first, low=0.1)
    answer = server.ask("film1", QUESTION).json()
    assert f"QUESTION: {QUESTION}\\nANSWER: PA" in last_prompt(far)
    assert last_prompt(far).count("data:image/png") == 2
    assert answer["shown"]["note"].startswith("with 1 worked example: PA (Dr A, ")
    shown = server.get(f"/radfound/shown/{answer['id']}").json()
    assert shown["note"] == answer["shown"]["note"]
    assert sum(isinstance(part, dict) for part in shown["parts"]) == 2

    assert server.ask("film1", QUESTION, model_only=True).ok
    assert "ANSWER" not in last_prompt(far)

    assert server.post("/radfound/corrections/example-1/withdraw", json={"author": "Dr A"}).ok
    assert server.ask("film2", QUESTION).ok
    assert "ANSWER" not in last_prompt(far)
