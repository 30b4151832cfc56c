"""Drafts and readers' reports in the archive: valid, said to be what they are, sent once."""

import time

import pydicom
import pytest

from radfound.fields.compose import NOT_JUDGED
from radfound.question import ModelVersion
from radfound.reporting.identifiers import device_uid, instance_uid
from radfound.reporting.report import Document, Reader, ReportText, draft_report, reader_report

from .conftest import serving
from .orthanc import Orthanc
from .synthetic import study_uid, write_ct_series, write_mammogram, write_radiograph
from .tls_proxy import proxy
from .validators import dciodvfy_errors, pixelmed_errors, shown_by_dcmtk

pytestmark = pytest.mark.pacs

MODEL = ModelVersion("radfound-mini", "f500d596126b", "a-0003")
TEXT = ReportText("Größe 3 mm, zitronengelb. 右肺に結節があります。", "Nichts Akutes — 経過観察。")


def wait_for(condition, timeout_s=90):
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def headers(files, study):
    paths = sorted((files / study_uid(study)).rglob("*.dcm"))
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]


def saved(dataset, path):
    dataset.save_as(path, write_like_original=False)
    return path


@pytest.mark.parametrize("study", ["ct", "mg", "deid"])
def test_draft_and_report_have_no_error_in_two_validators(files, tools, tmp_path, study):
    evidence = headers(files, study)
    draft = draft_report(Document(f"answer-{study}", TEXT, MODEL, evidence))
    document = Document(f"correction-{study}", TEXT, MODEL, evidence, "de")
    report = reader_report(document, Reader("Ann Reader", "Test hospital"), draft)
    for name, dataset in (("draft", draft), ("report", report)):
        path = saved(dataset, tmp_path / f"{name}.dcm")
        assert dciodvfy_errors(path) == []
        assert pixelmed_errors(path) == []
        text = shown_by_dcmtk(path)
        found = pydicom.dcmread(path)
        assert found.SpecificCharacterSet == "ISO_IR 192"
        assert [section.ContentSequence[0].TextValue for section in found.ContentSequence[-2:]] == [
            TEXT.findings,
            TEXT.impression,
        ]
        named = {
            item.ReferencedSOPInstanceUID
            for each in found.PertinentOtherEvidenceSequence
            for series in each.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        assert named == {header.SOPInstanceUID for header in evidence}
        flags = {"draft": ("PRELIMINARY", "UNVERIFIED"), "report": ("FINAL", "VERIFIED")}[name]
        assert (found.PreliminaryFlag, found.VerificationFlag) == flags
        assert f": {flags[0]}\n" in text and f": {flags[1]}\n" in text
    assert "AI, not verified" in draft.SeriesDescription
    replaced = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert replaced.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == draft.SOPInstanceUID
    assert report.VerifyingObserverSequence[0].VerifyingObserverName == "Ann Reader^"


def test_headers_of_a_deidentified_study_stay_as_they_are(files, tools):
    draft = draft_report(Document("answer", TEXT, MODEL, headers(files, "deid")))
    assert draft.PatientName == "Anonymous" and draft.PatientBirthDate == ""


def test_the_equipment_is_named_alike_everywhere_and_changes_with_the_adapter(files, tools):
    draft = draft_report(Document("answer", TEXT, MODEL, headers(files, "mg")))
    equipment = draft.ContributingEquipmentSequence[0]
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert equipment.DeviceUID == device_uid(MODEL) == draft.AuthorObserverSequence[0].DeviceUID
    values = {
        item.ConceptNameCodeSequence[0].CodeValue: item.get("UID") or item.get("TextValue")
        for item in draft.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue.startswith("12101")
    }
    assert values["121012"] == equipment.DeviceUID
    assert values["121014"] == equipment.Manufacturer == draft.Manufacturer
    assert values["121015"] == equipment.ManufacturerModelName
    others = [ModelVersion("radfound-mini", "f500d596126b", other) for other in (None, "a-0004")]
    assert len({device_uid(model) for model in (MODEL, *others)}) == 3


@pytest.fixture(scope="module")
def sending(tools, tmp_path_factory):
    """An archive that tests write to, and a server that may send drafts."""
    folder = tmp_path_factory.mktemp("sending")
    write_mammogram(folder / "files")
    write_radiograph(folder / "files")
    with Orthanc(folder / "orthanc") as archive:
        archive.upload(folder / "files")
        conf = (("pacs_write", "draft"), ("pacs_organization", "Test hospital"))
        with serving(archive, folder / "server", *conf) as server:
            yield server, archive


def state_of(server, document_id):
    documents = server.get("/radfound/pacs/outbox").json()["documents"]
    return next((each["state"] for each in documents if each["id"] == document_id), None)


def report_about(server, study):
    reply = server.ask(study_uid(study), None, "radfound_report")
    assert reply.status_code == 200, reply.text
    return reply.json()


def correct(server, correction, answer, study, **changes):
    row = correction(
        study_uid(study),
        task="report",
        question=None,
        answer_id=answer["id"],
        model_text=answer["text"] or "draft",
        text="Findings: Größe zitronengelb. Impression: 経過観察。",
        author="Ann Reader",
        model=answer["model"],
        **changes,
    )
    assert server.post("/radfound/corrections", json=row).status_code == 200
    return row


def test_a_draft_and_the_readers_report_reach_the_archive_once(sending, correction, tmp_path):
    server, archive = sending
    answer = report_about(server, "mg")
    for _ in range(2):
        sent = server.post("/radfound/pacs/send", json={"answer_id": answer["id"]})
        assert sent.status_code == 200, sent.text
    assert sent.json()["sop_instance_uid"] == instance_uid(answer["id"])
    wait_for(lambda: state_of(server, answer["id"]) == "delivered")
    assert len(archive.reports(study_uid("mg"))) == 1

    row = correct(server, correction, answer, "mg")
    for _ in range(2):
        sent = server.post("/radfound/pacs/send", json={"correction_id": row["id"]})
        assert sent.status_code == 200, sent.text
    wait_for(lambda: state_of(server, row["id"]) == "delivered")
    reports = {report.SOPInstanceUID: report for report in archive.reports(study_uid("mg"))}
    assert len(reports) == 2
    report = reports[instance_uid(row["id"])]
    assert pixelmed_errors(saved(report, tmp_path / "report.dcm")) == []
    assert report.VerifyingObserverSequence[0].VerifyingOrganization == "Test hospital"
    assert report.ContentSequence[-1].ContentSequence[0].TextValue == "経過観察。"
    replaced = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert replaced.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == instance_uid(answer["id"])
    series = {
        each.SeriesInstanceUID
        for study in report.PertinentOtherEvidenceSequence
        for each in study.ReferencedSeriesSequence
    }
    assert series == set(answer["series"])
    again = server.ask(study_uid("mg"), "What is shown?")
    assert len(again.json()["series"]) == 4, "the reports are no images of the study"


def test_an_evidence_map_is_sent_only_when_asked_for_and_is_no_image_of_the_study(
    sending, tmp_path
):
    server, archive = sending
    write_ct_series(tmp_path / "files", "mapped", "axial", 4)
    archive.upload(tmp_path / "files")
    answer = report_about(server, "mapped")
    sent = server.post("/radfound/pacs/send", json={"answer_id": answer["id"], "evidence": True})
    assert sent.status_code == 200, sent.text
    uid = sent.json()["map"]["sop_instance_uid"]
    query = {"SOPInstanceUID": uid, "includefield": "NumberOfFrames"}
    (found,) = wait_for(lambda: archive.get("/dicom-web/instances", params=query).json())
    assert found["00280008"]["Value"] == [4]
    assert server.ask(study_uid("mapped"), "What is shown?").json()["series"] == answer["series"]
    flat = report_about(server, "mg")
    sent = server.post("/radfound/pacs/send", json={"answer_id": flat["id"], "evidence": True})
    assert sent.status_code == 400 and "no stack" in sent.json()["detail"]["message"]


def test_what_cannot_be_sent_is_refused_with_a_reason(sending, correction):
    server, _ = sending
    answer = server.ask(study_uid("cr"), "Is it normal?").json()
    rejected = correct(server, correction, report_about(server, "cr"), "cr", verdict="rejected")
    unjudged = correction(
        study_uid("cr"), task="report", question=None, text="", verdict="accepted",
        model_text=f"Findings: Radiograph of the chest. {NOT_JUDGED} Impression: {NOT_JUDGED}",
    )  # fmt: skip
    assert server.post("/radfound/corrections", json=unjudged).status_code == 200
    for body, status in (
        ({}, 400),
        ({"correction_id": unjudged["id"]}, 400),
        ({"answer_id": answer["id"]}, 404),
        ({"answer_id": "no-such-answer"}, 404),
        ({"correction_id": "no-such-correction"}, 404),
        ({"correction_id": rejected["id"]}, 400),
    ):
        assert server.post("/radfound/pacs/send", json=body).status_code == status, body


def test_a_report_waits_for_an_archive_that_is_down(sending, correction):
    server, archive = sending
    answer = report_about(server, "cr")
    before = len(archive.reports(study_uid("cr")))
    row = correct(server, correction, answer, "cr")
    archive.stop()
    try:
        for body in ({"answer_id": answer["id"]}, {"correction_id": row["id"]}):
            # Which series were shown is known; the headers are in the cache for half a minute.
            sent = server.post("/radfound/pacs/send", json=body)
            assert sent.status_code == 200, sent.text
        assert server.get("/radfound/health").json()["pacs"]["waiting"] == 2
    finally:
        archive.start()
    for each in (answer["id"], row["id"]):
        wait_for(lambda each=each: state_of(server, each) == "delivered")
    assert len(archive.reports(study_uid("cr"))) == before + 2


def test_a_report_survives_a_killed_server(tools, tmp_path, correction):
    write_radiograph(tmp_path / "files")
    with Orthanc(tmp_path / "orthanc") as archive:
        archive.upload(tmp_path / "files")
        conf = (("pacs_write", "reader"),)
        with serving(archive, tmp_path / "server", *conf) as server:
            answer = report_about(server, "cr")
            row = correct(server, correction, answer, "cr")
            draft = server.post("/radfound/pacs/send", json={"answer_id": answer["id"]})
            assert draft.status_code == 403, "only readers' reports may be sent"
            archive.stop()
            sent = server.post("/radfound/pacs/send", json={"correction_id": row["id"]})
            assert sent.status_code == 200, sent.text
            server.process.kill()
            server.process.wait()
        archive.start()
        with serving(archive, tmp_path / "server", *conf) as server:
            wait_for(lambda: state_of(server, row["id"]) == "delivered")
        reports = archive.reports(study_uid("cr"))
        assert [report.SOPInstanceUID for report in reports] == [instance_uid(row["id"])]
        assert "PredecessorDocumentsSequence" not in reports[0]


def test_nothing_is_written_unless_it_is_allowed(archive, tmp_path, correction):
    with proxy(archive) as front:
        with serving(archive, tmp_path / "server", url=front.url) as server:
            answer = report_about(server, "cr")
            row = correct(server, correction, answer, "cr")
            for body in ({"answer_id": answer["id"]}, {"correction_id": row["id"]}):
                refused = server.post("/radfound/pacs/send", json=body)
                assert refused.status_code == 403
                assert refused.json()["detail"]["code"] == "pacs_write_not_allowed"
        assert [call for call in front.calls if call[0] == "POST"] == []
        assert front.calls, "the server did ask the archive"
    assert archive.reports(study_uid("cr")) == []
