import io
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from RadFoundLib.net import protocol, replies
from RadFoundLib.net.cancellation import Cancellation
from RadFoundLib.net.client import Client, ClientError, image_id
from RadFoundLib.net.replies import Check
from RadFoundLib.net.transport import CONNECT_S

from ..misbehaving import PATIENCE_S, ROWS, STOP_AFTER_S, WAITS, outcome
from ..pythons import VERSIONS, python, run_module
from ..stub import ANSWER, Stub, chunk, event, head, says, streams, whole

HASH = "0123456789abcdef" * 4


def keeps_images(request, line):
    """Take what is uploaded, and know of nothing before."""
    if request.method == "HEAD":
        line.sendall(whole(b"", 404))
    else:
        line.sendall(whole({"image": image_id(HASH)}))


def file_of(request):
    """Return name and content of an uploaded file."""
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    part = request.body.split(b"--" + boundary)[1]
    top, _, content = part.partition(b"\r\n\r\n")
    name = top.partition(b'filename="')[2].partition(b'"')[0].decode()
    return name, content[: -len(b"\r\n")]


def raised(call):
    with pytest.raises(ClientError) as caught:
        call()
    return caught.value


# What goes wrong


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_server_that_misbehaves_ends_in_a_clear_message(row):
    found = outcome(row)
    assert (found["kind"], row.words in found["message"]) == (row.kind, True), found
    assert found["seconds"] < PATIENCE_S / 4


@pytest.mark.parametrize("row", WAITS, ids=lambda row: row.name)
def test_stopping_works_whatever_is_waited_for(row):
    found = outcome(row)
    assert found["kind"] == "cancelled"
    assert found["seconds"] < PATIENCE_S / 4
    assert found["left"], "the server did not see that the client has gone"


@pytest.mark.parametrize("version", [each for each in VERSIONS if each != "3.11"])
def test_the_same_comes_of_it_on_slicers_pythons(version):
    found = json.loads(run_module(python(version), "misbehaving"))
    for row in ROWS + WAITS:
        came = found[row.name]
        assert (came["kind"], row.words in came["message"]) == (row.kind, True), (row.name, came)


def test_nobody_there_is_said_with_what_to_do():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{nobody.getsockname()[1]}"
        error = raised(Client(where).info)
    assert error.kind == "unreachable"
    assert error.message == f"No server at {where}: is the server running?"


def test_a_name_that_no_machine_has_is_said():
    error = raised(Client("no-such-machine.invalid").info)
    assert error.kind == "unreachable"
    assert "no-such-machine.invalid" in error.message


def test_what_was_heard_before_a_break_is_kept():
    heard = []
    with Stub(streams(event("token", {"text": "Half an "}), ends=False)) as stub:
        raised(lambda: Client(stub.address).ask("caption", ["i"], on_token=heard.append))
    assert heard == ["Half an "]


def test_a_reply_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(replies, "MAX_JSON_BYTES", 1 << 20)
    monkeypatch.setattr(replies.read_all, "__defaults__", (1 << 20,))

    def pours(request, line):
        line.sendall(head())
        with suppress(OSError):
            while True:
                line.sendall(b" " * 65536)

    with Stub(pours) as stub:
        assert raised(Client(stub.address).health).kind == "protocol"


# Stopping where no server takes part


def test_what_was_stopped_before_it_began_sends_nothing():
    cancel = Cancellation()
    cancel.set()
    with Stub(says(whole({}))) as stub:
        assert raised(lambda: Client(stub.address).health(cancel)).kind == "cancelled"
        assert stub.requests == []


def test_stopping_works_during_the_tls_handshake():
    cancel = Cancellation()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        client = Client(f"https://127.0.0.1:{mute.getsockname()[1]}")
        threading.Timer(STOP_AFTER_S, cancel.set).start()
        began = time.monotonic()
        assert raised(lambda: client.health(cancel)).kind == "cancelled"
    assert time.monotonic() - began < CONNECT_S - 1


def test_stopping_works_while_connecting():
    cancel = Cancellation()
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        place = full.getsockname()
        where = f"127.0.0.1:{place[1]}"
        waiting = [socket.socket() for _ in range(8)]
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(place)
            began = time.monotonic()
            threading.Timer(STOP_AFTER_S, cancel.set).start()
            assert raised(lambda: Client(where).health(cancel)).kind == "cancelled"
        finally:
            for each in waiting:
                each.close()
    assert time.monotonic() - began < CONNECT_S - 1


