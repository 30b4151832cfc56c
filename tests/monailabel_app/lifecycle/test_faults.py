"""What goes wrong around a server: each is named, and nothing acknowledged is lost."""

import asyncio
import errno
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import requests

from monailabel_app.lib.answering.inquiry import Inquiry
from monailabel_app.lib.answering.models import ServedModels
from monailabel_app.lib.answering.service import RadFoundService
from monailabel_app.lib.lifecycle.leftovers import remove_leftovers
from monailabel_app.lib.studies.datastore import StudyDatastore
from monailabel_app.lib.studies.uploads import received, remove_stale
from radfound.correction import Correction
from radfound.engine.answer_stream import AnswerStream
from radfound.engine.models.settings import one_model
from radfound.engine.protocol import Abilities
from radfound.engine.stream import Stream, Token
from radfound.exceptions import Busy, Cancelled, StorageError
from radfound.question import ModelVersion, Question
from radfound.records.answers import AnswerJournal, journal_path
from radfound.records.corrections import CorrectionLog, log_path
from radfound.records.scores import ScoreBook, scores_path
from radfound.study.study import Study, StudyImage
from radfound.wire import parse_ask
from training.corrections.finetune import KEPT_FOLDERS

from ..conftest import CT, QUICK_TRAINING, ROOT, VOLUME, fill_with_studies, running_server


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    fill_with_studies(folder)
    return folder


@pytest.fixture
def service(studies):
    return RadFoundService(
        None,
        CorrectionLog(log_path(studies)),
        ServedModels(one_model("radfound-tiny"), studies),
        AnswerJournal(journal_path(studies)),
        ScoreBook(scores_path(studies)),
    )


def recorded(server):
    return {row["id"] for row in server.get("/radfound/corrections").json()["corrections"]}


def detail(response, status):
    assert response.status_code == status, response.text
    return response.json()["detail"]


def test_a_full_disk_refuses_an_upload_and_leaves_nothing(tmp_path, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "copyfileobj", no_room)
    with pytest.raises(StorageError, match="make room"):
        with received("a.nii", None):
            pass
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_full_disk_refuses_a_correction_and_keeps_those_before(studies, tmp_path, correction):
    log = log_path(studies)
    with running_server(studies, tmp_path / "server.log") as server:
        kept = correction()
        assert server.post("/radfound/corrections", json=kept).ok
        with file_size_limit(server.process.pid, log.stat().st_size):
            answers = [
                server.post("/radfound/corrections", json=correction(text="x" * 5000))
                for _ in range(40)
            ]
        refused = [each for each in answers if not each.ok]
        assert detail(refused[-1], 503)["code"] == "storage_failed"
        assert "disk" in refused[-1].text
        said = {kept["id"]} | {each.json()["id"] for each in answers if each.ok}
        assert recorded(server) == said
        assert server.post("/radfound/corrections", json=correction()).ok


class file_size_limit:  # noqa: N801
    """Let another process make no file longer than this, as on a disk without room."""

    def __init__(self, pid, size):
        self.pid, self.size = pid, size

    def __enter__(self):
        import resource

        self.before = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_):
        import resource

        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, self.before)


def test_a_damaged_log_stops_the_start_and_is_left_as_it_is(studies):
    path = log_path(studies)
    CorrectionLog(path).append(_correction())
    content = bytearray(path.read_bytes())
    content[2000:] = b"\xff" * (len(content) - 2000)
    path.write_bytes(content)
    with pytest.raises(StorageError, match="restore it from a backup"):
        CorrectionLog(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("path_of", [journal_path, scores_path])
@pytest.mark.slow
def test_a_damaged_journal_or_score_book_under_a_running_server_costs_no_answer(
    studies, tmp_path, correction, path_of
):
    with running_server(studies, tmp_path / "server.log") as server:
        kept = correction()
        assert server.post("/radfound/corrections", json=kept).ok
        assert server.ask(VOLUME).ok
        path = path_of(studies)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.write_bytes(b"not a database" * 1000)
        assert server.ask(VOLUME).json()["text"] is not None
        assert recorded(server) == {kept["id"]}
    assert "not on record" in (tmp_path / "server.log").read_text()


@pytest.mark.slow
def test_a_missing_checkpoint_is_named_and_corrections_are_taken_all_the_same(
    studies, tmp_path, correction
):
    folder = tmp_path / "without-weights"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "radfound"}')
    with running_server(studies, tmp_path / "server.log", model=str(folder)) as server:
        assert detail(server.ask(VOLUME), 503)["code"] == "checkpoint_unavailable"
        assert server.post("/radfound/corrections", json=correction()).ok
        assert server.get("/radfound/health").ok


