"""The panel page in Debian's chromium, against the real server."""

import zipfile

import pydicom
import pytest
from pydicom.uid import generate_uid

from ...radfound.reader_study.reading_room import running_browser
from ..conftest import (
    CT,
    SERIES,
    TOKEN,
    VOLUME,
    fill_with_studies,
    running_server,
    write_dicom_series,
)

PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def browser():
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panel")
    studies = folder / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    for number in (1, 2):
        write_dicom_series(folder / f"series{number}")
        uid = generate_uid()
        for path in (folder / f"series{number}").iterdir():
            dataset = pydicom.dcmread(path)
            dataset.SeriesInstanceUID, dataset.SeriesNumber = uid, number
            dataset.save_as(path)
    with zipfile.ZipFile(studies / "two.zip", "w") as file:
        for path in sorted(folder.glob("series?/*")):
            file.write(path, f"{path.parent.name}/{path.name}")
    with running_server(studies, folder / "server.log") as server:
        yield server


@pytest.fixture
def page(browser, server):
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    problems, hosts = [], set()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    yield page
    context.close()
    assert problems == []
    assert hosts <= {server.url.removeprefix("http://")}


def open_panel(page, server, query=""):
    page.goto(f"{server.url}/radfound/panel{query}")
    page.get_by_label("Question", exact=True).wait_for()


def ask(page, question="What is shown?"):
    page.get_by_label("Question", exact=True).fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_role("button", name="Edit").wait_for()


def test_a_question_is_answered_beside_the_pictures_and_its_correction_is_recorded(page, server):
    open_panel(page, server, f"?image={VOLUME}")
    page.locator(".viewport[data-shown]:not([data-shown=''])").wait_for()
    ask(page)
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Your text").fill("A phantom.")
    page.get_by_role("button", name="Save").click()
    assert "Enter your name" in page.get_by_role("status").last.inner_text()
    page.get_by_label("Your name").fill("Dr A")
    page.get_by_role("button", name="Save").click()
    page.locator(".corrected").get_by_text("A phantom.").wait_for()
    [row] = server.get("/radfound/corrections", params={"image": VOLUME}).json()["corrections"]
    assert (row["text"], row["author"], row["verdict"]) == ("A phantom.", "Dr A", "edited")
    page.locator(f".studies li:has-text('{VOLUME}') small:has-text('read')").wait_for()


def test_earlier_corrections_are_shown_when_the_study_is_opened_again(page, server):
    row = {
        "schema": "radfound.correction/1", "id": "panel-earlier", "images": [CT], "task": "vqa",
        "question": "Is it a CT?", "model_text": "No", "verdict": "edited", "text": "Yes, a CT.",
        "author": "Dr B",
    }  # fmt: skip
    assert server.post("/radfound/corrections", json=row).ok
    open_panel(page, server, f"?image={CT}")
    page.get_by_text("Earlier corrections (1)").click()
    page.get_by_text("Yes, a CT.").wait_for()
    page.get_by_text("Corrected by Dr B").wait_for()


def test_the_next_study_is_opened_with_the_reason_for_it(page, server):
    open_panel(page, server)
    page.keyboard.press("n")
    page.get_by_text("Why this study:").wait_for()


def test_a_study_of_several_series_offers_them(page, server):
    open_panel(page, server, "?image=two")
    offers = page.locator(".pictures .tasks button")
    offers.nth(1).wait_for()
    offers.first.click()
    page.locator(".viewport[data-shown]:not([data-shown=''])").wait_for()
    ask(page)


def test_inside_a_viewer_only_the_questions_are_shown(page, server):
    open_panel(page, server, f"?embedded&image={SERIES}")
    assert not page.locator(".studies").is_visible()
    assert not page.locator(".pictures").is_visible()
    ask(page)


def test_a_browser_without_log_in_comes_to_the_panel_after_it(browser, tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    with running_server(studies, tmp_path / "server.log", token=TOKEN) as server:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{server.url}/radfound/panel?image={VOLUME}")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.get_by_label("Question", exact=True).wait_for()
        assert page.url == f"{server.url}/radfound/panel?image={VOLUME}"
        ask(page)
        context.close()


def test_log_in_leads_to_pages_of_this_server_only(tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    with running_server(studies, tmp_path / "server.log", token=TOKEN) as server:
        for then in ("//other.example/", "/\\other.example", "https://other.example"):
            reply = server.post(
                "/radfound/login", data={"token": TOKEN, "then": then}, allow_redirects=False
            )
            assert (reply.status_code, reply.headers["Location"]) == (303, "/")


@pytest.mark.parametrize("name", ["..%2froutes.py", "routes.py", "index.htm", "%2e%2e/own.py"])
def test_the_page_gives_only_its_own_parts(server, name):
    assert server.get(f"/radfound/panel/{name}").status_code == 404


def test_a_slice_that_does_not_exist_is_not_found(server):
    reply = server.get("/radfound/pictures/0/2/99", params={"image": VOLUME})
    assert (reply.status_code, reply.json()["detail"]["code"]) == (404, "not_found")