# Addresses


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        (" localhost:8000/ ", "http://localhost:8000"),
        ("HTTP://LocalHost:80", "http://localhost"),
        ("https://radfound.example.org:443/api/", "https://radfound.example.org/api"),
        ("[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_has_one_spelling(typed, kept):
    assert Client(typed).address == kept == Client(kept).address


@pytest.mark.parametrize(
    "typed",
    ["", "   ", "http://", "ftp://server", "server:port", "a b", "[::1", "http://a/?b=c", "a#b"],
)
def test_what_is_no_address_is_refused_before_anything_is_sent(typed):
    error = raised(lambda: Client(typed))
    assert error.kind == "request"
    assert "127.0.0.1:8000" in error.message


def test_a_password_in_the_address_is_refused_and_not_repeated():
    error = raised(lambda: Client("https://ann:secret@server"))
    assert error.kind == "request"
    assert "secret" not in error.message


@pytest.mark.parametrize(
    ("typed", "is_local", "is_private"),
    [
        ("127.0.0.1:8000", True, True),
        ("127.8.8.8", True, True),
        ("localhost", True, True),
        ("[::1]:8000", True, True),
        ("https://server", False, True),
        ("http://server", False, False),
        ("10.0.0.7:8000", False, False),
        ("localhost.example.org", False, False),
    ],
)
def test_it_is_known_whether_others_could_read_along(typed, is_local, is_private):
    client = Client(typed)
    assert (client.is_local, client.is_private) == (is_local, is_private)


def test_a_path_before_the_routes_is_kept():
    with Stub(says(whole({}))) as stub:
        Client(stub.address + "/radiology/").health()
    assert stub.requests[0].target == "/radiology/radfound/health"


# Tokens


def test_a_token_is_sent_as_bearer_and_only_where_there_is_one():
    with Stub(says(whole({}))) as stub:
        Client(stub.address, token=" t0ken ").health()
        Client(stub.address).health()
    sent = [request.headers.get("authorization") for request in stub.requests]
    assert sent == ["Bearer t0ken", None]


def test_a_token_goes_nowhere_else_on_a_redirect():
    with Stub(says(whole({}))) as other:
        away = says(whole(b"", 307, Location=f"http://{other.address}/radfound/health"))
        with Stub(away) as stub:
            error = raised(Client(stub.address, token="t0ken").health)
        assert other.requests == []
    assert error.kind == "protocol"
    assert other.address in error.message


def test_a_refused_token_is_said_without_repeating_it():
    with Stub(says(whole({"detail": "no"}, 401))) as stub:
        error = raised(Client(stub.address, token="t0ken").health)
    assert error.kind == "refused"
    assert "does not accept this token" in error.message
    assert "t0ken" not in error.message


@pytest.mark.parametrize("token", ["a\r\nHost: other", "a b", "é"])
def test_a_token_that_would_break_the_request_is_refused(token):
    assert raised(lambda: Client("127.0.0.1", token=token)).kind == "request"


# TLS


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody has vouched for."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *(
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-subj",
                "/CN=127.0.0.1",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ),
            *("-keyout", folder / "key.pem", "-out", folder / "certificate.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def tls_stub(self_signed):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed / "certificate.pem", self_signed / "key.pem")
    wrap = lambda line: context.wrap_socket(line, server_side=True)  # noqa: E731
    with Stub(streams(event("token", {"text": "A"}), event("answer", ANSWER)), wrap=wrap) as stub:
        yield stub


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_stub, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    error = raised(Client(f"https://{tls_stub.address}", token="t0ken").health)
    assert error.kind == "unreachable"
    assert "certificate" in error.message
    assert tls_stub.requests == []


def test_a_certificate_that_the_hospital_vouches_for_is_taken(tls_stub, self_signed, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(self_signed / "certificate.pem"))
    answer = Client(f"https://{tls_stub.address}").ask("vqa", ["volume-1"], "What is shown?")
    assert answer == ANSWER


def test_a_certificate_that_the_reader_chose_is_taken_beside_slicers_own_list(
    tls_stub, self_signed, monkeypatch, tmp_path
):
    import certifi

    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())  # as Slicer's launcher does
    chosen = str(self_signed / "certificate.pem")
    client = Client(f"https://{tls_stub.address}", ca_file=chosen)
    assert client.ask("vqa", ["volume-1"], "What is shown?") == ANSWER

    wrong = tmp_path / "no-certificate.pem"
    wrong.write_text("nothing", encoding="utf-8")
    error = raised(Client(f"https://{tls_stub.address}", ca_file=str(wrong)).health)
    assert error.code == "certificate_not_trusted" and str(wrong) in error.message


