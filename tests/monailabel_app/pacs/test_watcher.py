"""Drafts of new studies: once for each set of images, never because of this project's own reports."""

import time

import pytest

from .conftest import serving
from .orthanc import Orthanc
from .synthetic import (
    Patient,
    study_uid,
    write_ct_series,
    write_mammogram,
    write_radiograph,
)

pytestmark = pytest.mark.pacs


def drafts_of(server, study):
    found = server.get("/radfound/pacs/drafts").json()["drafts"]
    return [each for each in found if each["study"] == study_uid(study)]


def wait_for(condition, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return found


def test_a_new_study_is_drafted_once_and_again_for_a_late_series(tools, tmp_path):
    write_radiograph(tmp_path / "old")
    conf = (
        ("pacs_write", "draft"),
        ("pacs_watch", 1),
        ("pacs_watch_query", "StudyDescription=CT*"),
    )
    with Orthanc(tmp_path / "orthanc") as archive:
        archive.upload(tmp_path / "old")
        with serving(archive, tmp_path / "server", *conf) as server:
            wait_for(lambda: server.get("/radfound/health").json()["pacs"]["reachable"])
            time.sleep(3)
            write_ct_series(tmp_path / "new", "ct", "standard", 5)
            write_mammogram(tmp_path / "new")
            archive.upload(tmp_path / "new")
            wait_for(lambda: len(archive.reports(study_uid("ct"))) == 1)
            time.sleep(6)  # several looks, after this server's own report arrived
            assert len(archive.reports(study_uid("ct"))) == 1
            (draft,) = drafts_of(server, "ct")
            assert draft["answer"]["task"] == "report" and draft["is_read"] is False
            assert drafts_of(server, "cr") == [], "was there before"
            assert drafts_of(server, "mg") == [], "does not match the filter"

            write_ct_series(tmp_path / "late", "ct", "lung", 4, number=3)
            archive.upload(tmp_path / "late")
            wait_for(lambda: len(archive.reports(study_uid("ct"))) == 2)
            time.sleep(4)
            assert len(archive.reports(study_uid("ct"))) == len(drafts_of(server, "ct")) == 2


LUA = """
function OnStableStudy(study, tags, metadata)
  local body = '{"study": "' .. tags["StudyInstanceUID"] .. '"}'
  HttpPost("%s/radfound/pacs/notify", body, {["Content-Type"] = "application/json"})
end
"""


def test_orthanc_announces_a_complete_study(tools, tmp_path):
    conf = (("pacs_watch", "notify"), ("pacs_drafts_per_hour", 1))
    archive = Orthanc(tmp_path / "orthanc", lua="-- nothing yet", stable_s=1).start()
    try:
        with serving(archive, tmp_path / "server", *conf) as server:
            archive.stop()
            (archive.folder / "script.lua").write_text(LUA % server.url)
            archive.start()
            write_ct_series(tmp_path / "new", "ct", "standard", 5)
            archive.upload(tmp_path / "new")
            (draft,) = wait_for(lambda: drafts_of(server, "ct"))
            assert draft["answer"]["series"]
            assert archive.reports(study_uid("ct")) == [], "nothing is written by default"

            patient = Patient("PID-77991")
            write_ct_series(tmp_path / "more", "second", "standard", 5, patient=patient)
            archive.upload(tmp_path / "more")
            time.sleep(5)
            assert drafts_of(server, "second") == [], "one an hour is allowed"
            wrong = server.post("/radfound/pacs/notify", json={"study": "../system"})
            assert wrong.status_code == 400
    finally:
        archive.stop()
