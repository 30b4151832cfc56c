"""What a caller can reach, and what the server tells of it."""

import io
import json
import os
import tarfile
import time

import pytest

from ..conftest import CT, VOLUME, fill_with_studies, running_server


def detail(response):
    assert 400 <= response.status_code < 500, response.text
    found = response.json()["detail"]
    assert set(found) == {"code", "message"}
    return found["message"]


@pytest.mark.parametrize(
    "image",
    [
        "/etc/passwd",
        "../../../../etc/passwd",
        "file:///etc/passwd",
        f"./{VOLUME}.nii.gz",
        f"{VOLUME}.nii.gz",
        "labels",
        ".radfound",
        ".",
        "\x00",
        "x" * 5000,
    ],
)
def test_an_image_is_named_by_its_id_and_never_by_a_path(server, image):
    assert server.ask(image).status_code == 404
    assert server.ask(VOLUME, images=[VOLUME, image]).status_code == 404
    response = server.post("/radfound/ask", json={"image": image, "question": "What?"})
    assert response.status_code == 404


def test_the_full_path_of_a_study_is_no_id_either(server):
    assert server.ask(str(server.studies / f"{CT}.dcm")).status_code == 404


@pytest.mark.parametrize("key", ["image", "model"])
def test_params_cannot_replace_image_or_model(server, key):
    params = json.dumps({"question": "What?", key: "/etc/passwd"})
    message = detail(server.post(f"/infer/radfound_vqa?image={VOLUME}", data={"params": params}))
    assert message.startswith(key)


@pytest.mark.parametrize(
    ("path", "params", "named"),
    [
        ("/infer/radfound_vqa", '{"question": "What?"}', "image"),
        ("/infer/no_such_model?image=volume", '{"question": "What?"}', "model"),
        ("/infer/radfound_vqa?image=volume", '{"question": ', "params"),
        ("/infer/radfound_vqa?image=volume", '["question"]', "params"),
        ("/infer/radfound_vqa?image=volume", "[" * 100_000, "params"),
        ("/infer/radfound_vqa?image=volume", "{}", "question"),
        ("/infer/radfound_vqa?image=volume", '{"question": 7}', "question"),
        ("/infer/radfound_vqa?image=volume&output=dicom_seg", '{"question": "What?"}', "output"),
        ("/infer/radfound_vqa?image=volume&output=sound", '{"question": "What?"}', "output"),
        ("/infer/radfound_vqa?session_id=none", '{"question": "What?"}', "session_id"),
        ("/infer/radfound_vqa?session_id=../../etc", '{"question": "What?"}', "session_id"),
        ("/infer/radfound_caption?image=volume", '{"series": 7}', "series"),
        ("/infer/radfound_caption?image=volume", '{"volume": "x"}', "volume"),
    ],
)
def test_a_callers_mistake_is_named_and_is_not_the_servers(server, path, params, named):
    assert named in detail(server.post(path, data={"params": params}))


def test_an_upload_that_is_no_image_is_refused_by_its_name(server):
    upload = {"file": ("../../notes.nii.gz", b"not an image")}
    message = detail(server.post("/infer/radfound_caption", files=upload))
    assert message.startswith("notes.nii.gz")


@pytest.mark.parametrize("name", ["..", "a/..", "x" * 300])
def test_an_upload_with_a_name_that_no_file_may_have_is_refused(server, name):
    upload = {"file": (name, b"x")}
    assert detail(server.post("/infer/radfound_caption", files=upload)).startswith("file")
    assert detail(server.put("/datastore/", files=upload)).startswith("file")


@pytest.mark.parametrize("image", ["../outside", "/outside", ".hidden", "a/b"])
def test_an_upload_cannot_leave_the_folder(server, image):
    content = (server.studies / f"{CT}.dcm").read_bytes()
    response = server.put(
        "/datastore/", params={"image": image}, files={"file": ("x.dcm", content)}
    )
    assert detail(response).startswith("image")


@pytest.mark.parametrize("tag", ["../../outside", "/outside", "a b", ""])
def test_a_label_cannot_leave_the_folder(server, tag):
    before = sorted(path.name for path in server.studies.parent.iterdir())
    response = server.put(
        "/datastore/label", params={"image": CT, "tag": tag}, files={"label": ("x.nrrd", b"x")}
    )
    assert response.ok if tag == "" else detail(response).startswith("tag")
    assert sorted(path.name for path in server.studies.parent.iterdir()) == before


