"""What other users of the machine, and whoever reads the logs, learn of patients: nothing."""

import json
import logging
import os
import stat
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

import psutil
import pytest

from monailabel_app.lib.lifecycle.quiet import keep_log, log_file
from monailabel_app.lib.studies.sessions import StudySessions
from radfound.exceptions import NotFoundError
from radfound.records.answers import AnswerJournal
from radfound.records.durable import make_directory, replace_text

from ..conftest import CT, PICTURE, ROOT, VOLUME

SECRET = "Secretname"


def modes(folder):
    """The modes of a folder and of all that is in it, but for locks, which are empty."""
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    return {path: mode for path, mode in found.items() if path.name != ".lock"}


def assert_private(folder):
    for path, mode in modes(folder).items():
        assert mode == (0o700 if path.is_dir() else 0o600), f"{path}: {mode:o}"


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


# Sessions -------------------------------------------------------------------------------------


@pytest.fixture
def volume(tmp_path):
    """Make an upload."""

    def make(name="volume.nii"):
        path = tmp_path / name
        path.write_bytes(b"a volume")
        path.chmod(0o600)  # as uploads are
        return str(path)

    return make


def restarted(tmp_path):
    return StudySessions(str(tmp_path / "sessions"), 3600)


def age(tmp_path, session, seconds):
    """Let a session have been used so long ago."""
    meta = tmp_path / "sessions" / session / "meta.info"
    known = json.loads(meta.read_text())
    meta.write_text(json.dumps({**known, "last_access_ts": int(time.time() - seconds)}))


def test_a_session_goes_at_its_expiry_also_after_a_restart(tmp_path, volume):
    first = restarted(tmp_path)
    old, short, new = (first.add_session(volume(), expiry)[0] for expiry in (0, 60, 0))
    age(tmp_path, old, 3700)
    age(tmp_path, short, 100)
    for server in (first, restarted(tmp_path)):
        for session in (old, short):
            with pytest.raises(NotFoundError, match="expired"):
                server.path_of(session)
    assert restarted(tmp_path).remove_expired() == 2
    assert [path.name for path in (tmp_path / "sessions").iterdir()] == [new]
    assert restarted(tmp_path).path_of(new).read_bytes() == b"a volume"


@pytest.mark.parametrize(
    "meta", [b"", b'{"name": ', b"[]", b"null", b'{"image": 7}', b'{"image": "/", "expiry": "x"}']
)
def test_a_damaged_session_stops_no_start_and_goes_with_the_others(tmp_path, volume, meta):
    session, _ = restarted(tmp_path).add_session(volume())
    folder = tmp_path / "sessions" / session
    (folder / "meta.info").write_bytes(meta)
    assert restarted(tmp_path).get_session(session) is None
    assert restarted(tmp_path).remove_expired() == 0
    os.utime(folder, (0, 0))
    assert restarted(tmp_path).remove_expired() == 1 and not folder.exists()


def test_what_a_killed_server_left_of_a_session_goes_too(tmp_path):
    left = tmp_path / "sessions" / ".tmp-0123"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    restarted(tmp_path).remove_expired()
    assert not left.exists()


# Other users ----------------------------------------------------------------------------------


def test_no_other_user_reads_sessions_databases_and_state(tmp_path, umask, volume):
    os.umask(os.umask(0))
    restarted(tmp_path).add_session(volume())
    make_directory(tmp_path / "state" / "deep")
    replace_text(tmp_path / "state" / "deep" / "training.json", "{}")
    journal = AnswerJournal(tmp_path / "state" / "answers.sqlite")
    with journal._file.connection(create=True) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert {path.name for path in (tmp_path / "state").glob("*.sqlite-*")}
        assert_private(tmp_path / "state")
    assert_private(tmp_path / "sessions")


