"""An archive that is down, refuses, or never answers; credentials and certificates; the proxy."""

import json
import socket
import threading
import time
from contextlib import closing, contextmanager

import pytest

from monailabel_app.lib.pacs.datastore import PacsDatastore
from monailabel_app.lib.pacs.settings import PacsSettings
from radfound.exceptions import PacsRefusedError, PacsTimeoutError, PacsUnreachableError

from .conftest import serving
from .orthanc import Orthanc
from .synthetic import (
    study_uid,
    write_ct_study,
    write_mammogram,
    write_radiograph,
)
from .tls_proxy import make_certificates, proxy

pytestmark = pytest.mark.pacs

TOKEN = "zitronengelb-und-geheim"


@pytest.fixture(scope="module")
def fragile(tools, tmp_path_factory):
    """An archive that the tests stop and start, and its server."""
    folder = tmp_path_factory.mktemp("fragile")
    for write in (write_ct_study, write_mammogram, write_radiograph):
        write(folder / "files")
    with Orthanc(folder / "orthanc") as archive:
        archive.upload(folder / "files")
        with serving(archive, folder / "server", ("pacs_timeout_s", 2)) as server:
            assert server.ask(study_uid("mg")).status_code == 200
            yield server, archive


@contextmanager
def black_hole(port):
    """A socket that accepts connections and never answers."""
    with closing(socket.socket()) as hole:
        hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hole.bind(("127.0.0.1", port))
        hole.listen(64)
        yield


def seconds_of(call):
    began = time.monotonic()
    reply = call()
    assert reply.status_code == 200
    return time.monotonic() - began


def error_of(reply):
    return reply.status_code, reply.json()["detail"]["code"]


def wait_for(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def assert_prompt(server):
    for path in ("/radfound/health", "/info/"):
        assert seconds_of(lambda path=path: server.get(path)) < 1


def test_a_server_outlives_its_archive(fragile):
    server, archive = fragile
    archive.stop()
    try:
        reply = server.ask(study_uid("ct"))
        assert error_of(reply) == (502, "pacs_unreachable")
        assert "check that it runs" in reply.json()["detail"]["message"]
        # A study that is here already may still be chosen.
        assert server.post("/activelearning/first", json={}).status_code in (200, 502)
        assert_prompt(server)
        health = server.get("/radfound/health").json()
        assert health["status"] == "ok" and health["pacs"]["reachable"] is False

        with black_hole(archive.port):
            time.sleep(3)  # after a failure, requests fail at once for a while
            assert error_of(server.ask(study_uid("ct"))) == (504, "pacs_timeout")
            assert_prompt(server)
            slow = [
                threading.Thread(target=server.get, args=("/proxy/dicom/wado/studies",))
                for _ in range(24)
            ]
            time.sleep(3)
            for each in slow:
                each.start()
            assert_prompt(server)
            for each in slow:
                each.join()

        password = archive.password
        conf = archive.folder / "orthanc.json"
        original = conf.read_text()
        conf.write_text(original.replace(json.dumps(password), json.dumps("another")))
        archive.password = "another"
        archive.start()
        time.sleep(3)
        reply = server.ask(study_uid("ct"))
        assert error_of(reply) == (502, "pacs_refused")
        assert "user and password" in reply.json()["detail"]["message"]
        archive.stop()
        conf.write_text(original)
        archive.password = password
    finally:
        archive.start()
    time.sleep(3)
    assert server.ask(study_uid("ct")).status_code == 200
    wait_for(lambda: server.get("/radfound/health").json()["pacs"]["reachable"])


def test_a_correction_is_recorded_while_the_archive_is_down(fragile, correction):
    server, archive = fragile
    archive.stop()
    try:
        sent = server.post("/radfound/corrections", json=correction(study_uid("cr")))
        assert sent.status_code == 200 and sent.json()["recorded"] is True
    finally:
        archive.start()


def test_the_proxy_keeps_the_query_and_only_reads(pacs, archive):
    found = pacs.get("/proxy/dicom/qido/studies", params={"PatientID": "PID-77124"})
    assert found.status_code == 200
    assert [row["0020000D"]["Value"][0] for row in found.json()] == [study_uid("mg")]
    direct = archive.get("/dicom-web/studies", params={"PatientID": "PID-77124"}).json()
    assert [row["0020000D"] for row in found.json()] == [row["0020000D"] for row in direct]
    series = pacs.get(f"/proxy/dicom/wado/studies/{study_uid('mg')}/metadata")
    assert series.status_code == 200 and len(series.json()) == 4
    image = pacs.get(f"/proxy/dicom/wado/studies/{study_uid('mg')}")
    assert image.headers["content-type"].startswith("multipart/related")
    written = pacs.post("/proxy/dicom/studies", json={})
    assert written.status_code == 405 and written.json()["detail"]["code"] == "read_only"
    for path in ("system", "../instances", "studies/../../system"):
        assert pacs.get(f"/proxy/dicom/{path}").status_code == 404


def store_at(url, folder, **conf):
    conf = {name: str(value) for name, value in conf.items()}
    return PacsDatastore(folder / "state", folder / "uploads", PacsSettings.of(url, conf, {}))


def test_bearer_token_and_client_certificate_are_shown(archive, tmp_path, monkeypatch):
    ca, pem = make_certificates(tmp_path, "hospital")
    foreign_ca, foreign_pem = make_certificates(tmp_path, "foreign")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(foreign_ca))
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    good = {"pacs_token_file": token, "pacs_ca": ca, "pacs_certificate": pem}
    with proxy(archive, TOKEN, certificate=pem, ca=ca) as front:
        store = store_at(front.url, tmp_path / "right", **good)
        assert study_uid("mg") in store.list_images()
        assert len(store.parts(study_uid("mg")).paths) == 4

        for name, change in {
            "no-certificate": {"pacs_certificate": ""},
            "foreign-certificate": {"pacs_certificate": foreign_pem},
            "foreign-ca": {"pacs_ca": foreign_ca},
        }.items():
            with pytest.raises((PacsRefusedError, PacsUnreachableError)):
                store_at(front.url, tmp_path / name, **{**good, **change}).list_images()

        wrong = tmp_path / "wrong"
        wrong.write_text("something-else")
        with pytest.raises(PacsRefusedError, match="pacs_token_file"):
            store_at(front.url, tmp_path / "wrong-token", **{**good, "pacs_token_file": wrong}).list_images()  # fmt: skip

        front.token = "a-new-token"
        token.write_text("a-new-token")
        assert store.archive.check().is_reachable, "the file is read again"


def test_an_address_without_dicomweb_is_named(archive, tmp_path):
    store = store_at(archive.url, tmp_path)
    with pytest.raises(PacsRefusedError):
        store.list_images()


def test_after_a_failure_a_loop_over_studies_does_not_wait_for_each(tmp_path):
    with closing(socket.socket()) as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(8)
        store = store_at(f"http://127.0.0.1:{hole.getsockname()[1]}", tmp_path, pacs_timeout_s=1)
        began = time.monotonic()
        for number in range(50):
            with pytest.raises(PacsTimeoutError):
                store.path_of(f"1.2.{number}")
        assert time.monotonic() - began < 8