@pytest.mark.slow
def test_a_server_that_is_killed_has_lost_nothing_it_acknowledged(studies, tmp_path, correction):
    with running_server(studies, tmp_path / "first.log") as server:
        rows = [correction(text=f"text {number}") for number in range(20)]
        assert all(server.post("/radfound/corrections", json=row).ok for row in rows)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with running_server(studies, tmp_path / "second.log") as server:
        assert recorded(server) == {row["id"] for row in rows}


@pytest.mark.slow
def test_two_servers_on_one_folder_keep_each_others_corrections(studies, tmp_path, correction):
    with (
        running_server(studies, tmp_path / "first.log") as first,
        running_server(studies, tmp_path / "second.log") as second,
    ):
        rows = [correction() for _ in range(30)]

        def send(server, some):
            for row in some:
                server.post("/radfound/corrections", json=row).raise_for_status()

        threads = [
            threading.Thread(target=send, args=(first, rows[::2])),
            threading.Thread(target=send, args=(second, rows[1::2])),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        both = {row["id"] for row in rows}
        assert recorded(first) == recorded(second) == both
        assert first.ask(CT).ok and second.ask(CT).ok


def test_a_clock_that_goes_backwards_changes_no_order(tmp_path, monkeypatch):
    log = CorrectionLog(tmp_path / "log.sqlite")
    for year in ("2030", "2020", "2025"):
        log.append(_correction(created=f"{year}-01-01T00:00:00Z", text=year))
    assert [row.text for row in log.rows()] == ["2030", "2020", "2025"]
    assert [row.text for row in log.latest()] == ["2025"]


def test_uploads_of_a_killed_server_are_removed_and_those_of_a_running_one_stay(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed, foreign = tmp_path / "radfound-0123", tmp_path / "other"
    for folder in (killed, foreign):
        folder.mkdir()
        (folder / "patient.dcm").touch()
    old, new = tmp_path / "radfound-old.zip", tmp_path / "radfound-new.zip"
    for file in (old, new, tmp_path / "radfound-0123.lock", tmp_path / "radfound-4567.lock"):
        file.touch()
    os.utime(old, (0, 0))
    with received("a.nii", io.BytesIO(b"x"), is_image=False) as path:
        remove_stale()
        assert path.read_bytes() == b"x"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == [foreign, new]


def test_a_start_removes_what_a_killed_training_and_its_launcher_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    own, app = tmp_path / "studies" / ".radfound", tmp_path / "app"
    for folder in (*(own / name for name in KEPT_FOLDERS), tmp_path / "tmp"):
        folder.mkdir(parents=True)
    left = [own / ".tmp-a", own / "visual" / ".tmp-b", tmp_path / "tmp" / "tmp1.json"]
    left += [own / name / ".tmp-c" for name in KEPT_FOLDERS]
    kept = [own / "training.json", own / "visual" / "a.safetensors", tmp_path / "tmp" / "tmp2.json"]
    for path in (*left, *kept):
        path.write_text("{}")
    left[2].write_text(f'{{"filename": "{app}/logs/app.log"}}')
    remove_leftovers(app, own)
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


class HeldEngine:
    """Eight answers have a first token, the others none; all end at `release`."""

    fields = None

    def __init__(self):
        self.streams = []
        self.backend = self

    def describe(self):
        return SimpleNamespace(abilities=Abilities("none"), revision="0")

    def stream(self, study, task, question, **_):
        stream = Stream()
        if len(self.streams) < 8:
            stream.put(Token("first"))
        self.streams.append(stream)
        model = ModelVersion("held", "0")
        return AnswerStream(stream, study, Question(task, question), model, None, None)

    def release(self):
        for stream in self.streams:
            stream.end()


class HeldModels:
    """One model, which is loaded."""

    default = "held"

    def __init__(self, engine):
        self._engine = engine

    @contextmanager
    def use(self, name=None):
        yield self._engine

    def engine(self, name=None):
        return self._engine

    def close(self):
        pass


@pytest.fixture
def held(service):
    engine = HeldEngine()
    service.models = HeldModels(engine)
    return engine


INQUIRY = Inquiry(
    "vqa",
    (VOLUME,),
    Study((StudyImage(np.zeros((1, 2, 2), np.uint8), np.eye(4)),)),
    parse_ask({"question": "Why?"}),
    0,
    0,
)


async def ask_many(service, count):
    answers = [asyncio.ensure_future(service.answer_soon(INQUIRY)) for _ in range(count)]
    while len(service.models.engine().streams) < count or service.running < 8:
        assert not any(each.done() and each.exception() for each in answers)
        await asyncio.sleep(0.01)
    return answers


def test_open_answers_hold_no_thread_and_their_number_is_limited(service, held):
    async def scenario():
        before = threading.active_count()
        answers = await ask_many(service, 8 + 128)
        assert threading.active_count() - before <= 8  # of the pool that starts them
        assert (service.running, service.waiting) == (8, 128)
        with pytest.raises(Busy, match="ask again"):
            await service.answer_soon(INQUIRY)
        held.release()
        assert {answer.text for answer in await asyncio.gather(*answers)} == {"first", ""}

    asyncio.run(scenario())
    assert (service.running, service.waiting) == (0, 0)


def test_a_stopping_server_cancels_the_queue_and_lets_running_answers_end(service, held):
    async def scenario():
        answers = await ask_many(service, 12)
        service.close()
        assert [stream.is_cancelled for stream in held.streams].count(True) == 4
        with pytest.raises(Busy, match="stopping"):
            await service.answer_soon(INQUIRY)
        with pytest.raises(Busy, match="stopping"):
            await service.inquire_soon("vqa", {"question": "Why?"}, image=VOLUME)
        held.release()
        ended = await asyncio.gather(*answers, return_exceptions=True)
        assert [isinstance(each, Cancelled) for each in ended].count(True) == 4

    asyncio.run(scenario())


def test_an_answer_whose_caller_is_cancelled_is_cancelled_in_the_backend(service, held):
    async def scenario():
        answers = await ask_many(service, 9)
        for answer in (answers[0], answers[8]):
            answer.cancel()
        await asyncio.wait([answers[0], answers[8]])
        assert (service.running, service.waiting) == (7, 0)
        held.release()
        await asyncio.gather(*answers[1:8])

    asyncio.run(scenario())
    assert [stream.is_cancelled for stream in held.streams].count(True) == 2


def test_an_answer_that_nobody_iterates_over_leaves_by_itself(service, held):
    async def scenario():
        answer = await service.begin(INQUIRY)
        assert (service.running, service.waiting) == (0, 1)
        del answer
        assert (service.running, service.waiting) == (0, 0)
        assert _soon(lambda: held.streams[0].is_cancelled)

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_running_answer_ends_with_the_server(studies, tmp_path):
    with running_server(studies, tmp_path / "server.log") as server:
        assert server.ask(VOLUME).ok
        body = {"image": VOLUME, "question": "What?", "max_new_tokens": 512}
        with requests.post(f"{server.url}/radfound/ask", json=body, stream=True) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith(b"event")
            server.process.send_signal(signal.SIGTERM)
            events = [line for line in lines if line.startswith(b"event")]
        assert events[-1] in (b"event: answer", b"event: error")
        assert server.process.wait(30) is not None


def _soon(is_so, within_s=10):
    deadline = time.monotonic() + within_s
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_so()


def _correction(**changes):
    return Correction(
        **{
            "images": (VOLUME,), "task": "vqa", "question": "Which plane?", "model_text": "x",
            "verdict": "edited", "text": "axial", "author": "a reader", **changes,
        }
    )  # fmt: skip


@pytest.mark.slow
def test_many_clients_get_no_failure_and_no_correction_is_lost():
    """The short form of `make bench-load`, which exits with 1 for either."""
    command = [sys.executable, "scripts/load.py", "--clients", "8", "--seconds", "6"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed 0" in done.stdout and "lost 0" in done.stdout


class ReadOnly:
    """A folder that a server sees and that can be made read-only under it.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder):
        self.folder = folder
        self.modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}
        self.wrapper = ()
        if os.geteuid() == 0:  # permissions do not bind root, so the server gets a mount of its own
            # and its log another: what is open for writing keeps a mount from becoming read-only
            script = (
                'logs="$0/.radfound/logs" && mkdir -p "$logs" && mount --bind "$0" "$0" '
                '&& mount --bind "$logs" "$logs" && exec "$@"'
            )
            self.wrapper = ("unshare", "--mount", "sh", "-c", script, str(folder))
            if subprocess.run([*self.wrapper, "true"], capture_output=True).returncode:
                pytest.skip("as root this needs the right to mount")

    def switch(self, pid, is_on):
        if self.wrapper:
            option = f"remount,bind,{'ro' if is_on else 'rw'}"
            command = ["nsenter", "--target", str(pid), "--mount", "mount", "-o", option]
            subprocess.run([*command, str(self.folder)], check=True)
            return
        for path in (self.folder, *self.folder.rglob("*")):
            mode = self.modes.get(path, 0o755 if path.is_dir() else 0o644)
            path.chmod(mode & ~0o222 if is_on else mode)


@pytest.mark.slow
def test_a_folder_that_becomes_read_only_refuses_corrections_and_goes_on_answering(
    studies, tmp_path, correction
):
    folder = ReadOnly(studies)
    with running_server(studies, tmp_path / "server.log", wrapper=folder.wrapper) as server:
        first, second = correction(), correction()
        assert server.post("/radfound/corrections", json=first).ok
        folder.switch(server.process.pid, True)
        try:
            refused = detail(server.post("/radfound/corrections", json=second), 503)
            assert refused["code"] == "storage_failed" and "can be written" in refused["message"]
            assert server.ask(VOLUME).json()["text"] is not None
        finally:
            folder.switch(server.process.pid, False)
        assert server.post("/radfound/corrections", json=second).ok
        assert recorded(server) == {first["id"], second["id"]}


@pytest.mark.slow
def test_an_archive_that_cannot_be_written_is_served_with_its_state_elsewhere(
    studies, tmp_path, correction
):
    folder, data = ReadOnly(studies), tmp_path / "data"
    before = sorted(studies.rglob("*"))
    wrapper = [
        each.replace("&& exec", '&& mount -o remount,bind,ro "$0" && exec')
        for each in folder.wrapper
    ]
    if not wrapper:
        folder.switch(0, True)
    try:
        with running_server(
            studies,
            tmp_path / "server.log",
            wrapper=wrapper,
            variables={"XDG_DATA_HOME": str(data)},
        ) as server:
            assert server.ask(VOLUME).ok
            assert server.post("/radfound/corrections", json=correction()).ok
            label = {"label": ("a.json", json.dumps(correction(CT)))}
            assert server.put(f"/datastore/label?image={CT}", files=label).ok
            sent = {"file": ("sent.dcm", (studies / f"{CT}.dcm").read_bytes())}
            assert server.put("/datastore/image?image=sent", files=sent).ok
            assert server.ask("sent").ok
            assert len(recorded(server)) == 2
    finally:
        if not wrapper:
            folder.switch(0, False)
    assert sorted(studies.rglob("*")) == before
    (state,) = (data / "radfound").iterdir()
    assert {"datastore_v2.json", "labels", ".radfound"} <= {path.name for path in state.iterdir()}


def test_a_folder_that_cannot_be_written_is_named_at_the_start(studies, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "makedirs", refuse)
    with pytest.raises(StorageError, match=r"cannot be written \(Read-only.*link the studies"):
        StudyDatastore(str(studies))


@pytest.mark.slow
def test_a_training_that_is_killed_is_told_of_and_the_next_one_works(studies, tmp_path, correction):
    with running_server(studies, tmp_path / "server.log") as server:
        assert server.post("/radfound/corrections", json=correction()).ok
        before = server.ask(VOLUME).json()
        never_ending = {**QUICK_TRAINING, "max_steps": 10**6, "learning_rate": 1e-9}
        assert server.post("/train/radfound", json=never_ending).ok
        assert _soon(lambda: training(server)["step"] > 0, 240)
        (process,) = (
            child
            for child in psutil.Process(server.process.pid).children(recursive=True)
            if "train" in child.cmdline()
        )
        process.kill()
        assert server.training_status()["status"] == "ERROR"
        found = training(server)
        assert found["state"] == "failed" and "see the server's log" in found["message"]
        assert server.get("/radfound/adapters").json()["adapters"] == []
        assert server.ask(VOLUME).json()["text"] == before["text"]
        assert server.post("/train/radfound", json=QUICK_TRAINING).ok
        assert server.training_status()["status"] == "DONE"
        assert len(server.get("/radfound/adapters").json()["adapters"]) == 1
    assert not list(studies.rglob(".tmp-*"))


def training(server):
    return server.get("/radfound/training").json()


@pytest.mark.slow
def test_kills_lose_nothing_leave_whole_adapters_and_no_strays():
    """The short form of `make bench-kill`, which exits with 1 otherwise."""
    command = [sys.executable, "scripts/kill.py", "--kills", "4", "--studies", "200"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_full_disk_stops_no_start_and_loses_nothing_acknowledged():
    """The short form of `make bench-disk`, which exits with 1 otherwise."""
    command = [sys.executable, "scripts/disk.py", "--rounds", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    if "skipped" in done.stderr:
        pytest.skip(done.stderr.strip())
