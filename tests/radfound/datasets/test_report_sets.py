import gzip

import numpy as np
import pytest
import SimpleITK

from radfound.datasets import read_ct_rate, read_mimic_cxr, read_openi, read_r2gen
from radfound.datasets.reports import report_sections
from radfound.datasets.tables import hashed_split
from radfound.exceptions import DatasetError

OPENI_XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
  <uId id="{study}"/>
  <MedlineCitation><Article><Abstract>
    <AbstractText Label="COMPARISON">None.</AbstractText>
    <AbstractText Label="INDICATION">Positive TB test</AbstractText>
    <AbstractText Label="FINDINGS">{findings}</AbstractText>
    <AbstractText Label="IMPRESSION">Normal chest x-XXXX.</AbstractText>
  </Abstract></Article></MedlineCitation>
  <MeSH><major>normal</major></MeSH>
  <parentImage id="{study}_1_IM-0001-3001"><caption>Xray Chest PA and Lateral</caption></parentImage>
  <parentImage id="{study}_1_IM-0001-4001"/>
</eCitation>
"""


@pytest.fixture
def openi(tmp_path, picture, write):
    for number in range(1, 31):
        study = f"CXR{number}"
        xml = OPENI_XML.format(study=study, findings="The heart is\nnormal in size.")
        write(tmp_path / "ecgen-radiology" / f"{number}.xml", xml)
        for view in ("3001", "4001"):
            picture(tmp_path / "NLMCXR_png" / f"{study}_1_IM-0001-{view}.png")
    return tmp_path


def test_openi_reports_have_both_views_and_both_sections(openi):
    example = next(read_openi(openi))
    assert [turn.answer for turn in example.turns] == [
        "Findings: The heart is normal in size.\nImpression: Normal chest x-XXXX."
    ]
    assert len(example.read().images) == 2
    assert example.labels == {"modality": "X-ray", "region": "thorax"}


def test_openi_is_divided_by_patient_and_whole(openi):
    keys = {
        split: {e.key for e in read_openi(openi, split)}
        for split in ("train", "validation", "test")
    }
    assert sum(map(len, keys.values())) == len(set.union(*keys.values())) == 30
    assert all(hashed_split(key) == split for split, some in keys.items() for key in some)


def test_a_broken_openi_report_is_named(openi, write):
    write(openi / "ecgen-radiology" / "1.xml", "<eCitation><uId")
    with pytest.raises(DatasetError, match=r"1\.xml: not XML"):
        list(read_openi(openi))
    for path in (openi / "ecgen-radiology").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"no XML in it; unpack NLMCXR_reports\.tgz"):
        list(read_openi(openi))


def test_r2gen_reads_iu_x_ray_with_two_views_and_findings_alone(tmp_path, picture, write):
    names = ["CXR2384_IM-0942/0.png", "CXR2384_IM-0942/1.png"]
    for name in names:
        picture(tmp_path / "images" / name)
    row = {
        "id": "CXR2384_IM-0942",
        "report": "The heart is normal.",
        "image_path": names,
        "split": "val",
    }
    write(tmp_path / "annotation.json", {"train": [], "val": [row], "test": []})
    (example,) = read_r2gen(tmp_path, "validation")
    assert example.turns[0].answer == "Findings: The heart is normal."
    assert (example.key, example.source, len(example.files)) == ("CXR2384", "IU X-ray", 2)


MIMIC_REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with new onset ascites  // eval for infection

 TECHNIQUE:  Chest PA and lateral

 FINDINGS:

 There is no focal consolidation, pleural effusion or pneumothorax.
 The heart is normal.

 IMPRESSION:

 No acute cardiopulmonary process.
"""


def test_r2gen_reads_mimic_cxr_with_the_sections_of_its_report(tmp_path, picture, write):
    name = "p10/p10000032/s50414267/02aa804e-bde0afdd.jpg"
    picture(tmp_path / "images" / name)
    row = {
        "id": "02aa804e-bde0afdd",
        "study_id": 50414267,
        "subject_id": 10000032,
        "report": MIMIC_REPORT,
        "image_path": [name],
        "split": "test",
    }
    bare = row | {"report": "the lungs are clear ."}
    write(tmp_path / "annotation.json", {"train": [], "val": [], "test": [row, bare]})
    first, second = read_r2gen(tmp_path, "test")
    assert first.turns[0].answer.endswith("\nImpression: No acute cardiopulmonary process.")
    assert second.turns[0].answer == "Findings: the lungs are clear."
    assert (first.key, first.source) == ("p10000032", "MIMIC-CXR")


def test_a_malformed_annotation_file_is_named(tmp_path, write):
    write(tmp_path / "annotation.json", [])
    with pytest.raises(DatasetError, match="no list of rows under train, val and test"):
        list(read_r2gen(tmp_path))
    write(tmp_path / "annotation.json", {"train": [{"id": "a", "report": "b", "image_path": "c"}]})
    with pytest.raises(DatasetError, match=r"train row 1: image_path is 'c'; expected a list"):
        list(read_r2gen(tmp_path))


