import pytest

from radfound.study.taxonomy import MODALITIES, ORGAN_SYSTEMS, modality_of, organ_system_of


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


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("Axial CT of the brain shows an infarct in the left frontal lobe.", "brain"),
        ("Is the right hemidiaphragm raised?", "pleura and mediastinum"),
        ("Where is the pneumothorax?", "pleura and mediastinum"),
        ("Right upper lobe consolidation with a small effusion.", "lungs and airways"),
        ("T2 image of the lumbar spine with a disc at L4.", "spine"),
        ("Fracture of the distal radius.", "musculoskeletal system"),
        ("In which plane is this image?", None),
    ],
)
def test_a_text_belongs_to_the_organ_system_that_it_names_most(text, system):
    assert organ_system_of(text) == system


def test_every_organ_system_has_words_that_name_it():
    for system in ORGAN_SYSTEMS:
        assert organ_system_of(system) == system