def test_an_uploaded_archive_is_not_unpacked_outside(server):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("../../../escaped.txt")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    response = server.put(
        "/session/?uncompress=true", files={"files": ("a.tar", archive.getvalue())}
    )
    assert response.status_code == 415
    assert not list(server.studies.parent.parent.rglob("escaped.txt"))


@pytest.mark.parametrize(
    ("method", "path", "kwargs"),
    [
        ("put", "/datastore/label?image=none", {"files": {"label": ("a.json", "{}")}}),
        ("put", "/datastore/label?image=ct", {"files": {"label": ("a.json", "[")}}),
        ("put", "/datastore/label?image=ct", {"files": {"label": ("a.json", "[]")}}),
        ("put", "/datastore/label?image=ct", {"files": {"label": ("a.nrrd", "x")}, "data": {"params": "[1]"}}),
        ("put", "/datastore/image/info?image=none", {"data": {"info": "{}"}}),
        ("put", "/datastore/image/info?image=ct", {"data": {"info": "[1]"}}),
        ("put", "/datastore/?image=x", {"files": {"file": ("x.exe", b"x")}}),
        ("get", "/datastore/image?image=/etc/passwd", {}),
        ("get", "/session/..%2f..", {}),
        ("post", "/activelearning/no_such_strategy", {"json": {}}),
        ("post", "/radfound/ask", {"data": "{"}),
        ("post", "/radfound/corrections", {"data": "{"}),
        ("post", "/batch/infer/no_such_model", {"json": {}}),
        ("post", "/batch/infer/radfound_vqa", {"json": {}}),
        ("post", "/infer/wsi_v2/radfound_vqa?image=/etc/passwd", {}),
        ("get", "/proxy/dicom/qido/studies", {}),
    ],
)  # fmt: skip
def test_nothing_a_caller_sends_is_answered_with_a_server_error(server, method, path, kwargs):
    response = getattr(server, method)(path, **kwargs)
    assert 400 <= response.status_code < 500, response.text


def test_training_takes_settings_and_nothing_else(server, correction):
    server.post("/radfound/corrections", json=correction())
    asked = {"max_steps": 1, "bundle_path": "/tmp", "gpus": "7", "model": "other"}
    request = server.post("/train/radfound", json=asked).json()["request"]
    server.training_status()
    assert "bundle_path" not in request
    # MONAI Label fills in `gpus` beside the reply, which may come first.
    assert (request["model"], request.get("gpus", "all")) == ("radfound", "all")


def test_logs_hold_no_question_answer_correction_or_client(server, correction):
    secret = "Has Mrs Secretname a fracture"
    answer = server.ask(VOLUME, secret, client_id=secret).json()
    assert answer["question"] == secret
    row = correction(question=secret, text=secret, author=secret)
    server.post("/radfound/corrections", json=row)
    server.post("/radfound/corrections", json={**row, "verdict": secret})
    file = {"label": ("corrections.json", json.dumps(correction(question=secret)))}
    assert server.put(f"/datastore/label?image={VOLUME}", files=file).ok
    assert server.post(
        "/batch/infer/radfound_vqa", json={"question": secret, "max_batch_size": 1}
    ).ok
    while server.get("/batch/infer").json()["status"] in ("SUBMITTED", "RUNNING"):
        time.sleep(0.2)
    assert "Secretname" not in server.log.read_text()


def test_stopping_the_server_stops_its_training(tmp_path, correction):
    studies = tmp_path / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    with running_server(studies, tmp_path / "server.log") as server:
        # Contradicting corrections are never learnt, so the run lasts.
        for text in ("left", "right"):
            row = correction(images=[VOLUME, CT][: 1 + (text == "right")], text=text)
            server.post("/radfound/corrections", json=row)
        server.post("/train/radfound", json={"max_steps": 100_000, "learning_rate": 1e-9})
        while server.get("/radfound/training").json()["step"] < 5:
            assert server.get("/train/").json()["status"] in ("SUBMITTED", "RUNNING")
            time.sleep(0.2)
        children = children_of(server.process.pid)
        assert children
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert not [pid for pid in children if is_running(pid)]


def children_of(pid):
    return [int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()] + [
        int(child)
        for thread in os.listdir(f"/proc/{pid}/task")
        if thread != str(pid)
        for child in open(f"/proc/{pid}/task/{thread}/children").read().split()
    ]


def is_running(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