def test_report_sections_are_told_by_their_headings():
    assert report_sections(MIMIC_REPORT) == (
        "There is no focal consolidation, pleural effusion or pneumothorax.\n The heart is normal.",
        "No acute cardiopulmonary process.",
    )
    both = " FINDINGS AND IMPRESSION: Clear.\n\n FINDINGS: No rib fracture.\n CONCLUSION: Normal.\n"
    assert report_sections(both) == ("Clear.\nNo rib fracture.", "Normal.")
    assert report_sections("Portable film. Findings: none in capitals.") == ("", "")


@pytest.fixture
def mimic(tmp_path, picture, write):
    study = tmp_path / "files" / "p10" / "p10000032" / "s50414267"
    picture(study / "02aa804e.jpg")
    picture(study / "174413ec.jpg")
    write(study.with_suffix(".txt"), MIMIC_REPORT)
    other = tmp_path / "files" / "p10" / "p10000764" / "s57375967"
    picture(other / "096052b7.jpg")
    write(other.with_suffix(".txt"), "Portable film, not compared.")
    table = (
        "dicom_id,study_id,subject_id,split\n"
        "02aa804e,50414267,10000032,validate\n"
        "174413ec,50414267,10000032,validate\n"
        "096052b7,57375967,10000764,validate\n"
    )
    (tmp_path / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress(table.encode()))
    return tmp_path


def test_mimic_cxr_is_one_example_a_study_in_its_official_split(mimic):
    (example,) = read_mimic_cxr(mimic, "validation")
    assert [file.stem for file in example.files] == ["02aa804e", "174413ec"]
    assert (example.key, example.turns[0].id) == ("p10000032", "s50414267")
    assert example.turns[0].answer.startswith("Findings: There is no focal consolidation")
    assert list(read_mimic_cxr(mimic, "train")) == []


def test_mimic_cxr_reports_may_lie_in_the_folder_that_their_archive_unpacks_to(mimic):
    reports = mimic / "mimic-cxr-reports" / "files" / "p10"
    for patient in ("p10000032", "p10000764"):
        (text,) = (mimic / "files" / "p10" / patient).glob("*.txt")
        (reports / patient).mkdir(parents=True)
        text.rename(reports / patient / text.name)
    assert len(list(read_mimic_cxr(mimic, "validation"))) == 1


def test_a_wrong_mimic_cxr_table_or_a_missing_file_is_named(mimic, write):
    (mimic / "files" / "p10" / "p10000032" / "s50414267" / "174413ec.jpg").unlink()
    with pytest.raises(DatasetError, match=r"line 3: names .*174413ec\.dcm, which is not there"):
        list(read_mimic_cxr(mimic, "validation"))
    write(mimic / "mimic-cxr-2.0.0-split.csv", "dicom_id,split\n")
    with pytest.raises(DatasetError, match="no column study_id, subject_id; found dicom_id, split"):
        list(read_mimic_cxr(mimic))


@pytest.fixture
def ct_rate(tmp_path, write):
    folder = tmp_path / "valid_fixed" / "valid_1" / "valid_1_a"
    folder.mkdir(parents=True)
    volume = SimpleITK.GetImageFromArray(np.full((4, 16, 12), -1000, np.int16))
    SimpleITK.WriteImage(volume, str(folder / "valid_1_a_1.nii.gz"))
    write(
        tmp_path / "radiology_text_reports" / "validation_reports.csv",
        "VolumeName,ClinicalInformation_EN,Technique_EN,Findings_EN,Impressions_EN\n"
        'valid_1_a_1.nii.gz,Not given.,Non-contrast images,"Trachea, both main bronchi are open.",'
        "Not given.\n",
    )
    return tmp_path


def test_ct_rate_is_read_from_the_corrected_volumes(ct_rate):
    (example,) = read_ct_rate(ct_rate, "validation")
    assert example.turns[0].answer == "Findings: Trachea, both main bronchi are open."
    assert example.labels == {"modality": "CT", "plane": "axial", "region": "thorax"}
    assert (example.key, example.read().images[0].voxels.shape) == ("valid_1", (4, 16, 12))


def test_ct_rate_has_no_test_split_and_needs_the_corrected_volumes(ct_rate):
    with pytest.raises(DatasetError, match="no split 'test'; expected one of train, validation"):
        list(read_ct_rate(ct_rate, "test"))
    with pytest.raises(DatasetError, match="train_fixed: not found"):
        list(read_ct_rate(ct_rate))


def test_a_volume_name_of_another_kind_is_named(ct_rate, write):
    write(
        ct_rate / "radiology_text_reports" / "validation_reports.csv",
        "VolumeName,Findings_EN,Impressions_EN\nscan.nii.gz,Clear.,Normal.\n",
    )
    with pytest.raises(
        DatasetError, match=r"line 2: volume 'scan\.nii\.gz'; expected a name such as"
    ):
        list(read_ct_rate(ct_rate, "validation"))
