"""The panel page in Debian's chromium, against the real server."""

import json
import zipfile

import pydicom
import pytest
from pydicom.uid import generate_uid

from radfound.question import CANNOT_TELL, IN_THE_FILE

from ...radfound.reader_study.reading_room import running_browser
from ..conftest import (
    CT,
    ROOT,
    SERIES,
    TOKEN,
    VOLUME,
    fill_with_studies,
    running_server,
    write_dicom_series,
)

PATIENCE_MS = 60_000
PAGE = ROOT / "monailabel_app" / "lib" / "browser" / "page"


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


def answer_with(page, **changes):
    """Let the next questions get this answer, as if the server had given it."""
    answer = {
        "schema": "radfound.answer/1", "id": "scripted", "task": "vqa", "images": [VOLUME],
        "question": "What is shown?", "text": "A head.", "sections": None, "confidence": 0.9,
        "uncertainty": 0.1, "evidence": None, "evidence_note": None, "shown": None, "source": "model",
        "reason": None, "model_text": None, "corrected_by": None, "corrected_on": None,
        "contradictions": [], "series": [], "series_rule": None, "finished": True,
        "timings_ms": {"total": 1},
        "model": {"name": "radfound-mini", "revision": "0" * 12, "adapter": None}, **changes,
    }  # fmt: skip
    body = f"event: answer\ndata: {json.dumps(answer)}\n\n"
    page.route(
        "**/radfound/ask", lambda route: route.fulfill(body=body, content_type="text/event-stream")
    )


def ask_for(page, button):
    """Ask, and wait for a button under the answer."""
    page.get_by_label("Question", exact=True).fill("What is shown?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_role("button", name=button).last.wait_for()
    return page.locator("article.turn").last


def test_what_cannot_be_told_can_be_answered_and_neither_accepted_nor_explained(page, server):
    open_panel(page, server, f"?image={VOLUME}")
    answer_with(
        page, text=CANNOT_TELL, confidence=None, reason="it was not seen", model_text="A tumour."
    )
    turn = ask_for(page, "Write the answer")
    for name in ("Accept", "Reject", "Evidence"):
        assert turn.get_by_role("button", name=name).count() == 0
    assert "it was not seen" in turn.inner_text()
    assert "confidence" not in turn.inner_text()
    turn.get_by_text("The model's guess").click()
    turn.get_by_text("A tumour.").wait_for()
    page.get_by_label("Your name").fill("Dr C")
    page.keyboard.press("Escape")
    turn.get_by_role("button", name="Write the answer").click()
    assert page.get_by_label("Your text").input_value() == ""
    page.get_by_label("Your text").fill("A phantom of a head.")
    page.get_by_role("button", name="Save").click()
    page.locator(".corrected").get_by_text("A phantom of a head.").wait_for()
    rows = server.get("/radfound/corrections", params={"image": VOLUME}).json()["corrections"]
    [row] = [row for row in rows if row["author"] == "Dr C"]
    assert (row["verdict"], row["model_text"]) == ("edited", "A tumour.")


def test_a_silent_answer_is_no_context_of_the_next_question(page, server):
    open_panel(page, server, f"?image={VOLUME}")
    answer_with(page, text=CANNOT_TELL, confidence=None)
    ask_for(page, "Write the answer")
    with page.expect_request("**/radfound/ask") as asked:
        ask_for(page, "Write the answer")
    assert "history" not in asked.value.post_data_json


def test_the_header_of_the_file_is_not_called_unsure(page, server):
    open_panel(page, server, f"?image={VOLUME}")
    answer_with(page, text="Axial", confidence=None, source="field", reason=IN_THE_FILE)
    turn = ask_for(page, "Accept")
    assert "confidence" not in turn.inner_text() and IN_THE_FILE in turn.inner_text()
    assert turn.locator(".unsure").count() == 0


def test_what_the_model_was_shown_is_said(page, server):
    open_panel(page, server, f"?image={VOLUME}")
    answer_with(page, shown={"recipe": "slices", "note": "2 of 40 slices", "slices": ["a", "b"]})
    turn = ask_for(page, "Accept")
    assert "2 of 40 slices" in turn.inner_text()


def test_the_page_knows_the_servers_words():
    script = (PAGE / "conversation.js").read_text(encoding="utf-8")
    assert f'"{CANNOT_TELL}"' in script and f'"{IN_THE_FILE}"' in script


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


def test_of_thousands_of_studies_some_are_listed_and_the_others_are_found(page, server):
    studies = [
        {"id": f"s{at}", "name": f"CT chest {at}", "state": "new", "drafts": 0}
        for at in range(5000)
    ]
    page.route("**/radfound/studies", lambda route: route.fulfill(json={"studies": studies}))
    open_panel(page, server, "?image=s4321")
    rows = page.locator(".studies li")
    assert rows.count() == 201 and "CT chest 4321" in rows.first.inner_text()
    assert "4800 more" in page.locator(".studies .more").inner_text()
    page.get_by_label("Find a study").fill("chest 4999")
    page.locator(".studies li:has-text('CT chest 4999')").wait_for()
    assert rows.count() == 2
    page.get_by_label("Find a study").fill("brain")
    page.get_by_text("No study has such a name.").wait_for()


def test_few_studies_need_no_search(page, server):
    open_panel(page, server)
    assert not page.get_by_label("Find a study").is_visible()


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
