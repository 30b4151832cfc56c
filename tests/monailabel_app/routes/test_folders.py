"""No reply tells where things lie on the server's disk."""

import io
import re
import sys
import time
import zipfile

import pytest

from monailabel_app.lib.routes.folders import Folders

from ..conftest import CT, PICTURE, ROOT, SERIES, VOLUME


@pytest.fixture(scope="module")
def used(server):
    """A server with a label, a session, and tasks that have run."""
    content = (server.studies / f"{VOLUME}.nii.gz").read_bytes()
    assert server.put(f"/datastore/label?image={VOLUME}", files={"label": ("a.nii.gz", content)}).ok
    server.post("/train/radfound", json={"max_steps": 1})
    server.training_status()
    return server


def told(reply):
    """Everything that a reply tells, also inside a zip."""
    text = f"{reply.headers} {reply.text}"
    if reply.headers.get("Content-Type") == "application/zip":
        archive = zipfile.ZipFile(io.BytesIO(reply.content))
        text = " ".join(
            [*archive.namelist(), *(archive.read(n).decode("latin-1") for n in archive.namelist())]
        )
    return text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/info/"), ("get", "/datastore/"), ("get", "/datastore/?output=all"),
        ("get", "/datastore/?output=train"), ("get", f"/datastore/image/info?image={VOLUME}"),
        ("get", f"/datastore/image/info?image={SERIES}"), ("get", f"/datastore/label/info?label={VOLUME}&tag=final"),
        ("get", "/datastore/dataset"), ("get", f"/datastore/image?image={SERIES}"), ("get", "/datastore/image?image=no"),
        ("get", "/train/"), ("get", "/train/?all=true"), ("get", "/logs/?lines=10000"), ("get", "/openapi.json"),
        ("get", "/radfound/health"), ("get", "/radfound/adapters"), ("get", "/radfound/metrics"),
        ("get", "/model/info/radfound_vqa"), ("get", "/session/no"), ("post", "/activelearning/first"),
        ("post", f"/infer/radfound_caption?image={CT}"), ("post", "/infer/radfound_caption?image=no"), ("get", "/"),
    ],
)  # fmt: skip
def test_a_reply_names_no_folder(used, method, path):
    text = told(getattr(used, method)(path))
    for folder in (used.studies, used.log.parent, ROOT, sys.prefix):
        assert str(folder) not in text
    assert not re.search(r'"(image|label|path)":"/', text)


def test_a_session_tells_its_id_and_the_name_of_its_file(used):
    content = (used.studies / f"{CT}.dcm").read_bytes()
    made = used.put("/session/", files={"files": ("ct.dcm", content)}).json()
    address = f"/session/{made['session_id']}"
    assert made["session_info"]["image"] == "ct.dcm"
    assert used.get(address).json()["image"] == "ct.dcm"
    assert used.get(f"{address}?image=true").content == content
    assert used.delete(address).json()["path"] == made["session_id"]


def test_what_is_linked_is_named_by_its_link_or_file_alone(used, tmp_path):
    outside = tmp_path / "archive" / "linked.png"
    outside.parent.mkdir()
    outside.write_bytes((used.studies / f"{PICTURE}.png").read_bytes())
    (used.studies / "linked.png").symlink_to(outside)
    try:
        deadline = time.monotonic() + 30
        while "linked" not in used.get("/datastore/?output=all").json()["objects"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)  # the folder is listed at most once a second
        assert used.get("/datastore/image/info?image=linked").json()["path"] == "linked.png"
    finally:
        (used.studies / "linked.png").unlink()


def test_folders_are_hidden_where_they_end_and_nowhere_else():
    folders = Folders({"studies": "/srv/ct", "app": "/srv/ct/app"})
    for text, hidden in [
        ("studies: /srv/ct; conf", "studies: <studies>; conf"),
        ("/srv/ct/app/main.py, /srv/ct/a b.nii", "<app>/main.py, <studies>/a b.nii"),
        ("/srv/ct2 /x/srv/ct /srv/ct-old", "/srv/ct2 /x/srv/ct /srv/ct-old"),
    ]:
        assert folders.hidden(text) == hidden
    found = folders.hidden_in(
        {"path": "/elsewhere/a.nii", "details": ["/srv/ct"], "n": 1, "image": "/a/b"}
    )
    assert found == {"path": "a.nii", "details": ["<studies>"], "n": 1, "image": "b"}