def test_a_missing_list_of_certificates_is_named(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/list.pem")
    error = raised(Client("https://127.0.0.1:1").health)
    assert "/no/such/list.pem" in error.message


def test_a_plain_server_under_https_is_said():
    with socket.create_server(("127.0.0.1", 0)) as plain:
        threading.Thread(
            target=lambda: plain.accept()[0].sendall(b"HTTP/1.1 400 No\r\n\r\n")
        ).start()
        error = raised(Client(f"https://127.0.0.1:{plain.getsockname()[1]}").health)
    assert "http://" in error.message


# Uploads


def test_an_upload_is_sent_as_it_is_with_progress(tmp_path):
    volume = bytes(range(256)) * 4000
    path = tmp_path / "Doe^Jane.nii"
    path.write_bytes(volume)
    seen = []
    with Stub(keeps_images) as stub, open(path, "rb") as file:
        image = Client(stub.address).upload(
            file, path.name, HASH, progress=lambda *each: seen.append(each)
        )
        asked, sent = stub.requests
    assert image == image_id(HASH)
    assert (asked.method, sent.method) == ("HEAD", "PUT")
    assert file_of(sent) == (f"{image}.nii", volume)
    assert seen == sorted(seen)
    assert seen[-1] == (len(volume), len(volume))
    assert "Jane" not in str(sent.headers) + sent.target + str(sent.body[:300])


def test_a_volume_that_is_there_is_not_sent_again():
    seen = []
    with Stub(says(whole(b"", 200))) as stub:
        client, volume = Client(stub.address), io.BytesIO(b"volume")
        image = client.upload(volume, "volume.nii", HASH, progress=lambda *e: seen.append(e))
    assert image == image_id(HASH)
    assert [request.method for request in stub.requests] == ["HEAD"]
    assert seen == []


def test_a_file_that_cannot_be_read_is_said():
    volume = io.BytesIO(b"volume")
    volume.close()
    with Stub(keeps_images) as stub:
        error = raised(lambda: Client(stub.address).upload(volume, "a.nii", HASH))
    assert error.kind == "request"
    assert "cannot be read" in error.message


def test_a_file_of_another_kind_is_refused():
    error = raised(lambda: Client("127.0.0.1").upload(io.BytesIO(), "scene.mrb", HASH))
    assert ".nii.gz" in error.message


def test_a_hash_that_is_none_is_refused():
    assert raised(lambda: image_id("../../etc/passwd")).kind == "request"


# Downloads


def test_a_study_is_fetched_with_its_suffix(tmp_path):
    seen = []
    disposition = {"Content_Disposition": 'attachment; filename="brain.nii.gz"'}
    with Stub(says(whole(b"volume" * 9, kind="application/octet-stream", **disposition))) as stub:
        path = Client(stub.address).download(
            "brain", str(tmp_path), progress=lambda *each: seen.append(each)
        )
    assert path.endswith(".nii.gz")
    with open(path, "rb") as file:
        assert file.read() == b"volume" * 9
    assert seen == [(54, 54)]


def test_nothing_is_left_of_a_study_that_broke_off(tmp_path):
    with Stub(says(head(Content_Length=99), b"vol")) as stub:
        assert raised(lambda: Client(stub.address).download("a", str(tmp_path))).kind == "protocol"
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_has_no_file_is_said(tmp_path):
    with Stub(says(whole({"detail": "Image NOT Found"}, 404))) as stub:
        error = raised(lambda: Client(stub.address).download("a", str(tmp_path)))
    assert error.kind == "request"
    assert "no file" in error.message


def series(*names):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, "slice of " + name)
    disposition = {"Content_Disposition": 'attachment; filename="series.zip"'}
    return whole(content.getvalue(), kind="application/zip", **disposition)


def test_a_series_is_unpacked_into_a_folder_of_its_own(tmp_path):
    with Stub(says(series("IM1", "IM0"))) as stub:
        path = Path(Client(stub.address).download("series", str(tmp_path)))
    assert path.name == "IM0"
    assert {file.name for file in path.parent.iterdir()} == {"IM0", "IM1"}
    assert list(tmp_path.iterdir()) == [path.parent]


def test_a_series_cannot_be_written_elsewhere(tmp_path):
    with Stub(says(series("../../outside", "/outside"))) as stub:
        Client(stub.address).download("series", str(tmp_path / "."))
    assert [path.name for path in tmp_path.parent.rglob("outside")] == ["outside"]
    assert list(tmp_path.rglob("outside"))


@pytest.mark.parametrize("content", [b"PK no zip", b""])
def test_a_damaged_series_is_said_and_leaves_no_file(tmp_path, content):
    disposition = {"Content_Disposition": 'attachment; filename="series.zip"'}
    with Stub(says(whole(content, kind="application/zip", **disposition))) as stub:
        error = raised(lambda: Client(stub.address).download("series", str(tmp_path)))
    assert error.kind == "protocol"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# Evidence


def test_a_map_of_a_sentence_is_asked_for_with_the_answer_that_was_given():
    nrrd = b"NRRD0004\r\n\r\n--\x00\xff"
    with Stub(says(whole(nrrd, kind="application/octet-stream"))) as stub:
        found = Client(stub.address).evidence(
            ANSWER, "No effusion.", [protocol.TURN], protocol.BOX, "ct00"
        )
    assert found == nrrd
    assert stub.requests[0].target == "/radfound/evidence?output=image"
    assert json.loads(stub.requests[0].body) == {
        "answer": ANSWER,
        "text": "No effusion.",
        "history": [protocol.TURN],
        "region": protocol.BOX,
        "prior": "ct00",
    }


