import io
import uuid

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from radfound.exceptions import RequestError
from radfound.question import ModelVersion
from radfound.reporting.codes import language_of, procedure_of
from radfound.reporting.identifiers import device_uid, instance_uid, series_uid
from radfound.reporting.parametric_map import evidence_map, in_order
from radfound.reporting.report import (
    Document,
    Reader,
    ReportText,
    draft_report,
    person_name,
    reader_report,
)

MODEL = ModelVersion("radfound-mini", "f500d596126b", "a-0003")
TEXT = ReportText("Größe 3 mm.\x00 結節 <b>\\ ^=", "経過観察")


@pytest.fixture
def header():
    path = get_testdata_file("CT_small.dcm", download=False)
    return pydicom.dcmread(path, stop_before_pixels=True)


def written(dataset):
    file = io.BytesIO()
    dataset.save_as(file, write_like_original=False)
    file.seek(0)
    return pydicom.dcmread(file)


def texts(report):
    return [
        item.ContentSequence[0].TextValue
        for item in report.ContentSequence
        if item.ValueType == "CONTAINER"
    ]


def test_a_draft_says_that_nobody_verified_it(header):
    draft = written(draft_report(Document("answer", TEXT, MODEL, [header])))
    assert (draft.PreliminaryFlag, draft.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert draft.CompletionFlag == "COMPLETE" and "not verified" in draft.SeriesDescription
    assert texts(draft) == ["Größe 3 mm.  結節 <b>\\ ^=", "経過観察"]
    assert draft.StudyInstanceUID == header.StudyInstanceUID
    assert draft.SOPInstanceUID == instance_uid("answer")


def test_a_readers_report_names_reader_and_predecessor(header):
    document = Document("correction", ReportText("Normal."), MODEL, [header], "de")
    draft = draft_report(Document("answer", TEXT, MODEL, [header]))
    report = written(reader_report(document, Reader("Dr. Jörg Müller"), draft))
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("FINAL", "VERIFIED")
    verifier = report.VerifyingObserverSequence[0]
    assert verifier.VerifyingObserverName == "Dr. Jörg Müller^"
    assert verifier.VerifyingOrganization == header.InstitutionName
    assert texts(report) == ["Normal."], "an empty section is left out"
    replaced = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert replaced.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == draft.SOPInstanceUID
    assert report.ContentSequence[0].ConceptCodeSequence[0].CodeValue == "de"


def test_a_readers_report_says_what_the_reader_did_with_the_draft(header):
    document = Document("correction", ReportText("Normal."), MODEL, [header])
    for verdict, words in (
        ("accepted", "accepted unchanged"),
        ("edited", "the text is a reader's"),
    ):
        report = written(reader_report(document, Reader("Ann Reader", verdict=verdict)))
        values = {
            item.ConceptNameCodeSequence[0].CodeMeaning: item.ConceptCodeSequence[0].CodeValue
            for item in report.ContentSequence
            if item.ValueType == "CODE"
        }
        assert values["Reader's verdict on the AI draft"] == verdict
        assert words in report.ContributingEquipmentSequence[0].ContributionDescription
        assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99RADFOUND"
    draft = draft_report(document)
    assert "CodingSchemeIdentificationSequence" not in draft


def test_a_report_needs_text_and_images(header):
    for text, evidence in ((ReportText(" "), [header]), (TEXT, [])):
        with pytest.raises(RequestError, match="found nothing|found none"):
            draft_report(Document("answer", text, MODEL, evidence))


def test_the_same_id_gives_the_same_uids():
    answer = str(uuid.UUID(int=77))
    assert instance_uid(answer) == "2.25.77"
    assert instance_uid("a-name") == instance_uid("a-name") != instance_uid("another")
    assert len({instance_uid("a"), series_uid("a"), device_uid(MODEL)}) == 3
    assert all(len(uid) <= 64 for uid in (instance_uid("a"), series_uid("a"), device_uid(MODEL)))


def test_a_free_text_becomes_a_person_name():
    assert person_name("Ann Reader") == "Ann Reader^"
    assert person_name("Reader^Ann") == "Reader^Ann"
    assert person_name("A\\B=C\n D") == "A B C D^"
    assert len(person_name("x" * 200)) <= 64


def test_codes_follow_modality_and_language():
    assert procedure_of(["SR", "MG"])[2] == "Mammography"
    assert procedure_of(["DX"])[2] == "Plain radiography"
    assert procedure_of([])[2] == "Imaging procedure"
    assert language_of("ja") == ("ja", "RFC5646", "Japanese")


def test_a_map_lies_on_the_slices_in_the_order_of_the_volume(header):
    slices = []
    for index in (2, 0, 1):
        one = pydicom.dcmread(io.BytesIO(_bytes(header)), stop_before_pixels=True)
        one.SOPInstanceUID = f"1.2.{index + 1}"
        one.ImagePositionPatient = [-158.0, -179.0, 5.0 * index]
        slices.append(one)
    affine = np.diag([-1.0, -1.0, 5.0, 1.0])
    affine[:3, 3] = (158.0, 179.0, 0.0)
    ordered = in_order(slices, affine)
    assert [each.SOPInstanceUID for each in ordered] == ["1.2.1", "1.2.2", "1.2.3"]
    values = np.zeros((3, header.Rows, header.Columns))
    made = written(evidence_map("answer", values, ordered, MODEL))
    assert made.SeriesDescription == "RadFound evidence map (AI)"
    of_other_text = evidence_map("answer", values, ordered, MODEL, is_own_text=False)
    assert "not of its own text" in of_other_text.SeriesDescription
    assert made.NumberOfFrames == 3 and made.ContentQualification == "RESEARCH"
    with pytest.raises(RequestError, match="no stack"):
        in_order(slices[:1], affine)


@pytest.mark.parametrize(
    ("stated", "side"),
    [
        ({"Laterality": "L"}, "L"),
        ({"ImageLaterality": "R"}, "R"),
        ({"ImageLaterality": "B"}, None),
        ({"Laterality": ""}, None),
        ({}, None),
    ],
)
def test_a_map_is_of_the_side_that_the_images_state(header, stated, side):
    for keyword, value in stated.items():
        setattr(header, keyword, value)
    made = evidence_map("answer", np.zeros((1, header.Rows, header.Columns)), [header], MODEL)
    assert made.get("Laterality") == side


def _bytes(dataset):
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()
