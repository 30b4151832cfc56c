"""Several models behind one server: radfound-tiny, and one behind a server of the chat-completions protocol."""

import json
import os

import pytest

from ...radfound.engine.openai.scripted import Scripted, serving
from ..conftest import CT, VOLUME, fill_with_studies, running_server

SETTINGS = """
default: radfound-tiny
models:
  - {name: radfound-tiny, backend: radfound, place: radfound-tiny}
  - name: far
    backend: openai
    place: URL#m
    recipe: plain
    key: {env: FAR_KEY}
"""


@pytest.fixture(scope="module")
def far():
    with serving(Scripted()) as server:
        yield server


@pytest.fixture(scope="module")
def server(far, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    studies = folder / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    settings = folder / "models.yaml"
    settings.write_text(SETTINGS.replace("URL", far.url))
    conf = ("--conf", "models", str(settings))
    with running_server(
        studies, folder / "server.log", *conf, variables={"FAR_KEY": "a-secret-key"}, model=None
    ) as server:
        yield server


def events(reply):
    found = []
    assert reply.ok, reply.text
    for part in reply.text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in part.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def ask(server, **body):
    return server.post("/radfound/ask", json={"task": "vqa", "question": "Any effusion?", **body})


def test_the_server_lists_its_models_and_loads_none_of_them(server):
    models = server.get("/radfound/health").json()["models"]
    assert [(each["name"], each["backend"]) for each in models] == [
        ("radfound-tiny", "radfound"), ("far", "openai"), ("radfound-mini", "radfound"),
    ]  # fmt: skip
    config = server.get("/info/").json()["models"]["radfound_vqa"]["config"]
    assert config["models"] == ["radfound-tiny", "far", "radfound-mini"]


def test_a_request_chooses_its_model(server):
    name, answer = events(ask(server, image=VOLUME, model="far"))[-1]
    assert (name, answer["text"]) == ("answer", "No effusion is seen.")
    assert answer["model"]["name"] == "far"
    assert answer["shown"]["recipe"] == "plain" and answer["shown"]["slices"]
    assert server.ask(VOLUME).json()["model"]["name"] == "radfound-tiny"
    stock = server.post(
        f"/infer/radfound_vqa?image={VOLUME}",
        data={"params": json.dumps({"question": "Any?", "model": "far"})},
    ).json()
    assert stock["model"]["name"] == "far"


def test_a_reader_can_look_at_what_the_model_was_shown(server):
    answer = events(ask(server, image=CT, model="far"))[-1][1]
    shown = server.get(f"/radfound/shown/{answer['id']}").json()
    pictures = [part for part in shown["parts"] if isinstance(part, dict)]
    assert [each["caption"] for each in pictures] == answer["shown"]["slices"]
    picture = server.get(f"/radfound/shown/{answer['id']}/0")
    assert picture.headers["Content-Type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")
    assert server.get(f"/radfound/shown/{answer['id']}/99").status_code == 404
    assert server.get("/radfound/shown/unknown").status_code == 404


def test_several_models_give_opinions_and_a_correction_names_one(server):
    found = events(ask(server, image=VOLUME, models=["radfound-tiny", "far"]))
    answers = {data["model"]["name"]: data for name, data in found if name == "answer"}
    assert set(answers) == {"radfound-tiny", "far"}
    assert {data["model"] for name, data in found if name == "token"} == set(answers)
    assert found[-1][0] == "opinions" and found[-1][1]["agree"] in (True, False)
    answer = answers["far"]
    correction = {
        "schema": "radfound.correction/1", "id": "second", "answer_id": answer["id"],
        "images": answer["images"], "task": "vqa", "question": answer["question"],
        "model_text": answer["text"], "verdict": "accepted", "author": "Dr A", "model": answer["model"],
    }  # fmt: skip
    assert server.post("/radfound/corrections", json=correction).ok
    again = events(ask(server, image=VOLUME, models=["radfound-tiny", "far"]))
    opinions = [data for name, data in again if name == "answer"]
    assert {each["source"] for each in opinions} == {"model"}  # not the reader's text, twice


def test_a_model_that_fails_does_not_stop_the_other(server, far):
    async def dies(body):
        raise RuntimeError("the engine has died")

    far.script = dies
    try:
        # a question without a correction, which would answer for the model
        asked = {"question": "Is there a mass?", "models": ["far", "radfound-tiny"]}
        found = events(ask(server, image=VOLUME, **asked))
    finally:
        far.script = None
    [problem] = [data for name, data in found if name == "error"]
    assert (problem["model"], problem["code"]) == ("far", "model_server_failed")
    assert [data["model"]["name"] for name, data in found if name == "answer"] == ["radfound-tiny"]


@pytest.mark.parametrize("name", ["far ", "fer", "openai:http://10.1.1.1/v1#m"])
def test_an_unknown_model_is_refused_with_the_names(server, name):
    reply = ask(server, image=VOLUME, model=name)
    assert reply.status_code == 400
    assert "radfound-tiny" in reply.json()["detail"]["message"]


def test_each_model_has_adapters_of_its_own(server):
    assert server.get("/radfound/adapters", params={"model": "far"}).json()["active"] is None
    assert server.get("/radfound/adapters", params={"model": "fer"}).status_code == 400


def test_a_training_names_a_model_that_this_server_can_train(server):
    for base, words in (
        ("far", "radfound train --studies DIR --models FILE --publish-for far --model FOLDER"),
        ("fer", "did you mean far?"),
        (7, "base: expected the name of a model"),
    ):
        reply = server.post("/train/radfound", json={"base": base})
        assert reply.status_code == 400
        assert words in reply.json()["detail"]["message"]
    config = server.get("/info/").json()["trainers"]["radfound"]["config"]
    assert config["base"] == "radfound-tiny" and config["max_steps"] == 200


def test_keys_and_questions_are_not_in_the_log(server):
    ask(server, image=VOLUME, model="far", question="Is this a secret question?")
    log = server.log.read_text()
    assert "a-secret-key" not in log and "secret question" not in log
    assert os.environ.get("FAR_KEY") is None
