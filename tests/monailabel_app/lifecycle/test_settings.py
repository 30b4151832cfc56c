"""What is set where the server is started: said in one line, before anything is loaded."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from monailabel_app.lib.lifecycle.settings import SETTINGS, check_conf, check_studies
from radfound.exceptions import DeviceError, RequestError, StorageError
from radfound.model.devices import device_of
from radfound.records import state
from radfound.records.state import state_folder
from scripts import serve

from ..conftest import ROOT, free_port

SERVE = [sys.executable, str(ROOT / "scripts" / "serve.py")]


def start(*arguments, **variables):
    """Start as `make serve` does, where it cannot; return the one line that it says."""
    environment = {**os.environ, "PYTHONPATH": "", **variables}
    done = subprocess.run(
        [*SERVE, "--port", str(free_port()), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line.removeprefix("make serve: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "80000"], "PORT: found '80000'; expected a number from 1 to 65535"),
        (
            ["--conf", "devise", "cpu"],
            "did you mean device? Known: checkpoint, confirm, device, free_text, hosts",
        ),
        (["--conf", "device", "gpu"], "device: found 'gpu'; expected one of cpu, cuda, mps"),
        (
            ["--conf", "confirm", "two"],
            "confirm: found 'two'; expected a number of readers, 1 to 9",
        ),
        (
            ["--studies", "http://127.0.0.1:8042/dicom-web"],
            "state: missing; studies on a DICOM server",
        ),
        (
            [
                "--studies",
                "https://a.example/x",
                "--conf",
                "state",
                ".",
                "--conf",
                "pacs_write",
                "all",
            ],
            "pacs_write: found 'all'; expected no, reader, draft",
        ),
        (
            ["--model", "radfound-min"],
            "did you mean radfound-mini? Known: radfound-mini or radfound-tiny, a folder",
        ),
        (
            ["--model", ""],
            "model: found ''; expected radfound-mini or radfound-tiny, a folder of weights",
        ),
        (["--model", "no/such/folder"], "a folder of weights, or openai:"),
    ],
)
def test_a_setting_that_is_mistyped_is_said_with_the_known_ones(arguments, said):
    assert said in start(*arguments)


def test_a_short_token_is_said_and_not_shown():
    line = start(RADFOUND_TOKEN="hunter2")
    assert "at least 16 characters" in line and "hunter2" not in line


def test_a_mistyped_folder_is_an_error_and_is_not_made(tmp_path):
    (tmp_path / "archive").mkdir()
    line = start("--studies", str(tmp_path / "archvie"))
    assert line == f"{tmp_path / 'archvie'}: no such folder; did you mean {tmp_path / 'archive'}?"
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_a_file_is_no_folder_of_studies(tmp_path):
    (tmp_path / "a.nii").touch()
    with pytest.raises(RequestError, match="is a file; expected a folder"):
        check_studies(tmp_path / "a.nii")


def test_a_port_in_use_is_said_before_anything_is_loaded():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"port {port} cannot be used (Address already in use)" in start("--port", str(port))


def test_the_check_needs_nothing_that_has_to_be_installed(tmp_path):
    command = [sys.executable, "-S", "-E", *SERVE[1:], "--check", "--port", str(free_port())]
    assert subprocess.run([*command, "--studies", str(tmp_path)], timeout=60).returncode == 0


def test_the_answer_of_another_server_is_not_taken_for_this_ones(monkeypatch, tmp_path):
    class Other:
        ok = True

        def json(self):
            return {"status": "ok", "pid": os.getpid()}

    class Ended:
        pid = os.getpid() + 1
        polls = iter([None, None, 1])

        def poll(self):
            return next(self.polls)

    server = serve.Server(tmp_path, 8000, {"checkpoint": "radfound-tiny"})
    server.process, server.log = Ended(), tmp_path / "server.log"
    server.log.write_text("Traceback ...\nradfound.exceptions.StorageError: the reason\nExiting.\n")
    monkeypatch.setattr(server, "call", lambda *_, **__: Other())
    with pytest.raises(serve.ServeError, match=r"did not start; the reason \(log: "):
        server.wait_until_healthy()


def test_a_study_that_cannot_be_read_is_not_the_first_answer(capsys, tmp_path, monkeypatch):
    def ask(image, question):
        if image == "broken":
            raise serve.ServeError("broken.nii: it holds text")
        answer = {"text": "MRI", "confidence": None, "reason": "stated in the file"}
        return {**answer, "timings_ms": {"total": 10}}

    server = serve.Server(tmp_path, 8000, {"checkpoint": "radfound-tiny"})
    monkeypatch.setattr(server, "images", lambda: ["broken", "whole"])
    monkeypatch.setattr(server, "ask", ask)
    serve._introduce(server)
    shown = capsys.readouterr().out
    assert "broken.nii: it holds text" in shown
    assert shown.count("Answer    MRI   (stated in the file; 0.0 s)") == 3
    assert "Serving 2 studies" in shown


def test_a_first_answer_that_takes_too_long_is_told_in_words(monkeypatch, tmp_path):
    def call(*_, **__):
        raise requests.Timeout("HTTPConnectionPool(host='127.0.0.1', port=8000): Read timed out.")

    server = serve.Server(tmp_path, 8000, {"checkpoint": "radfound-tiny"})
    monkeypatch.setattr(server, "call", call)
    with pytest.raises(
        serve.ServeError, match=r"^no answer within \d+ s; this machine may be busy"
    ):
        server.ask("sample", "What is it?")


class Reply:
    """A server's reply to any request."""

    def __init__(self, ok, content):
        self.ok, self._content = ok, content

    def json(self):
        return self._content


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            Reply(False, {"detail": {"message": "the archive cannot be reached"}}),
            "cannot be reached",
        ),
        (Reply(True, {"objects": {}}), "http://127.0.0.1:1/dicom-web holds no studies yet\n"),
    ],
)
def test_an_archive_that_is_down_or_empty_at_the_start_is_served_all_the_same(
    capsys, monkeypatch, tmp_path, reply, said
):
    server = serve.Server("http://127.0.0.1:1/dicom-web", 8000, {"state": str(tmp_path)})
    monkeypatch.setattr(server, "call", lambda *_, **__: reply)
    serve._introduce(server)
    shown = capsys.readouterr().out
    assert said in shown and "Serving 0 studies of http://127.0.0.1:1/dicom-web" in shown


