"""Pages of other origins in a real browser, and what they bring about: nothing."""

import http.server
import json
import re
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from monailabel.client import MONAILabelClient
from RadFoundLib.net.client import Client

from ...radfound.reader_study.reading_room import running_browser
from ..conftest import CT, VOLUME

REBOUND = "rebound.example"
ATTACKS = Path(__file__).with_name("attacks.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser():
    """A browser with one name rebound to this machine, and without a guard of its own for it."""
    with running_browser(
        f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
        "--disable-features=LocalNetworkAccessChecks,PrivateNetworkAccessRespectPreflightResults",
    ) as browser:
        yield browser


@pytest.fixture(params=["server", "guarded"], ids=["without a token", "with a token"])
def target(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def elsewhere():
    """The port of another web server of this machine, whose pages are empty."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def answered(server):
    """How often each route has answered with success, but for those that the test itself calls."""
    counts = re.findall(
        r'radfound_requests_total\{method="(\w+)",route="([^"]+)",status="[23]\d\d"\} ([\d.]+)',
        server.get("/radfound/metrics").text,
    )
    own = [("GET", f"/radfound/{name}") for name in ("metrics", "health", "corrections")]
    return {(method, route): n for method, route, n in counts if (method, route) not in own}


def refused(server):
    """How many requests have been refused for where they came from."""
    counts = re.findall(r'status="(?:403|421)"\} ([\d.]+)', server.get("/radfound/metrics").text)
    return sum(float(count) for count in counts)


@contextmanager
def page_at(browser, address):
    """An empty page of that address, also where another server answers there."""
    context = browser.new_context()
    page = context.new_page()
    page.route(address, lambda route: route.fulfill(body="<p>", content_type="text/html"))
    page.goto(address)
    page.unroute(address)
    try:
        yield page
    finally:
        context.close()


@pytest.mark.parametrize(
    ("stranger", "aim"),
    [
        ("http://127.0.0.1:{elsewhere}", "http://127.0.0.1:{port}"),
        ("http://localhost:{elsewhere}", "http://localhost:{port}"),
        ("http://stranger.example", "http://127.0.0.1:{port}"),
        (f"http://{REBOUND}:{{port}}", f"http://{REBOUND}:{{port}}"),
    ],
)
def test_a_strangers_page_reads_corrects_trains_and_activates_nothing(
    browser, target, elsewhere, stranger, aim, correction
):
    ports = {"port": target.url.rpartition(":")[2], "elsewhere": elsewhere}
    origin, aim = stranger.format(**ports), aim.format(**ports)
    stolen = correction(author="Dr. Victim")
    before, refused_before = answered(target), refused(target)
    with page_at(browser, f"{origin}/page.html") as page:
        read = page.evaluate(ATTACKS, [aim, VOLUME, CT, stolen])
    assert answered(target) == before
    assert refused(target) >= refused_before + 40
    assert [name for name, text in read.items() if VOLUME in text or "corrections" in text] == []
    assert stolen["id"] not in target.get("/radfound/corrections").text


def test_clients_that_are_no_browser_go_on(target, tmp_path):
    client = Client(target.url, target.token)
    assert client.info().checkpoint == "radfound-tiny"
    stock = MONAILabelClient(target.url, tmpdir=str(tmp_path))
    if target.token:
        stock.update_auth({"token_type": "Bearer", "access_token": target.token})
    assert set(stock.info()["trainers"]) == {"radfound"}
    _, answer = stock.infer("radfound_vqa", CT, {"question": "What is shown?"})
    assert json.loads(answer)["images"] == [CT]
    assert stock.next_sample("first", {})["id"]