def test_a_server_that_makes_no_maps_says_so_in_plain_words():
    with Stub(says(whole({"detail": "Not Found"}, status=404))) as stub:
        error = raised(lambda: Client(stub.address).evidence(ANSWER))
    assert (error.kind, error.message) == (
        "request",
        "This server makes no evidence maps: it needs a newer version.",
    )
    message = "evidence: other has no evidence maps; ask for the answer alone"
    reply = whole({"detail": {"code": "not_supported", "message": message}}, status=422)
    with Stub(says(reply)) as stub:
        error = raised(lambda: Client(stub.address).evidence(ANSWER))
    assert (error.kind, error.message) == ("request", message)


# Streams


def test_an_answer_may_come_in_any_pieces():
    content = b": hello\n\n" + event("token", {"text": "née "}) + event("answer", ANSWER)
    heard = []
    pieces = [chunk(content[index : index + 1]) for index in range(len(content))]
    stream = head(kind="text/event-stream; charset=utf-8", Transfer_Encoding="chunked")
    with Stub(says(stream, *pieces, chunk(b""))) as stub:
        answer = Client(stub.address).ask("vqa", ["volume-1"], "What?", on_token=heard.append)
    assert answer == ANSWER
    assert heard == ["née "]


def test_a_stream_without_length_is_read_as_it_comes():
    heard, came = [], threading.Event()

    def on_token(text):
        heard.append(text)
        came.set()

    def behave(request, line):
        line.sendall(head(kind="text/event-stream") + event("token", {"text": "A"}))
        assert came.wait(5)
        line.sendall(event("answer", ANSWER))

    with Stub(behave) as stub:
        assert Client(stub.address).ask("vqa", ["volume-1"], "?", on_token=on_token) == ANSWER


def test_a_question_is_asked_as_the_server_expects():
    region = {"box_mm": [[0, 0, 0], [1, 1, 1]]}
    turns = [{"question": "a", "answer": "b"}]
    with Stub(streams(event("answer", ANSWER))) as stub:
        Client(stub.address).ask("vqa", ["ct", "x"], "What?", turns, region, 64)
        Client(stub.address).ask("caption", ["ct"])
    first, second = (json.loads(request.body) for request in stub.requests)
    assert first == {
        "task": "vqa",
        "image": "ct",
        "images": ["ct", "x"],
        "question": "What?",
        "history": turns,
        "region": region,
        "max_new_tokens": 64,
    }
    assert second == {"task": "caption", "image": "ct"}


# Training


@pytest.mark.parametrize("state", protocol.TRAINING_STATES)
def test_a_training_is_over_unless_it_runs(state):
    with Stub(says(whole({**protocol.TRAINING_STATUS, "state": state}))) as stub:
        status = Client(stub.address).training_status()
    assert stub.requests[0].target == "/radfound/training"
    assert (status.state, status.is_over) == (state, state != "running")


def test_a_running_training_comes_with_its_steps_and_the_checks_of_the_gate():
    with Stub(says(whole(protocol.TRAINING_STATUS))) as stub:
        status = Client(stub.address).training_status()
    assert (status.step, status.steps, status.seconds_left, status.loss) == (20, 200, 42.0, 0.7)
    assert (status.corrections, status.phase) == (4, "training on all corrections")
    words = "100% of 4 reproduced, at least 90% expected"
    assert status.checks == (Check("corrections", words, True),)


def test_a_second_training_is_refused_in_words():
    detail = {"code": "already_running", "message": "train: one runs and 0 wait"}
    with Stub(says(whole({"detail": detail}, 429))) as stub:
        error = raised(Client(stub.address).train)
    assert error.kind == "request"
    assert "A training is running already" in error.message


def test_a_setting_that_the_trainer_refuses_is_shown_in_its_words():
    detail = {"code": "bad_request", "message": "rank: found -1"}
    with Stub(says(whole({"detail": detail}, 400))) as stub:
        assert raised(lambda: Client(stub.address).train({"rank": -1})).message == "rank: found -1"


def test_nothing_left_to_read_is_no_error():
    with Stub(says(whole({}))) as stub:
        assert Client(stub.address).next_study("random") is None


def test_a_name_with_a_slash_stays_in_its_place():
    with Stub(says(whole({"active": None, "adapters": []}))) as stub:
        Client(stub.address).activate("../../train/radfound")
    assert stub.requests[0].target == "/radfound/adapters/..%2F..%2Ftrain%2Fradfound/activate"
