"""What lies at the edge of what a caller may send is answered, with a 4xx where it is wrong, and breaks no route."""

import hashlib
import json
import socket
from urllib.parse import urlsplit

import pytest

from ..conftest import CT, SERIES, VOLUME, fill_with_studies, running_server

EDGES = ("1e400", "-1e400", "NaN", "Infinity", str(2**63), str(-(2**63) - 1), "9" * 20, "9" * 5000, "-1", "1.5")  # fmt: skip
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of its own: readers with odd names take every study."""
    folder = tmp_path_factory.mktemp("edges")
    (folder / "studies").mkdir()
    fill_with_studies(folder / "studies")
    with running_server(folder / "studies", folder / "server.log") as server:
        yield server


def is_answered(response):
    return response.status_code < 500 or response.headers.get("Retry-After")


@pytest.mark.parametrize("path", ["/logs/gpu", "/ohif/..", "/ohif/../..", "/ohif/%00", "/ohif/" + "x" * 5000,
                                  "/ohif/..%2f..%2f..", "/ohif/%ff%fe", "/static/..%2f..", "/static/%ff",
                                  "/session/%ff", "/datastore/image?image=%ff%fe"])  # fmt: skip
def test_an_odd_path_is_no_failure_of_the_server(server, path):
    assert raw(server, "GET", path) < 500


def raw(server, method, path, *headers):
    """Send a request line as it is, which `requests` would put right; return the status."""
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=60) as line:
        head = [f"{method} {path} HTTP/1.1", f"Host: {place.netloc}", "Connection: close", *headers]
        line.sendall("\r\n".join((*head, "", "")).encode("latin-1"))
        return int(line.makefile("rb").readline().split()[1])


def test_the_viewer_is_served_with_its_files(server):
    page = server.get("/ohif/")
    assert page.ok and "html" in page.headers["Content-Type"]
    assert server.get("/ohif/app-config.js").text != page.text
    assert server.get("/ohif/viewer?StudyInstanceUIDs=1").text == page.text


@pytest.mark.parametrize(
    ("check_sum", "status"),
    [
        ("{sha256}", 200),
        ("SHA256:{sha256}", 200),
        ("MD5:{md5}", 200),
        ("SHA256:{md5}", 404),
        ("CRC32:1", 400),
        ("::", 400),
        ("\u0000:1", 400),
        ("é", 404),
    ],
)
def test_a_checksum_of_an_image_is_compared_or_refused(server, check_sum, status):
    content = (server.studies / f"{VOLUME}.nii.gz").read_bytes()
    sums = {name: hashlib.new(name, content).hexdigest() for name in ("sha256", "md5")}
    params = {"image": VOLUME, "check_sum": check_sum.format(**sums)}
    assert server.head("/datastore/image", params=params).status_code == status


def test_a_checksum_of_a_folder_is_refused(server):
    params = {"image": SERIES, "check_sum": "MD5:1"}
    assert server.head("/datastore/image", params=params).status_code == 404


@pytest.mark.parametrize("number", EDGES)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/scoring/radfound", '{"limit": %s}'),
        ("/scoring/radfound", '{"no_setting": %s, "limit": -1}'),
        ("/scoring/", '{"radfound": {"limit": %s, "questions": []}}'),
        ("/train/radfound", '{"max_steps": %s, "learning_rate": -1}'),
        ("/train/", '{"radfound": {"tolerance": %s, "max_steps": -1}}'),
        ("/batch/infer/radfound_caption", '{"max_new_tokens": %s, "max_workers": -1}'),
        ("/activelearning/first", '{"client_id": %s, "unknown": [%s]}'),
        ("/radfound/ask", '{"image": "ct", "question": "Why?", "max_new_tokens": %s}'),
        ("/radfound/ask", '{"image": "ct", "question": "Why?", "volume": %s, "max_new_tokens": 1}'),
        ("/radfound/ask", '{"image": "ct", "task": "caption", "region": {"slice_mm": {"point": [0, 0, %s], "normal": [0, 0, 1]}}}'),
        ("/radfound/corrections", '{"schema": "radfound.correction/1", "id": %s}'),
    ],
)  # fmt: skip
def test_a_number_at_the_edge_is_no_failure_of_the_server(server, path, body, number):
    response = server.post(path, data=body.replace("%s", number), headers=JSON)
    assert is_answered(response), response.text
    for status in ("/scoring/", "/train/", "/batch/infer"):
        assert server.get(f"{status}?all=true").status_code in (200, 404)


@pytest.mark.parametrize("number", EDGES)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/logs/?lines=%s&html=false"),
        ("get", "/logs/?refresh=%s"),
        ("get", "/datastore/dataset?limit_cases=%s"),
        ("get", "/radfound/corrections?latest=%s"),
        ("get", "/train/?all=%s"),
    ],
)
def test_a_number_at_the_edge_of_an_address_is_no_failure_either(server, method, path, number):
    response = getattr(server, method)(path.replace("%s", number))
    assert is_answered(response), response.text


@pytest.mark.parametrize("body", ["{", "[" * 100_000, '{"x": %s}' % ("9" * 5000), b"\xff\xfe"])
@pytest.mark.parametrize(
    "path", ["/infer/radfound_vqa?image=ct", "/train/radfound", "/radfound/ask"]
)
def test_a_body_that_is_no_json_is_refused(server, path, body):
    response = server.post(path, data=body, headers=JSON)
    assert 400 <= response.status_code < 500, response.text


def test_a_form_field_holds_finite_numbers_only(server):
    params = '{"question": "What?", "anything": 1e400}'
    response = server.post(f"/infer/radfound_vqa?image={CT}", data={"params": params})
    assert response.status_code == 400 and "not finite" in response.text


@pytest.mark.parametrize("header", [
    "Content-Length: -1", "Content-Length: 99999999999999999999999", "Content-Length: ²",
    "Range: bytes=9999999999999999999999-", "Range: bytes=-", "If-Modified-Since: ÿ", "Accept-Encoding: \x00",
    "Content-Type: application/json; charset=no-such", "Cookie: \xff=\xff", "Authorization: Bearer \xff",
])  # fmt: skip
@pytest.mark.parametrize(
    "path", ["/radfound/health", f"/datastore/image?image={VOLUME}", "/static/"]
)
def test_an_odd_header_is_no_failure_of_the_server(server, path, header):
    assert raw(server, "GET", path, header) < 500


def test_head_is_answered_on_every_route_that_is_read(server):
    paths = server.get("/openapi.json").json()["paths"]
    read = [path for path, methods in paths.items() if "get" in methods]
    assert len(read) > 10
    for path in read:
        assert server.head(path.replace("{", "").replace("}", "")).status_code < 500, path


@pytest.mark.parametrize("body", ["\ud800", {"client_id": "\ud800"}, {"\udfff": ["\ud800"]}])
def test_half_a_character_is_no_failure_of_the_server(server, body):
    for path in ("/activelearning/first", "/train/radfound", "/scoring/radfound", "/radfound/ask"):
        asked = {**body, "max_steps": -1, "limit": -1} if isinstance(body, dict) else body
        response = server.post(path, data=json.dumps(asked), headers=JSON)
        assert response.status_code < 500, response.text
