"""MONAI Label's own client, unmodified, against a running server."""

import json
import time

import pytest
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from ..conftest import CT, PICTURE, QUICK_TRAINING, SERIES, VOLUME


def ask(client, model, image, params, **source):
    """Call `infer`; where there is no result image, this client hands back the JSON unread."""
    file, answer = client.infer(model, image, params, **source)
    assert file is None
    return json.loads(answer)


def test_it_lists_models_trainer_and_strategies(client):
    info = client.info()
    assert set(info["models"]) == {"radfound_vqa", "radfound_caption", "radfound_report"}
    assert set(info["trainers"]) == {"radfound"}
    assert {"random", "first"} <= set(info["strategies"])


def test_it_lists_files_and_dicom_folders_as_images(client):
    assert {VOLUME, CT, SERIES, PICTURE} <= set(client.datastore()["objects"])


@pytest.mark.parametrize("image", [VOLUME, CT, SERIES, PICTURE])
def test_it_asks_a_question_about_every_kind_of_image(client, image):
    answer = ask(client, "radfound_vqa", image, {"question": "What is shown?"})
    assert answer["schema"] == "radfound.answer/1"
    assert answer["images"] == [image]
    assert answer["question"] == "What is shown?"
    assert answer["model"]["name"] == "radfound-tiny"
    assert answer["confidence"] is None  # nobody has calibrated this model
    assert 0 <= answer["uncertainty"] <= 1
    assert {"read", "encode", "first_token", "total"} <= set(answer["timings_ms"])


def test_it_gets_captions_and_reports(client):
    caption = ask(client, "radfound_caption", CT, {})
    report = ask(client, "radfound_report", CT, {"max_new_tokens": 8})
    assert (caption["task"], report["task"]) == ("caption", "report")
    assert caption["sections"] is None
    assert report["sections"] is None or set(report["sections"]) == {"findings", "impression"}


def test_it_asks_about_an_uploaded_file_and_an_uploaded_session(client, server):
    path = str(server.studies / f"{CT}.dcm")
    by_id = ask(client, "radfound_caption", CT, {})
    by_file = ask(client, "radfound_caption", "", {}, file=path)
    session = client.create_session(path)["session_id"]
    by_session = ask(client, "radfound_caption", "", {}, session_id=session)
    assert by_id["text"] == by_file["text"] == by_session["text"]
    assert by_session["images"] == [session]


def test_it_uploads_an_image_and_asks_about_it(client, server):
    client.upload_image(str(server.studies / f"{PICTURE}.png"), "uploaded")
    answer = ask(client, "radfound_caption", "uploaded", {})
    assert answer["images"] == ["uploaded"]


def test_it_may_send_an_image_twice_but_not_another_under_the_same_id(client, server, tmp_path):
    path = server.studies / f"{CT}.dcm"
    for _ in range(2):
        assert client.upload_image(str(path), "sent twice") == {"image": "sent twice"}
    other = tmp_path / "other.png"
    other.write_bytes((server.studies / f"{PICTURE}.png").read_bytes())
    original = contents(server.studies)
    for image in ("sent twice", CT, SERIES):
        with pytest.raises(MONAILabelClientException) as refused:
            client.upload_image(str(other), image)
        assert "image_exists" in refused.value.msg and "another name" in refused.value.msg
    for image in (CT, SERIES):
        refused = server.delete("/datastore/", params={"id": image})
        assert refused.status_code == 403
        assert refused.json()["detail"]["code"] == "original_protected"
    assert original.items() <= contents(server.studies).items()
    assert server.delete("/datastore/", params={"id": "sent twice"}).ok
    assert "sent twice" not in client.datastore()["objects"]


def contents(folder):
    index = folder / "datastore_v2.json"
    own = folder / ".radfound"
    files = (each for each in folder.rglob("*") if each.is_file() and each != index)
    return {each: each.read_bytes() for each in files if own not in each.parents}


def test_an_upload_is_named_after_its_file_unless_told_otherwise(server):
    content = (server.studies / f"{CT}.dcm").read_bytes()
    reply = server.put("/datastore/image", files={"file": ("1.2.840.9.dcm", content)})
    assert reply.json() == {"image": "1.2.840.9"}
    assert server.ask("1.2.840.9").ok


@pytest.mark.parametrize("strategy", ["random", "first", "uncertainty", "diversity", "hybrid"])
def test_it_gets_the_next_sample_and_why(client, strategy):
    assert strategy in client.info()["strategies"]
    for _ in range(3):
        sample = client.next_sample(strategy, {})
        assert sample["id"] in client.datastore()["objects"]
        assert sample["reason"]


def test_two_of_them_get_different_samples(server, tmp_path):
    clients = [
        MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id=f"reader {n}") for n in (1, 2)
    ]
    for n in (1, 2):  # of the others, tests before may have left fewer than two
        clients[0].upload_image(str(server.studies / f"{PICTURE}.png"), f"not chosen yet {n}")
    assert len({each.next_sample("first", {})["id"] for each in clients}) == 2


def test_it_has_studies_scored_and_gets_the_least_certain(client, server):
    task = server.post("/scoring/radfound", json={"questions": ["Is this study normal?"]}).json()
    assert task["status"] in ("SUBMITTED", "RUNNING")
    deadline = time.monotonic() + 300
    while server.get("/scoring/").json()["status"] in ("SUBMITTED", "RUNNING"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert server.get("/scoring/").json()["status"] == "DONE"
    assert "the model is least sure here" in client.next_sample("uncertainty", {})["reason"]


def test_it_saves_a_correction_trains_and_gets_the_corrected_answer(
    client, server, correction, tmp_path
):
    question = "Which organ is shown?"
    asked = {"question": question, "model_only": True}  # the model itself, not the correction
    label = tmp_path / "corrections.json"
    label.write_text(json.dumps([correction(question=question, text="the liver")]))
    assert client.save_label(VOLUME, str(label), "final")["image"] == VOLUME

    recalled = ask(client, "radfound_vqa", VOLUME, {"question": question})
    assert (recalled["text"], recalled["source"]) == ("the liver", "recall")
    before = ask(client, "radfound_vqa", VOLUME, asked)
    assert before["text"] != "the liver"

    task = client.train_start("radfound", QUICK_TRAINING)
    assert task["status"] in ("SUBMITTED", "RUNNING")
    deadline = time.monotonic() + 300
    while client.train_status(check_if_running=True) or not client.train_status().get("end_ts"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    status = client.train_status()
    assert status["status"] == "DONE", status["details"]
    assert any(" step " in line for line in status["details"])
    stats = client.info()["train_stats"]["radfound"]
    assert stats["published"], stats

    after = ask(client, "radfound_vqa", VOLUME, asked)
    assert after["text"] == "the liver"
    assert after["model"]["adapter"] == stats["adapter"]

    server.post("/radfound/adapters/base/activate")
    again = ask(client, "radfound_vqa", VOLUME, asked)
    assert (again["text"], again["model"]["adapter"]) == (before["text"], None)


def test_it_is_told_what_was_wrong(client):
    with pytest.raises(MONAILabelClientException) as raised:
        client.infer("radfound_vqa", "no-such-image", {"question": "What?"})
    assert "Status: 404" in raised.value.msg and "not in the datastore" in raised.value.msg
