"""What a browser is shown: pages of this server alone, and with a token after a log-in."""

import re

import pytest
import requests

from monailabel_app.lib.access import admission as admissions
from monailabel_app.lib.access.admission import AccessError, Admission, GuessingError

from ...radfound.reader_study.reading_room import running_browser
from ..conftest import TOKEN, VOLUME

PAGES = ("/", "/docs", "/radfound/login")
HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def browser():
    with running_browser() as browser:
        yield browser


@pytest.fixture
def page(browser):
    """A page with what went wrong in it and which hosts it asked, as `troubles` and `hosts`."""
    context = browser.new_context()
    page = context.new_page()
    page.troubles, page.hosts = [], set()
    page.on("console", lambda said: page.troubles.append(said.text))
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("request", lambda request: page.hosts.add(request.url.split("/")[2]))
    yield page
    context.close()


def log_in(server, token=TOKEN):
    return requests.post(
        f"{server.url}/radfound/login", data={"token": token}, allow_redirects=False, timeout=30
    )


@pytest.mark.parametrize("path", PAGES)
def test_a_page_names_no_other_host_and_runs_no_script(server, path):
    reply = server.get(path, headers=HTML)
    assert reply.ok
    assert not re.search(r"https?://|//[a-z]|<script|<link|<img|javascript:", reply.text)


@pytest.mark.parametrize(
    "path", [*PAGES, "/logs/", "/info/", "/datastore/?output=all", "/no/such/page", "/ohif/"]
)
def test_every_reply_is_kept_to_itself(server, path):
    headers = server.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] in ("no-referrer", "same-origin")
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == ("'self'" if path == "/ohif/" else "'none'")
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "'unsafe-eval'" not in policy.get("script-src", "") + policy["default-src"]


def test_refusals_are_kept_to_themselves_too(guarded):
    for headers in ({}, {"Host": "stranger.example"}, {"Origin": "null"}):
        refused = requests.get(f"{guarded.url}/info/", headers=headers, timeout=30)
        assert refused.headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_the_first_page_lists_every_route(server):
    shown = server.get("/").text
    for path in server.get("/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in shown


def test_the_log_is_shown_by_its_last_lines(server):
    reply = server.get("/logs/?lines=10000", headers=HTML)
    assert reply.headers["Content-Type"].startswith("text/plain")
    everything = reply.text.splitlines()
    assert server.get("/logs/?lines=2&html=true").text.splitlines() == everything[-2:]
    for lines in ("0", "-1", "10001", "9" * 20, "x"):
        assert server.get(f"/logs/?lines={lines}").status_code == 422


def test_the_viewer_works_under_its_policy(server, page):
    page.goto(f"{server.url}/ohif/")
    page.get_by_text("Study List").first.wait_for()
    assert [text for text in page.troubles if "Content Security Policy" in text] == []
    assert page.hosts == {server.url.split("/")[2]}


def test_a_browser_logs_in_looks_around_and_logs_out(guarded, page):
    page.goto(guarded.url)
    page.get_by_label("Token").fill("a-wrong-token-of-some-length")
    page.get_by_role("button", name="Log in").click()
    assert "wrong token" in page.get_by_role("alert").inner_text()

    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="RadFound", exact=True).wait_for()
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("link", name="/info/").click()
    assert "radfound_vqa" in page.inner_text("body")
    page.goto(f"{guarded.url}/datastore/?output=all")
    assert VOLUME in page.inner_text("body")

    page.goto(guarded.url)
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Token").wait_for()
    assert page.goto(f"{guarded.url}/info/").status == 401
    assert page.hosts == {guarded.url.split("/")[2]}


def test_the_cookie_is_no_token_and_stays_with_this_server(guarded):
    reply = log_in(guarded)
    assert (reply.status_code, reply.headers["Location"]) == (303, "/")
    cookie = reply.headers["Set-Cookie"]
    assert TOKEN not in cookie and "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert "Secure" not in cookie  # a browser would not send it back by plain HTTP
    assert "; Secure" in requests.post(
        f"{guarded.url}/radfound/login", data={"token": TOKEN}, allow_redirects=False,
        headers={"X-Forwarded-Proto": "https"}, timeout=30,
    ).headers["Set-Cookie"]  # fmt: skip


def test_a_cookie_opens_nothing_to_pages_of_others(guarded):
    cookies = log_in(guarded).cookies
    info = f"{guarded.url}/info/"
    assert requests.get(info, cookies=cookies, timeout=30).ok
    for headers in (
        {"Origin": "http://stranger.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert requests.get(info, cookies=cookies, headers=headers, timeout=30).status_code == 403


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "x", "é" * 20, "x" * 100_000])
def test_a_wrong_token_logs_nobody_in(guarded, token):
    reply = log_in(guarded, token)
    assert reply.status_code == 401 and "Set-Cookie" not in reply.headers


def test_a_server_without_a_token_asks_nobody_to_log_in(server):
    assert server.get("/radfound/login").ok
    assert (
        server.post("/radfound/login", data={"token": "x"}, allow_redirects=False).headers[
            "Location"
        ]
        == "/"
    )


@pytest.fixture
def clock(monkeypatch):
    """The time that admissions go by, as a list of one number."""
    now = [1000.0]
    monkeypatch.setattr(admissions.time, "monotonic", lambda: now[0])
    return now


def test_log_ins_end_by_themselves_by_a_log_out_and_when_there_are_too_many(clock):
    admission = Admission(TOKEN.encode())
    first, second = admission.log_in(TOKEN, "a"), admission.log_in(TOKEN, "a")
    admission.log_out(first)
    assert (admission.is_logged_in(first), admission.is_logged_in(second)) == (False, True)
    clock[0] += admissions.LOG_IN_LASTS_S
    assert not admission.is_logged_in(second)
    many = [admission.log_in(TOKEN, "a") for _ in range(1000)]
    assert [admission.is_logged_in(each) for each in (many[0], many[-1])] == [False, True]
    assert not admission.is_logged_in("")


def test_who_keeps_guessing_must_wait_and_nobody_else(clock):
    admission = Admission(TOKEN.encode())
    wrong = 0
    with pytest.raises(GuessingError) as refused:
        while True:
            try:
                admission.check("wrong", "a")
            except AccessError:
                wrong += 1
    assert 20 < wrong <= 100
    with pytest.raises(GuessingError):
        admission.check(TOKEN, "a")
    admission.check(TOKEN, "b")
    clock[0] += refused.value.retry_after_s + 1
    admission.check(TOKEN, "a")


def test_the_addresses_of_those_who_guess_are_not_kept_without_end(clock):
    admission = Admission(TOKEN.encode())
    for number in range(5000):
        with pytest.raises(AccessError):
            admission.check("wrong", str(number))
    assert len(admission._wrong) < 2000
