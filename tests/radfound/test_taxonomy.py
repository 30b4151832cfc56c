import pytest

from radfound.taxonomy import MODALITIES, ORGAN_SYSTEMS, modality_of


def test_there_are_ten_modalities_and_nineteen_organ_systems_as_in_the_paper():
    assert len(MODALITIES) == 10
    assert len(set(ORGAN_SYSTEMS)) == len(ORGAN_SYSTEMS) == 19


def test_modalities_go_by_their_dicom_code():
    assert MODALITIES["CT"] == "computed tomography"
    assert all(len(code) == 2 and code.isupper() for code in MODALITIES)


@pytest.mark.parametrize(
    ("code", "modality"),
    [("CT", "CT"), (" mr ", "MR"), ("IVUS", "US"), ("PX", "DX"), ("SC", None), ("", None)],
)
def test_dicom_code_finds_its_modality(code, modality):
    assert modality_of(code) == modality


def test_no_code_is_no_modality():
    assert modality_of(None) is None
