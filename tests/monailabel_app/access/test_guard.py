"""Who is let in, how much they may send, and what the server counts and logs of it."""

import asyncio
import json
import socket

import pytest
import requests
from RadFoundLib.net.client import Client
from RadFoundLib.net.errors import ClientError

from monailabel_app.lib.access import TOKEN_HEADER, BodyLimit, Gate, Rules
from radfound.exceptions import RequestError

from ..conftest import TOKEN, VOLUME, running_server

CLOSED = ("/", "/docs", "/openapi.json", "/static/", "/info/", "/datastore/", "/logs/",
          "/radfound/health", "/radfound/metrics", "/radfound/corrections", "/no/such/route")  # fmt: skip


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("shown", [{}, {"Authorization": f"Bearer {TOKEN}x"}, {TOKEN_HEADER: "é"}])
def test_no_route_answers_without_the_token(guarded, path, shown):
    shown = {name: value.encode("utf-8") for name, value in shown.items()}
    response = requests.get(guarded.url + path, headers=shown, timeout=30)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["detail"]["code"] == "token_needed"


@pytest.mark.parametrize("shown", [{"Authorization": f"bearer {TOKEN}"}, {TOKEN_HEADER: TOKEN}])
def test_the_token_opens_every_route(guarded, shown):
    for path in ("/", "/info/", "/radfound/health"):
        assert requests.get(guarded.url + path, headers=shown, timeout=30).ok


def test_slicers_client_is_let_in_by_the_token(guarded):
    assert Client(guarded.url, TOKEN).info().checkpoint == "radfound-tiny"
    for token in (None, "another-token"):
        with pytest.raises(ClientError, match="token"):
            Client(guarded.url, token).info()


@pytest.mark.parametrize(
    ("path", "method"), [("/infer/radfound_caption", "post"), ("/datastore/", "put")]
)
@pytest.mark.parametrize("told", [True, False])
def test_an_upload_beyond_the_limit_is_refused_whether_it_tells_its_size_or_not(
    guarded, path, method, told
):
    body = requests.Request(
        "PUT", "http://x", files={"file": ("a.nii", b"\0" * (2 << 20))}
    ).prepare()
    content = body.body if told else iter([body.body[:700_000], body.body[700_000:]])
    kind = {"Content-Type": body.headers["Content-Type"]}
    response = getattr(guarded, method)(path, data=content, headers=kind)
    assert response.status_code == 413
    assert "1 MB" in response.json()["detail"]["message"]
    assert "a" not in guarded.get("/datastore/?output=all").json()["objects"]


def test_only_pages_of_origins_that_were_named_may_call(guarded):
    friend = {"Origin": "https://viewer.example", "Sec-Fetch-Site": "cross-site"}
    preflight = {**friend, "Access-Control-Request-Method": "POST"}
    assert guarded.get("/info/", headers=friend).headers["access-control-allow-origin"]
    assert guarded._call("OPTIONS", "/radfound/ask", headers=preflight).ok
    stranger = {**friend, "Origin": "https://elsewhere.example"}
    for method, path in (("GET", "/info/"), ("OPTIONS", "/radfound/ask"), ("GET", "/ohif/")):
        refused = guarded._call(method, path, headers={**preflight, **stranger})
        assert (refused.status_code, code_of(refused)) == (403, "origin_foreign")
        assert "access-control-allow-origin" not in refused.headers


