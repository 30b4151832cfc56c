"""The client against the project's real server, on each of Slicer's Pythons."""

import hashlib
import io
import json
import threading
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from RadFoundLib.net.cancellation import Cancellation
from RadFoundLib.net.client import Client, ClientError, image_id
from RadFoundLib.session.outbox import Outbox, new_correction

from ..monailabel_app.conftest import (
    CT,
    PICTURE,
    QUICK_TRAINING,
    SERIES,
    VOLUME,
    fill_with_studies,
    running_server,
)
from .a_reader import TRUTH
from .pythons import VERSIONS, python, run_module


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    studies = folder / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    with running_server(studies, folder / "server.log") as server:
        yield server


@pytest.fixture
def client(server):
    return Client(server.url)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A volume as Slicer would send it: larger than one piece of an upload."""
    voxels = np.random.default_rng(1).integers(0, 200, (96, 80, 40)).astype(np.int16)
    path = tmp_path_factory.mktemp("volume") / "volume.nii"
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2, 3, 1])), path)
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_a_reader_connects_uploads_asks_stops_corrects_trains_and_goes_back(
    server, volume, tmp_path, version
):
    settings = json.dumps(QUICK_TRAINING)
    program = ("a_reader", server.url, str(volume), str(tmp_path), settings)
    found = json.loads(run_module(python(version), *program))
    assert found["python"] == version

    assert found["info"]["checkpoint"] == "radfound-tiny"
    assert "radfound_vqa" in found["info"]["models"]
    assert set(found["info"]["strategies"]) >= {"random", "first"}

    size = volume.stat().st_size
    assert (found["had"], found["has"]) == (False, True)
    assert found["image"] == found["again"]
    assert len(found["progress"]) > 1
    assert found["progress"][-1] == [size, size]

    before = found["before"]
    assert "".join(before["heard"]).strip() == before["answer"]["text"]
    assert before["answer"]["images"] == [found["image"]]
    assert before["answer"]["model"]["adapter"] is None
    assert (found["stopped"]["kind"], found["stopped early"]) == ("cancelled", "cancelled")
    assert found["stopped"]["seconds"] < 20
    # What had already arrived together with the first token may still be heard.
    assert 1 <= len(found["stopped"]["heard"]) < 512
    assert found["slice"]["task"] == "vqa"
    assert found["caption"]["task"] == "caption"
    assert found["is NRRD"]

    assert (found["flushed"], found["waiting"]) == (True, 0)
    assert found["corrections"] == [found["correction"]]

    training = found["training"]
    assert training["last"]["state"] == "published", training
    assert "running" in training["states"]
    adapter = found["adapters"]["active"]
    assert adapter == training["last"]["adapter"] is not None
    assert found["after"]["answer"]["model"]["adapter"] == adapter
    assert found["after"]["answer"]["text"] == TRUTH
    assert found["base"] is None
    on_base = found["on base"]["answer"]
    assert (on_base["text"], on_base["source"]) == (TRUTH, "recall")  # with any adapter
    assert found["rolled back"] == adapter


def uploaded(server, name):
    return server.studies / ".radfound" / "uploads" / name


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_what_arrives_is_what_was_sent(client, server, volume):
    content = volume.read_bytes()
    image = client.upload(io.BytesIO(content), volume.name, sha256(content))
    assert uploaded(server, f"{image}.nii").read_bytes() == content


def test_an_upload_that_was_stopped_leaves_nothing_and_can_be_repeated(client, server):
    cancel = Cancellation()
    noise = np.random.default_rng(2).integers(-1000, 1000, (128, 128, 128), np.int16)
    content = nibabel.Nifti1Image(noise, np.eye(4)).to_bytes()
    files = sorted(path.name for path in server.studies.iterdir())

    def stop_halfway(done, total):
        if done > total / 2:
            cancel.set()

    with pytest.raises(ClientError) as caught:
        client.upload(io.BytesIO(content), "volume.nii", sha256(content), stop_halfway, cancel)
    assert caught.value.kind == "cancelled"
    time.sleep(0.3)
    assert sorted(path.name for path in server.studies.iterdir()) == files
    assert client.upload(io.BytesIO(content), "volume.nii", sha256(content))


def test_what_the_server_finds_wrong_is_said_in_its_words(client):
    with pytest.raises(ClientError) as caught:
        client.ask("vqa", ["no-such-image"], "What?")
    assert caught.value.kind == "request"
    assert "no-such-image" in caught.value.message


def test_several_volumes_are_views_of_one_study(client):
    assert client.ask("vqa", [CT, PICTURE], "What is shown?")["images"] == [CT, PICTURE]


def test_the_next_study_is_named_with_its_reason_and_can_be_fetched(client, server, tmp_path):
    study = client.next_study("first")
    assert study["reason"]
    path = client.download(VOLUME, str(tmp_path))
    assert path.endswith(".nii.gz")
    with open(path, "rb") as file:
        assert file.read() == (server.studies / f"{VOLUME}.nii.gz").read_bytes()


def test_a_series_on_the_server_is_fetched_as_its_files(client, server, tmp_path):
    first = Path(client.download(SERIES, str(tmp_path)))
    fetched = {file.name: file.read_bytes() for file in first.parent.iterdir()}
    assert fetched == {file.name: file.read_bytes() for file in (server.studies / SERIES).iterdir()}


def test_a_correction_of_a_volume_that_was_removed_waits_until_it_is_there_again(
    client, volume, tmp_path
):
    content = volume.read_bytes() + b"\1"
    content_hash = hashlib.sha256(content).hexdigest()
    answer = {**client.ask("vqa", [VOLUME], "What?"), "images": [image_id(content_hash)]}
    outbox = Outbox(str(tmp_path))
    row = new_correction(answer, "edited", "a reader", "nothing")
    outbox.add(row, client.address)
    assert "not in the datastore" in outbox.flush(client).refused[0].refusal
    client.upload(io.BytesIO(content), "volume.nii", content_hash)
    assert outbox.flush(client, again=True).sent == (row["id"],)


def test_a_training_that_runs_is_told_about_and_can_be_stopped(client, correction_of):
    correction_of("What is this?", "noise")
    client.train({**QUICK_TRAINING, "max_steps": 100_000})
    with pytest.raises(ClientError) as caught:
        client.train()
    assert "already" in caught.value.message
    assert client.training_status().state == "running"
    client.stop_training()
    deadline = time.monotonic() + 30
    while not client.training_status().is_over and time.monotonic() < deadline:
        time.sleep(0.1)
    assert client.training_status().state == "stopped"
    client.stop_training()


@pytest.fixture
def correction_of(client):
    def correct(question, text):
        answer = client.ask("vqa", [VOLUME], question)
        assert client.send_correction(new_correction(answer, "edited", "a reader", text))

    return correct


def test_a_server_that_vanishes_in_the_middle_of_an_answer_is_noticed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vanishing")
    studies = folder / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    heard = []
    with running_server(studies, folder / "server.log") as server:
        client = Client(server.url)

        def on_token(text):
            if not heard:
                threading.Thread(target=server.process.kill).start()
            heard.append(text)

        with pytest.raises(ClientError) as caught:
            client.ask("report", [VOLUME], max_new_tokens=512, on_token=on_token)
    assert heard
    assert caught.value.kind in ("protocol", "unreachable")
    with pytest.raises(ClientError) as caught:
        client.health()
    assert caught.value.message.endswith("is the server running?")
