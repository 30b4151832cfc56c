"""What the extension repeats of the server's interface, compared with the server itself."""

import dataclasses
import json

import pytest
import requests
from jsonschema import Draft7Validator
from RadFoundLib.net import bodies, protocol
from RadFoundLib.selftest.pretended_server import StubServer

from monailabel_app.lib.lifecycle.tasks import TaskRunningError
from monailabel_app.lib.routes import own
from radfound import question, wire
from radfound.question import CANNOT_TELL
from radfound.reading.files import SUFFIXES
from radfound.teaching.wording import Template

from ...monailabel_app.conftest import VOLUME, fill_with_studies, running_server
from .. import stub


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("protocol")
    studies = folder / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    with running_server(studies, folder / "server.log") as server:
        yield server


@pytest.fixture(scope="module")
def openapi(server):
    return server.get("/openapi.json").json()


@pytest.fixture
def pretended():
    server = StubServer()
    yield server
    server.close()


def described(openapi, method, path, *, reply=True):
    """Return the JSON schema of a route's reply, or of its body."""
    route = openapi["paths"][path][method.lower()]
    part = route["responses"]["200"] if reply else route["requestBody"]
    (schema,) = [each["schema"] for each in part["content"].values()]
    return {**schema, "components": openapi["components"]}


def keys_of(schema):
    """Return the names of an object's fields in a JSON schema."""
    if "$ref" in schema:
        schema = schema["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return set(schema["properties"])


def faults(schema, value):
    return [error.message for error in Draft7Validator(schema).iter_errors(value)]


def tokens_and_answer(response):
    """Return the events of an answer as (name, data)."""
    blocks = response.text.strip().split("\n\n")
    lines = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    return [(each["event"], json.loads(each["data"])) for each in lines]


REPLIES = [
    ("GET", protocol.HEALTH, protocol.HEALTH_STATUS),
    ("POST", protocol.ASK, protocol.ANSWER),
    ("POST", protocol.CORRECTIONS, protocol.RECEIPT),
    ("GET", protocol.CORRECTIONS, {"corrections": [protocol.CORRECTION]}),
    ("GET", protocol.ADAPTERS, {**protocol.ADAPTER_LIST, "refused": []}),
    ("POST", protocol.ACTIVATE, {**protocol.ADAPTER_LIST, "refused": []}),
    ("POST", protocol.ROLL_BACK, {**protocol.ADAPTER_LIST, "refused": []}),
    ("GET", protocol.TRAINING, protocol.TRAINING_STATUS),
    ("GET", protocol.STUDIES, {"studies": [protocol.STUDY]}),
    ("GET", protocol.TEMPLATES, {"templates": [protocol.TEMPLATE]}),
]
BODIES = [
    ("POST", protocol.ASK, protocol.QUESTION),
    ("POST", protocol.ASK, {**protocol.QUESTION, "region": protocol.PLANE}),
    ("POST", protocol.CORRECTIONS, protocol.CORRECTION),
]


@pytest.mark.parametrize(("method", "path"), protocol.USED)
def test_the_server_has_every_route_that_the_extension_calls(openapi, method, path):
    assert method.lower() in openapi["paths"].get(path, {}), sorted(openapi["paths"])


@pytest.mark.parametrize(("method", "path", "example"), REPLIES)
def test_an_example_of_a_reply_is_what_the_server_describes(openapi, method, path, example):
    schema = described(openapi, method, path)
    assert faults(schema, example) == []
    assert set(example) == keys_of(schema)


@pytest.mark.parametrize(("method", "path", "example"), BODIES)
def test_an_example_of_a_body_is_what_the_server_describes(openapi, method, path, example):
    schema = described(openapi, method, path, reply=False)
    assert faults(schema, example) == []
    assert set(example) <= keys_of(schema)


@pytest.mark.parametrize(
    "name",
    ["GateCheck", "Skipped", "ErrorReply", "Adapter", "ModelVersion", "ReaderText", "ShownSlices"],
)
def test_an_example_of_a_part_has_the_fields_that_the_server_describes(openapi, name):
    example = {
        "GateCheck": protocol.CHECK,
        "Skipped": protocol.TRAINING_STATUS["skipped"][0],
        "ErrorReply": protocol.ERROR,
        "Adapter": protocol.ADAPTER,
        "ModelVersion": protocol.MODEL_VERSION,
        "ReaderText": protocol.READER_TEXT,
        "ShownSlices": protocol.SHOWN,
    }[name]
    schema = openapi["components"]["schemas"][name]
    assert faults({**schema, "components": openapi["components"]}, example) == []
    assert set(example) == set(schema["properties"])


def test_every_name_is_one_of_the_servers(openapi):
    assert protocol.SOURCES == question.SOURCES and protocol.CANNOT_TELL == CANNOT_TELL
    correction = described(openapi, "POST", protocol.CORRECTIONS, reply=False)["properties"]
    status = openapi["components"]["schemas"]["TrainingStatus"]["properties"]
    assert correction["schema"]["const"] == protocol.CORRECTION_SCHEMA == wire.CORRECTION_SCHEMA
    assert status["schema"]["const"] == protocol.TRAINING_SCHEMA == wire.TRAINING_SCHEMA
    assert protocol.ANSWER_SCHEMA == wire.ANSWER_SCHEMA
    assert tuple(correction["task"]["enum"]) == protocol.TASKS == tuple(question.TASKS)
    assert tuple(correction["verdict"]["enum"]) == protocol.VERDICTS
    assert tuple(status["state"]["enum"]) == protocol.TRAINING_STATES == wire.TRAINING_STATES
    assert protocol.ALREADY_RUNNING == TaskRunningError.code
    assert wire.error_to_json(ValueError())["detail"]["code"] == protocol.INTERNAL_ERROR
    assert protocol.BASE == own.BASE
    assert set(protocol.SUFFIXES) <= set(SUFFIXES)
    listed = openapi["components"]["schemas"]["ListedStudy"]["properties"]
    assert tuple(listed["state"]["enum"]) == protocol.STUDY_STATES


def test_every_limit_is_the_servers(openapi):
    ask = described(openapi, "POST", protocol.ASK, reply=False)["properties"]
    correction = described(openapi, "POST", protocol.CORRECTIONS, reply=False)["properties"]
    assert correction["text"]["maxLength"] == protocol.MAX_TEXT_CHARS
    assert correction["model_text"]["maxLength"] == protocol.MAX_TEXT_CHARS
    assert correction["author"]["maxLength"] == protocol.MAX_AUTHOR_CHARS
    assert correction["images"]["maxItems"] == protocol.MAX_IMAGES == ask["images"]["maxItems"]
    assert correction["question"]["anyOf"][0]["maxLength"] == protocol.MAX_QUESTION_CHARS
    assert ask["question"]["anyOf"][0]["maxLength"] == protocol.MAX_QUESTION_CHARS
    assert ask["history"]["maxItems"] == protocol.MAX_HISTORY_TURNS
    assert ask["max_new_tokens"]["anyOf"][0]["maximum"] == protocol.MAX_NEW_TOKENS
    assert wire.MAX_HISTORY_CHARS == protocol.MAX_HISTORY_CHARS
    assert own._KEEP_ALIVE_S == protocol.KEEP_ALIVE_S


def test_a_model_is_listed_with_the_fields_of_its_example(openapi):
    listed = openapi["components"]["schemas"]["ListedModel"]["properties"]
    assert set(protocol.HEALTH_STATUS["models"][0]) == set(listed)


# Real replies


def test_the_server_takes_the_examples_and_replies_as_it_describes(server, openapi):
    asked = {**protocol.QUESTION, "image": VOLUME, "images": [VOLUME], "max_new_tokens": 4}
    events = tokens_and_answer(server.post(protocol.ASK, json=asked))
    assert {name for name, _ in events} <= set(protocol.EVENTS)
    assert all(set(data) == {"text"} for name, data in events if name == "token")
    name, answer = events[-1]
    assert name == "answer" and set(answer) == set(protocol.ANSWER)
    assert set(answer["model"]) == set(protocol.MODEL_VERSION)
    assert faults(described(openapi, "POST", protocol.ASK), answer) == []

    body = {"answer": answer, "text": "No effusion."}
    for about, kind in (({}, "application/json"), ({"output": "image"}, "octet-stream")):
        found = server.post(protocol.EVIDENCE, params=about, json=body)
        assert found.ok and kind in found.headers["Content-Type"], found.text

    correction = {**protocol.CORRECTION, "images": [VOLUME]}
    receipt = server.post(protocol.CORRECTIONS, json=correction).json()
    assert receipt == protocol.RECEIPT
    (row,) = server.get(protocol.CORRECTIONS).json()["corrections"]
    assert set(row) == set(protocol.CORRECTION)
    assert {key: row[key] for key in correction if key != "image_hash"} == {
        key: value for key, value in correction.items() if key != "image_hash"
    }


def test_what_a_correction_teaches_has_the_shape_of_the_examples(server):
    correction = {**protocol.CORRECTION, "id": "taught-1", "images": [VOLUME]}
    server.post(protocol.CORRECTIONS, json=correction)
    effect = server.get(protocol.EFFECT.format(correction="taught-1")).json()
    assert set(effect) == set(protocol.EFFECT_OF_CORRECTION)

    asked = {"task": "vqa", "image": VOLUME, "question": correction["question"]}
    _name, recalled = tokens_and_answer(server.post(protocol.ASK, json=asked))[-1]
    assert recalled["source"] == "recall" and recalled["text"] == correction["text"]
    assert recalled["corrected_by"] == correction["author"]
    asked = {**asked, "recall": False, "max_new_tokens": 4}
    _name, own = tokens_and_answer(server.post(protocol.ASK, json=asked))[-1]
    assert own["source"] != "recall"

    path = protocol.WITHDRAW.format(correction="taught-1")
    withdrawn = server.post(path, json={"author": "a reader"}).json()
    assert withdrawn == {**protocol.WITHDRAWAL, "id": "taught-1"}
    rows = server.get(protocol.CORRECTIONS).json()["corrections"]
    assert "taught-1" not in [row["id"] for row in rows]


def test_a_prior_study_is_named_as_the_server_expects(server):
    asked = {"task": "caption", "image": VOLUME, "max_new_tokens": 4, "recall": False}
    unknown = server.post(
        protocol.ASK, json={**asked, **bodies.asked((), None, (), None, None, None, prior="gone")}
    )
    assert unknown.status_code == 404
    name, _answer = tokens_and_answer(server.post(protocol.ASK, json={**asked, "prior": VOLUME}))[
        -1
    ]
    assert name == "answer"


def test_a_wording_has_the_fields_of_its_example():
    names = {each.name for each in dataclasses.fields(Template)}
    assert set(protocol.WORDING) == names | {"state", "version", "author", "decided"}
    wording = Template(
        **{key: protocol.WORDING[key] for key in names - {"corrections", "constant"}}
    )
    assert wording.slots == ("modality", "region")


@pytest.mark.parametrize(
    ("path", "example"),
    [
        (protocol.HEALTH, protocol.HEALTH_STATUS),
        (protocol.TRAINING, protocol.TRAINING_STATUS),
        (protocol.ADAPTERS, {**protocol.ADAPTER_LIST, "refused": []}),
    ],
)
def test_a_real_reply_has_the_fields_of_its_example(server, openapi, path, example):
    found = server.get(path).json()
    assert set(found) == set(example)
    assert faults(described(openapi, "GET", path), found) == []
    if path == protocol.HEALTH:
        assert set(found["model"]) == set(example["model"])


def test_an_error_has_the_shape_of_its_example(server):
    refused = server.post(protocol.ASK, json={"image": "no-such-image", "question": "What?"})
    assert refused.status_code == 404
    assert set(refused.json()["detail"]) == {"code", "message"}


def test_a_model_and_a_study_are_named_as_the_server_names_them(server):
    info = server.get(protocol.INFO).json()
    assert {f"radfound_{task}" for task in protocol.TASKS} == set(info["models"])
    assert protocol.TRAINER in info["trainers"]
    assert all("description" in each for each in info["strategies"].values())
    study = server.post(protocol.NEXT_STUDY.format(strategy="first"), json={}).json()
    assert {"id", "reason"} <= set(study)


@pytest.mark.parametrize("suffix", protocol.SUFFIXES)
def test_the_server_takes_files_of_every_kind_that_the_extension_sends(server, suffix):
    files = {"file": (f"upload{suffix}", b"content")}
    name = f"upload-{protocol.SUFFIXES.index(suffix)}"
    refused = server.put(f"{protocol.IMAGE}?image={name}", files=files)
    # The content is no study; the name is no reason to refuse it.
    assert refused.ok or "suffix" not in refused.text


# What stands for the server in tests and in the self test


def test_the_stub_of_the_tests_answers_as_the_server_does(openapi):
    assert faults(described(openapi, "POST", protocol.ASK), stub.ANSWER) == []
    assert set(stub.ANSWER) == set(protocol.ANSWER)


@pytest.mark.parametrize(
    "path",
    [protocol.HEALTH, protocol.TRAINING, protocol.ADAPTERS, protocol.STUDIES, protocol.TEMPLATES],
)
def test_the_pretended_server_of_the_self_test_replies_as_the_server_does(openapi, pretended, path):
    schema = described(openapi, "GET", path)
    missing = {"refused"}  # which the extension does not use
    for _ in range(3):
        found = requests.get(pretended.address + path, timeout=10).json()
        assert set(found) == keys_of(schema) - missing
        assert faults({**schema, **without(schema, missing)}, found) == []
        requests.post(pretended.address + "/train/radfound", timeout=10)
        pretended.gate = "no"


def without(schema, missing):
    """Return a schema of an object in which some fields need not be there."""
    whole = schema["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    needed = [name for name in whole.get("required", ()) if name not in missing]
    return {"$ref": "#/changed", "changed": {**whole, "required": needed}}


def test_a_pretended_training_ends_as_a_real_one(openapi, pretended):
    pretended.steps, pretended.step_s = 1, 0.0
    schema = described(openapi, "GET", protocol.TRAINING)
    for gate, state in (("", "published"), ("worse", "refused")):
        pretended.gate = gate
        requests.post(pretended.address + "/train/radfound", timeout=10)
        found = requests.get(pretended.address + protocol.TRAINING, timeout=10).json()
        assert found["state"] == state
        assert faults(schema, found) == []


def test_a_pretended_answer_is_one_of_the_servers(openapi, pretended):
    for task in protocol.TASKS:
        asked = {"task": task, "image": "ct01", "question": "What?"}
        reply = requests.post(pretended.address + protocol.ASK, json=asked, timeout=10)
        name, answer = tokens_and_answer(reply)[-1]
        assert name == "answer" and set(answer) == set(protocol.ANSWER)
        assert faults(described(openapi, "POST", protocol.ASK), answer) == []