def test_a_database_of_an_earlier_version_is_closed_to_others(tmp_path):
    path = tmp_path / "answers.sqlite"
    path.touch(0o644)
    with AnswerJournal(path)._file.connection(create=True):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_server_writes_is_its_users_alone(server, correction):
    picture = (server.studies / f"{PICTURE}.png").read_bytes()
    assert server.ask(VOLUME).ok
    assert server.post("/radfound/corrections", json=correction()).ok
    assert server.put("/datastore/image?image=private", files={"file": ("x.png", picture)}).ok
    assert server.put("/session/", files={"files": ("x.png", picture)}).ok
    assert_private(server.studies / ".radfound")
    assert_private(server.log.parent / "sessions")
    assert server.delete("/datastore/image?id=private").ok


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/batch/infer/radfound_vqa", {"question": SECRET, "max_batch_size": 1}),
        ("/scoring/radfound", {"questions": [SECRET], "limit": 1}),
        ("/train/radfound", {"author": SECRET, "max_steps": 1}),
    ],
)
def test_command_lines_hold_no_question_and_no_author(server, correction, path, body):
    server.post("/radfound/corrections", json=correction())
    status = path.removesuffix("/radfound_vqa").removesuffix("radfound")
    assert server.post(path, json=body).ok
    seen: list[str] = []
    while not any("monailabel_app" in line for line in seen):
        assert server.get(status).json()["status"] in ("SUBMITTED", "RUNNING")
        seen += command_lines(server.process.pid)
    assert not [line for line in seen if SECRET in line]
    assert server.delete(status).ok


def command_lines(pid):
    for child in psutil.Process(pid).children(recursive=True):
        try:
            yield " ".join(child.cmdline())
        except psutil.NoSuchProcess:
            pass


# Logs -----------------------------------------------------------------------------------------


def test_logs_hold_no_file_name(server):
    picture = (server.studies / f"{PICTURE}.png").read_bytes()
    name = f"{SECRET}.png"
    (server.studies / f"{SECRET}-arrived.png").write_bytes(picture)
    (server.studies / f"{SECRET}-damaged.nii").write_bytes(b"no volume")
    (server.studies / "labels" / "final" / f"{SECRET}-of-none.nrrd").touch()
    for params, content in (("", picture), ("", b"another"), ("?image=../x", picture)):
        server.put(f"/datastore/image{params}", files={"file": (name, content)})
    for image in (SECRET, f"{SECRET}-arrived", f"{SECRET}-damaged", f"{SECRET}-unknown"):
        server.ask(image)
        server.get("/datastore/image", params={"image": image})
        server.put(
            "/datastore/label", params={"image": image}, files={"label": (f"{SECRET}.nrrd", "x")}
        )
        server.put("/datastore/image/info", params={"image": image}, data={"info": "{}"})
        server.post("/activelearning/first", json={"client_id": image})
        server.delete("/datastore/label", params={"id": image, "tag": "final"})
        server.delete("/datastore/image", params={"id": image})
    server.put("/session/", files={"files": (name, picture)})
    server.post("/infer/radfound_caption", files={"file": (name, b"no picture")})
    for path in server.studies.rglob(f"{SECRET}*"):
        path.unlink()
    assert server.get("/datastore/").ok
    for log in (server.log, *(server.studies / ".radfound" / "logs").iterdir()):
        assert SECRET not in log.read_text(), log


def test_each_server_has_a_log_of_its_own(server):
    port = server.url.rpartition(":")[2]
    own = server.studies / ".radfound" / "logs" / f"server-{port}.log"
    shared = ROOT / "monailabel_app" / "logs" / "app.log"
    before = shared.stat().st_size
    server.ask(CT)
    assert "answered" in own.read_text()
    assert shared.stat().st_size == before
    assert stat.S_IMODE(shared.stat().st_mode) == 0o600


@pytest.fixture
def root_logger(monkeypatch):
    """The root logger without handlers but MONAI Label's file, for a while."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    return root


def test_a_log_names_what_was_raised_and_where_but_not_what_it_said(tmp_path, root_logger):
    root_logger.addHandler(RotatingFileHandler(tmp_path / "app.log"))
    keep_log(tmp_path / "own" / "server.log")
    assert log_file() == tmp_path / "own" / "server.log"
    try:
        try:
            Path(f"/{SECRET}/x").read_text()
        except OSError as error:
            raise RuntimeError(SECRET) from error
    except RuntimeError:
        logging.getLogger("monailabel_app").exception("failed")
    for handler in root_logger.handlers:
        handler.close()
    text = (tmp_path / "own" / "server.log").read_text()
    assert "RuntimeError" in text and "FileNotFoundError" in text and "test_privacy.py" in text
    assert SECRET not in text
    assert_private(tmp_path / "own")


def test_a_process_without_monai_labels_log_gets_none(tmp_path, root_logger):
    keep_log(tmp_path / "own" / "server.log")
    assert log_file() is None and not (tmp_path / "own").exists()
