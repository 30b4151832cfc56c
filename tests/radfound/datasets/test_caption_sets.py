import logging

import pytest

from radfound.datasets import read_medpix, read_roco
from radfound.exceptions import DatasetError


@pytest.fixture
def roco(tmp_path, picture, write):
    folder = tmp_path / "data" / "validation" / "radiology"
    picture(folder / "images" / "PMC3970251_CRIONM2014-931546.003.jpg")
    picture(folder / "images" / "ROCO_00027.jpg")
    write(
        folder / "captions.txt",
        "ROCO_00020\t Axial CT of the pelvis showing the bladder wall (arrow).\n"
        "ROCO_00027\t Postoperative anteroposterior radiograph of the pelvis\n"
        "ROCO_00059\t Angiography of the internal carotid artery.\n",
    )
    write(
        folder / "licences.txt",
        "ROCO_ID,PMC_ID,CC\n"
        "ROCO_00020,PMC3970251_CRIONM2014-931546.003.jpg,CC BY\n"
        "ROCO_00027,PMC2766744_cios-1-176-g005.jpg,CC BY-NC\n"
        "ROCO_00059,PMC3789931_poljradiol-78-3-35-g001.jpg,NO-CC CODE\n",
    )
    return tmp_path


def test_roco_finds_its_figures_under_either_name_and_counts_those_that_failed(roco, caplog):
    with caplog.at_level(logging.WARNING):
        first, second = read_roco(roco, "validation")
    assert first.text == "Axial CT of the pelvis showing the bladder wall (arrow)."
    assert (first.key, first.turns[0].task, first.turns[0].id) == (
        "PMC3970251", "caption", "ROCO_00020",
    )  # fmt: skip
    assert second.files[0].name == "ROCO_00027.jpg" and second.text.endswith("pelvis.")
    assert "1 of 3 figures are not there" in caplog.text


def test_roco_can_be_read_by_licence(roco):
    assert [e.key for e in read_roco(roco, "validation", licences=("CC BY",))] == ["PMC3970251"]


def test_roco_finds_its_figures_by_their_download_links_alone(roco, write):
    folder = roco / "data" / "validation" / "radiology"
    (folder / "licences.txt").unlink()
    url = "ftp://ftp.ncbi.nlm.nih.gov/pub/pmc/oa_package/1e/ed/PMC3970251.tar.gz"
    write(
        folder / "dlinks.txt",
        f"ROCO_00020\twget -r {url} -P /path/to/Dir\tCRIONM2014-931546.003.jpg\n",
    )
    assert [example.key for example in read_roco(roco, "validation")] == [
        "PMC3970251",
        "ROCO_00027",
    ]


def test_roco_without_any_image_says_what_to_run(roco):
    for image in (roco / "data" / "validation" / "radiology" / "images").iterdir():
        image.unlink()
    with pytest.raises(DatasetError, match="none of the 3 figures .* run scripts/fetch.py"):
        list(read_roco(roco, "validation"))


@pytest.fixture
def medpix(tmp_path, picture, write):
    picture(tmp_path / "images" / "MPX1009_synpic46283.png")
    picture(tmp_path / "images" / "MPX1009_synpic46295.png")
    figure = {
        "Type": "CT",
        "U_id": "MPX1009",
        "image": "MPX1009_synpic46283",
        "Description": {
            "ACR Codes": "8.-1",
            "Age": "73",
            "Caption": "•  The prostate is enlarged.",
            "Figure Part": None,
            "Modality": "CT - noncontrast",
            "Plane": "Coronal",
            "Sex": "male",
        },
        "Location": "Genitourinary",
        "Location Category": "Reproductive and Urinary System",
    }
    case = {
        "U_id": "MPX1009",
        "TAC": ["MPX1009_synpic46283", "MPX1009_synpic46295"],
        "MRI": [],
        "Case": {
            "Title": "Prostate",
            "Findings": "The prostate is enlarged.\n\nUS: not done.",
            "Case Diagnosis": "Prostatic hyperplasia",
        },
        "Topic": {"Title": "Prostate", "Disease Discussion": "Common."},
    }
    folder = tmp_path / "splitted_dataset"
    for part in ("dev", "train_1", "train_2"):
        write(folder / f"descriptions_{part}.jsonl", [figure], lines=True)
        write(folder / f"data_{part}.jsonl", [case], lines=True)
    return tmp_path


def test_medpix_is_read_as_figures_and_cases(medpix):
    figure, case = read_medpix(medpix, "validation")
    assert figure.labels == {
        "modality": "CT", "plane": "coronal", "region": "reproductive and urinary system",
    }  # fmt: skip
    assert figure.text == "The prostate is enlarged." and figure.footer
    assert [turn.task for turn in figure.turns] == ["vqa", "vqa", "vqa", "caption"]
    assert case.turns[0].answer == (
        "Findings: The prostate is enlarged.\nImpression: Prostatic hyperplasia."
    )
    assert len(case.files) == 2 and case.key == figure.key == "MPX1009"


def test_the_two_halves_of_medpix_train_are_one_split(medpix):
    assert len(list(read_medpix(medpix))) == 4


def test_a_missing_part_of_medpix_is_named(medpix):
    with pytest.raises(DatasetError, match=r"descriptions_test\.jsonl: not found"):
        list(read_medpix(medpix, "test"))
    (medpix / "images" / "MPX1009_synpic46283.png").unlink()
    with pytest.raises(DatasetError, match=r"dev\.jsonl, line 1: names .*46283\.png"):
        list(read_medpix(medpix, "validation"))