def test_names_are_answered_if_the_server_was_told_them(guarded):
    for host, status in [
        ("ward.example", 200),
        ("proxy.example:8443", 200),
        ("other.example", 421),
    ]:
        assert guarded.get("/info/", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    "lines",
    [
        ["GET /info/ HTTP/1.1"],
        ["GET /info/ HTTP/1.0"],
        ["GET /info/ HTTP/1.1", "Host: {own}", "Host: stranger.example"],
        ["GET /info/ HTTP/1.1", "Host: {own}", "Host: {own}"],
        ["GET http://stranger.example/info/ HTTP/1.1", "Host: {own}"],
        ["GET http://{own}/info/ HTTP/1.1", "Host: stranger.example"],
        ["GET /info/ HTTP/1.1", "Host: x@{own}"],
        ["GET /info/ HTTP/1.1", "Host: {own}", "Origin: null"],
        ["GET /info/ HTTP/1.1", "Host: {own}", "Origin: http://stranger.example", "Upgrade: websocket",
         "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
    ],
)  # fmt: skip
def test_requests_that_no_client_of_this_server_writes_are_refused(server, lines):
    own = server.url.removeprefix("http://")
    text = "\r\n".join([*(line.format(own=own) for line in lines), "Connection: close", "", ""])
    with socket.create_connection(("127.0.0.1", int(own.rpartition(":")[2])), timeout=30) as line:
        line.sendall(text.encode())
        status = int(line.makefile("rb").readline().split()[1])
    assert 400 <= status < 500


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/radfound/ask"), ("post", "/radfound/corrections"), ("post", "/train/radfound"), ("post", "/train/"),
        ("delete", "/train/"), ("post", "/batch/infer/radfound_vqa"), ("delete", "/batch/infer"),
        ("post", "/scoring/radfound"), ("post", "/scoring/"), ("post", "/activelearning/first"),
        ("post", "/radfound/adapters/base/activate"), ("post", "/radfound/adapters/rollback"),
        ("delete", "/datastore/image?id=none"), ("delete", "/datastore/label?id=none&tag=final"),
        ("delete", "/session/none"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_where_json_is_meant(server, method, path):
    call = getattr(server, method)
    for kind, body in [("text/plain", "{}"), ("text/plain;application/json", "{}"), (None, "{}"),
                       ("application/x-www-form-urlencoded", "a=b"), ("application/octet-stream", "{}"),
                       ("multipart/form-data; boundary=x", "--x--")]:  # fmt: skip
        refused = call(path, data=body.encode(), headers={"Content-Type": kind})
        assert (refused.status_code, code_of(refused)) == (415, "content_type_wrong"), kind


def test_json_and_nothing_at_all_are_taken(server):
    for headers in (
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "Application/JSON"},
    ):
        assert server.post("/activelearning/first", data="{}", headers=headers).ok
    assert server.post("/activelearning/first").ok
    assert server.post(
        "/activelearning/first", data=iter([])
    ).ok  # in chunks, of which there are none


def code_of(response):
    return response.json()["detail"]["code"]


def test_metrics_tell_counts_and_times_and_no_id(guarded):
    question = "Has Mrs Secretname a fracture"
    assert guarded.ask(VOLUME, question).ok
    assert guarded.ask(VOLUME, question).ok
    guarded.get("/session/Secretname")
    found = guarded.get("/radfound/metrics").text
    for line in (
        'radfound_requests_total{method="POST",route="/infer/{model}",status="200"} 2.0',
        'radfound_requests_total{method="GET",route="/session/{session_id}",status="404"} 1.0',
        'radfound_first_token_seconds_count{task="vqa"} 2.0',
        'radfound_answer_seconds_count{task="vqa"} 2.0',
        "radfound_answers_waiting 0.0",
        "radfound_training_running 0.0",
        'radfound_cache_total{cache="study",found="hit"} 1.0',
        'radfound_cache_total{cache="study",found="miss"} 1.0',
        'radfound_cache_total{cache="prefix",found="hit"} 1.0',
        'radfound_cache_total{cache="prefix",found="miss"} 1.0',
    ):
        assert line in found, found
    assert "radfound_tokens_total" in found
    assert "Secretname" not in found and VOLUME not in found


def test_logs_hold_no_name_of_an_image_or_path_or_token(guarded):
    guarded.ask("Secretname")
    guarded.get("/Secretname")
    guarded.put("/datastore/", files={"file": ("Secretname.nii", b"x")})
    log = guarded.log.read_text()
    assert not [word for word in ("Secretname", TOKEN, VOLUME) if word in log]


def test_without_a_token_only_this_machine_is_answered(tmp_path):
    address = _address_of_this_machine()
    (tmp_path / "studies").mkdir()
    with running_server(tmp_path / "studies", tmp_path / "server.log", host="0.0.0.0") as server:
        response = requests.get(server.url.replace("127.0.0.1", address) + "/info/", timeout=30)
        assert response.status_code == 403
        assert "RADFOUND_TOKEN" in response.json()["detail"]["message"]
        assert server.get("/info/").ok


def _address_of_this_machine():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but its own loopback")
        return probe.getsockname()[0]


@pytest.mark.parametrize("token", ["", "short", "with a blank in it", "ünsäglich-ünsäglich"])
def test_a_token_that_is_none_stops_the_start(monkeypatch, token):
    monkeypatch.setenv("RADFOUND_TOKEN", token)
    with pytest.raises(RequestError, match="RADFOUND_TOKEN"):
        Rules.of({})


def test_a_token_may_lie_in_a_file(tmp_path, monkeypatch):
    (tmp_path / "token").write_text(TOKEN + "\n")
    monkeypatch.setenv("RADFOUND_TOKEN_FILE", str(tmp_path / "token"))
    assert Rules.of({}).token == TOKEN.encode()


def test_an_open_server_without_a_token_is_warned_of(monkeypatch, caplog):
    monkeypatch.delenv("RADFOUND_TOKEN", raising=False)
    assert Rules.of({"open": "yes"}).is_open
    assert "ANY MACHINE" in caplog.text


@pytest.mark.parametrize(
    "conf",
    [
        {"open": "maybe"},
        {"max_upload_mb": "0"},
        {"max_upload_mb": "x"},
        {"hosts": "a b"},
        {"origins": "null"},
    ],
)
def test_a_setting_that_is_none_is_named(conf):
    with pytest.raises(RequestError, match=next(iter(conf))):
        Rules.of(conf)


@pytest.mark.parametrize(
    ("client", "status"), [("127.0.0.1", 200), ("::1", 200), ("10.0.0.7", 403), ("testclient", 403)]
)
def test_the_callers_address_decides_where_there_is_no_token(client, status):
    assert _status_of(Gate(_fine, Rules()), client=(client, 1)) == status


def test_the_proxy_of_a_dicom_server_passes_no_token_on():
    seen = {}

    async def noting(scope, receive, send):
        seen[scope["path"]] = dict(scope["headers"])
        await _fine(scope, receive, send)

    headers = [
        (b"authorization", f"Bearer {TOKEN}".encode()),
        (b"cookie", b"a=b"),
        (b"accept", b"*/*"),
    ]
    for path in ("/proxy/dicom/qido/studies", "/info/"):
        _status_of(Gate(noting, Rules(TOKEN.encode())), path=path, headers=headers)
    assert seen == {"/proxy/dicom/qido/studies": {b"accept": b"*/*"}, "/info/": dict(headers)}


def test_a_body_without_a_file_has_a_limit_of_its_own():
    guard = BodyLimit(_fine, Rules())
    assert _status_of(guard, headers=[(b"content-length", b"17000000")]) == 413
    assert _status_of(guard, headers=[(b"content-length", b"-1")]) == 413
    assert _status_of(guard, headers=[(b"content-length", b"1700")]) == 200


async def _fine(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps({}).encode()})


def _status_of(app, **scope):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b""}

    asyncio.run(app({"type": "http", "path": "/", "headers": [], **scope}, receive, send))
    return sent[0]["status"]
