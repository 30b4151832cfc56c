"""OHIF in Debian's chromium, on a real archive: images, panel, reports, and nothing from elsewhere."""

import re
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest

from ...radfound.reader_study.reading_room import eventually, running_browser
from ..conftest import TOKEN
from . import synthetic
from .conftest import serving
from .orthanc import Orthanc
from .synthetic import study_uid

pytestmark = pytest.mark.pacs

PATIENCE_MS = 90_000
COMPRESSED = "1.3.6.1.4.1.5962.1.2.8.20040826185059.5457"
SENT = "In the archive"


@pytest.fixture(scope="module")
def browser():
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def archive(tools, tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewed")
    synthetic.write_all(folder / "files")
    with Orthanc(folder / "orthanc") as archive:
        archive.upload(folder / "files")
        yield archive


@pytest.fixture(scope="module")
def server(archive, tmp_path_factory):
    conf = (("pacs_write", "draft"), ("pacs_watch", "notify"))
    with serving(archive, tmp_path_factory.mktemp("ohif"), *conf) as server:
        yield server


@contextmanager
def screen(browser, server):
    """One browser window, which asks no host but the server, and breaks no policy."""
    context = browser.new_context(viewport={"width": 1500, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    addresses, problems = [], []
    page.on("request", lambda request: addresses.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: (
            problems.append(message.text) if "Content Security Policy" in message.text else None
        ),
    )
    yield page
    context.close()
    hosts = {urlsplit(each).netloc for each in addresses if each.startswith(("http", "ws"))}
    assert hosts == {urlsplit(server.url).netloc}
    assert problems == []


@pytest.fixture
def page(browser, server):
    with screen(browser, server) as page:
        yield page


def open_study(page, server, uid):
    """Open a study in OHIF, and return the panel beside its images."""
    page.goto(f"{server.url}/ohif/viewer?StudyInstanceUIDs={uid}")
    page.get_by_text("for investigational use only").wait_for()
    page.get_by_text("Confirm and Hide").click()
    panel = page.frame_locator("iframe[title=RadFound]")
    panel.get_by_label("Question", exact=True).wait_for()
    return panel


def thumbnail(page, text):
    return page.locator("[data-cy^=study-browser-thumbnail]").filter(has_text=text)


def shows_an_image(page):
    """Whether the first viewport holds more than one grey."""
    return page.evaluate(
        """() => {
            const canvas = document.querySelector(".cornerstone-canvas");
            if (!canvas?.width) return false;
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
            return new Set(data.filter((_, at) => at % 4 === 0)).size > 5;
        }"""
    )


def listed(server, study):
    rows = server.get("/radfound/studies").json()["studies"]
    return next(row for row in rows if row["id"] == study_uid(study))


def test_the_viewer_lists_the_archive_without_the_mode_of_monai_label(page, server):
    page.goto(f"{server.url}/ohif/")
    page.get_by_text("Screening mammography").first.wait_for()
    page.get_by_text("PID-77123").first.click()
    page.get_by_role("button", name="Basic Viewer").wait_for()
    assert page.get_by_text("MONAI").count() == 0


@pytest.mark.parametrize("uid", [study_uid("mg"), COMPRESSED], ids=["mammogram", "JPEG 2000"])
def test_images_open(page, server, uid):
    open_study(page, server, uid)
    eventually(lambda: shows_an_image(page), lambda found: found)


def test_the_panel_streams_an_answer_and_takes_a_correction(page, server):
    panel = open_study(page, server, study_uid("deid"))
    eventually(lambda: page.locator("iframe").bounding_box()["width"], lambda width: width > 350)
    panel.get_by_label("Question", exact=True).fill("Ist das ein Pneu?")
    with page.expect_response("**/radfound/ask") as asked:
        panel.get_by_role("button", name="Ask", exact=True).click()
    assert asked.value.headers["content-type"].startswith("text/event-stream")
    panel.get_by_label("Your name").fill("Ann Reader")
    panel.get_by_role("button", name="Edit").click()
    assert panel.get_by_role("button", name="Send draft").count() == 0, "no report"
    assert panel.get_by_role("button", name="Evidence").count() == 0, "not drawn in OHIF"
    panel.get_by_label("Your text").fill("Ja, zitronengelb.")
    panel.get_by_role("button", name="Save").click()
    panel.get_by_text("Corrected", exact=True).wait_for()
    about = {"image": study_uid("deid")}
    [row] = server.get("/radfound/corrections", params=about).json()["corrections"]
    assert (row["text"], row["author"]) == ("Ja, zitronengelb.", "Ann Reader")
    page.reload()
    panel.get_by_text("Earlier corrections (1)").wait_for()


def test_draft_and_report_are_sent_and_open_as_text(page, server, archive):
    panel = open_study(page, server, study_uid("ct"))
    panel.get_by_role("button", name="Report").click()
    panel.get_by_role("button", name="Send draft").click()
    panel.get_by_role("button", name=SENT).wait_for()
    panel.get_by_label("Your name").fill("Ann Reader")
    panel.get_by_role("button", name="Edit").click()
    panel.get_by_label("Your text").fill("Findings: zitronengelb.\n\nImpression: Nichts Akutes.")
    panel.get_by_role("button", name="Save").click()
    panel.get_by_role("button", name="Send to archive").click()
    panel.get_by_role("button", name=SENT).wait_for()
    flags = {report.VerificationFlag for report in archive.reports(study_uid("ct"))}
    assert flags == {"VERIFIED", "UNVERIFIED"}

    page.reload()
    thumbnail(page, "Report, verified by a reader").dblclick()
    page.get_by_text("zitronengelb").first.wait_for()


def test_a_rejected_report_is_not_offered_to_the_archive(page, server):
    panel = open_study(page, server, study_uid("cr"))
    panel.get_by_role("button", name="Report").click()
    panel.get_by_label("Your name").fill("Ann Reader")
    panel.get_by_role("button", name="Reject").click()
    panel.get_by_text("Rejected", exact=True).wait_for()
    assert panel.get_by_role("button", name=re.compile("^Send")).count() == 0


def test_only_studies_of_the_same_patient_are_beside_it_and_the_panel_follows_them(page, server):
    with page.expect_response(
        lambda reply: "/qido/studies?" in reply.url and "00100020" in reply.url
    ) as asked:
        open_study(page, server, study_uid("ct"))
    found = {row["0020000D"]["Value"][0] for row in asked.value.json()}
    assert found == {study_uid("ct"), study_uid("ct-prior")}
    assert page.get_by_text("Screening mammography").count() == 0

    page.get_by_text("10-Mar-2025").click()
    thumbnail(page, "standard").nth(1).dblclick()
    prior = page.locator(f"iframe[src*='image={study_uid('ct-prior')}']")
    prior.wait_for()
    assert page.locator("iframe").count() == 1


def test_the_next_study_opens_in_the_viewer_with_the_reason_for_it(page, server):
    panel = open_study(page, server, study_uid("deid"))
    panel.get_by_role("button", name="Next study").first.click()
    page.wait_for_url(lambda address: study_uid("deid") not in address)
    panel.get_by_text("Why this study:").wait_for()
    [opened] = parse_qs(urlsplit(page.url).query)["StudyInstanceUIDs"]
    assert page.locator(f"iframe[src*='image={opened}']").count() == 1


def test_a_draft_waits_in_the_list_until_a_reader_accepts_it(page, server):
    assert listed(server, "mg")["name"] == "MG · Screening mammography · 2026-01-06"
    assert server.post("/radfound/pacs/notify", json={"study": study_uid("mg")}).ok
    eventually(lambda: listed(server, "mg")["drafts"], lambda count: count == 1)
    page.goto(f"{server.url}/radfound/panel?image={study_uid('mg')}")
    page.locator(".studies small", has_text="1 draft").wait_for()
    page.get_by_text("Draft of 2").wait_for()
    page.get_by_label("Your name").fill("Ann Reader")
    page.get_by_role("button", name="Accept").click()
    page.get_by_text("Accepted", exact=True).wait_for()
    eventually(
        lambda: listed(server, "mg"), lambda row: (row["drafts"], row["state"]) == (0, "read")
    )


def test_with_a_token_the_viewer_is_there_after_the_log_in(browser, archive, tmp_path):
    with serving(archive, tmp_path, ("pacs_write", "reader"), token=TOKEN) as server:
        with screen(browser, server) as page:
            page.goto(f"{server.url}/ohif/viewer?StudyInstanceUIDs={study_uid('cr')}")
            page.get_by_label("Token").fill(TOKEN)
            page.get_by_role("button", name="Log in").click()
            page.get_by_text("Confirm and Hide").click()
            panel = page.frame_locator("iframe[title=RadFound]")
            panel.get_by_role("button", name="Caption").click()
            panel.get_by_label("Your name").fill("Ann Reader")
            panel.get_by_role("button", name="Accept").wait_for()
            assert panel.get_by_role("button", name="Send draft").count() == 0
            eventually(lambda: shows_an_image(page), lambda found: found)
            panel.get_by_role("button", name="Edit").click()
            panel.get_by_label("Your text").fill("Zwei Ansichten, zitronengelb.")
            panel.get_by_role("button", name="Save").click()
            panel.get_by_role("button", name="Send to archive").click()
            panel.get_by_role("button", name=SENT).wait_for()