def test_state_is_beside_the_studies_or_where_it_was_named(tmp_path):
    assert state_folder(tmp_path) == tmp_path
    assert state_folder(tmp_path, "/elsewhere") == Path("/elsewhere")
    assert list(tmp_path.iterdir()) == []


def test_state_of_an_archive_that_cannot_be_written_is_among_the_users_data(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "is_writable", lambda _: False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    archives = [tmp_path / name / "archive" for name in ("a", "b")]
    for each in archives:
        each.mkdir(parents=True)
    first, second = map(state_folder, archives)
    assert first.parent == second.parent == tmp_path / "data" / "radfound" and first != second
    assert state_folder(archives[0] / ".." / "archive") == first


def test_corrections_in_an_archive_that_cannot_be_written_any_more_are_not_hidden(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(state, "is_writable", lambda _: False)
    (tmp_path / ".radfound" / "logs").mkdir(parents=True)
    assert state_folder(tmp_path) != tmp_path  # logs alone are not missed
    (tmp_path / ".radfound" / "corrections.sqlite").touch()
    with pytest.raises(StorageError, match=r"holds corrections.*--conf state DIR"):
        state_folder(tmp_path)


def test_every_setting_says_what_it_may_be():
    limited = {"device": "cuda:1", "free_text": "yes"}
    check_conf(dict.fromkeys(SETTINGS, "x") | limited)
    assert all(SETTINGS.values())


def test_a_device_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(DeviceError, match=r"device: cuda:99 is not there; expected one of .*cpu"):
        device_of("cuda:99")
    assert device_of("cpu").type == "cpu"
