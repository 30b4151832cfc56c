"""Which requests are of a server's own pages, or of no page, by their headers."""

import asyncio

import pytest

from radfound.exceptions import RequestError
from radfound.same_origin import Authority, SameOrigin

SERVED = ("192.0.2.7", 8000)
OWN = "192.0.2.7:8000"


def status_of(headers=(), *, hosts=(), origins=(), **scope):
    """What a server at SERVED answers to a request with these headers."""
    sent = []

    async def fine(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    guard = SameOrigin(fine, [Authority.parse(host) for host in hosts], origins)
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    request = {"type": "http", "scheme": "http", "path": "/", "server": SERVED, "method": "GET"}
    asyncio.run(guard({**request, "headers": pairs, **scope}, None, send))
    return sent[0].get("status", sent[0]["type"])


@pytest.mark.parametrize("host", [OWN, "localhost:8000", "LocalHost:8000", "127.0.0.1:8000", "[::1]:8000",
                                  "[0:0:0:0:0:0:0:1]:8000"])  # fmt: skip
def test_own_addresses_are_answered(host):
    assert status_of([("Host", host)]) == 200


@pytest.mark.parametrize(
    "host",
    [
        "stranger.example:8000", "stranger.example", "localhost.stranger.example:8000", "192.0.2.8:8000",
        "localhost:8001", "localhost", "localhost.:8000", "127.0.0.1.:8000", "0.0.0.0:8000", "2130706433:8000",
    ],
)  # fmt: skip
def test_other_names_and_ports_are_not(host):
    assert status_of([("Host", host)]) == 421


@pytest.mark.parametrize(
    "hosts",
    [
        [], [""], [OWN, OWN], [OWN, "stranger.example"], ["user@localhost:8000"], ["a:b@localhost:8000"],
        ["localhost:8000/x"], ["localhost:800000"], ["localhost:"], ["[::1:8000"], ["localhost:8000,evil"],
        ["localh\u00f6st:8000"], ["local host:8000"],
    ],
)  # fmt: skip
def test_no_host_several_or_a_malformed_one_is_refused(hosts):
    assert status_of([("Host", host) for host in hosts]) == 400


@pytest.mark.parametrize("path", ["http://stranger.example/info/", "*", ""])
def test_a_target_that_names_a_host_itself_is_refused(path):
    assert status_of([("Host", OWN)], path=path) == 400


def test_what_a_proxy_is_said_to_have_been_called_by_counts_for_nothing():
    assert status_of([("Host", "stranger.example"), ("X-Forwarded-Host", OWN)]) == 421
    assert status_of([("Host", OWN), ("X-Forwarded-Host", "stranger.example")]) == 200


def test_names_that_the_server_was_told_are_answered():
    for host, status in [("radfound.example", 200), ("RADFOUND.example:8443", 200), ("ward:80", 200),
                         ("ward", 421), ("x.radfound.example", 421)]:  # fmt: skip
        assert status_of([("Host", host)], hosts=["radfound.example", "ward:80"]) == status, host


@pytest.mark.parametrize(
    ("served", "host"),
    [(("::1", 8000), "[::1]:8000"), (("::ffff:192.0.2.7", 8000), OWN), (("2001:db8::7", 8000), "[2001:DB8::7]:8000"),
     (("192.0.2.7", 80), "192.0.2.7"), (("/run/radfound.sock", None), "localhost")],
)  # fmt: skip
def test_the_address_of_the_connection_is_the_servers_own(served, host):
    assert status_of([("Host", host)], server=served) == 200


@pytest.mark.parametrize("origin", [f"http://{OWN}", f"HTTP://{OWN}"])
def test_own_pages_may_call(origin):
    site = ("Sec-Fetch-Site", "same-origin")
    assert status_of([("Host", OWN), ("Origin", origin), site]) == 200
    assert status_of([("Host", OWN), site]) == 200
    assert status_of([("Host", OWN), ("Sec-Fetch-Site", "none")]) == 200


@pytest.mark.parametrize(
    "origin",
    [
        "null", "", "http://stranger.example", "http://localhost:8000", "http://192.0.2.7", f"https://{OWN}",
        "http://192.0.2.7:8001", f"http://{OWN}.stranger.example", f"http://user@{OWN}", f"http://{OWN}/",
        f"file://{OWN}", OWN, "chrome-extension://abc",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_pages_of_other_origins_may_not(origin, kind):
    refused = 403 if kind == "http" else "websocket.close"
    scheme = "ws" if kind == "websocket" else "http"
    headers = [("Host", OWN), ("Origin", origin)]
    assert status_of(headers, type=kind, scheme=scheme) == refused
    assert status_of([*headers, ("Origin", f"http://{OWN}")], type=kind, scheme=scheme) == refused


@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
def test_what_a_browser_calls_foreign_is_refused_without_an_origin(site):
    assert status_of([("Host", OWN), ("Sec-Fetch-Site", site)]) == 403


def test_origins_that_the_server_was_told_may_call():
    headers = [
        ("Host", OWN),
        ("Origin", "https://viewer.example"),
        ("Sec-Fetch-Site", "cross-site"),
    ]
    assert status_of(headers, origins=["https://viewer.example/"]) == 200
    assert status_of(headers, origins=["https://viewer.example:8443"]) == 403
    assert status_of(headers, origins=["http://viewer.example"]) == 403


def test_pages_come_by_tls_through_a_proxy_that_was_named():
    headers = [("Host", "radfound.example"), ("Origin", "https://radfound.example")]
    assert status_of(headers, hosts=["radfound.example"]) == 200
    assert status_of([("Host", "localhost"), ("Origin", "https://localhost")]) == 421


@pytest.mark.parametrize("text", ["", "a b", "http://a", "a:b", "a:99999", "*", "a/b"])
def test_a_name_that_is_none_is_refused_at_the_start(text):
    with pytest.raises(RequestError, match="Host"):
        Authority.parse(text)
