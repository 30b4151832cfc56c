"""View and side of radiographs, mammograms and tomosynthesis, wherever the header has them."""

import numpy as np
import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from radfound.reading import read_study
from radfound.reading.dicom import views as dicom_views

from ..miniature import items, ramp, write_dicom


def view_of(folder, modality, **tags):
    path = write_dicom(folder / "a.dcm", ramp(2, 2).astype(np.uint16), Modality=modality, **tags)
    return read_study(path).images[0].view


def coded(value, scheme="SCT", meaning="", **more):
    return [items(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning, **more)]


RADIOGRAPHS = {
    "antero-posterior": "AP",
    "postero-anterior": "PA",
    "lateral": "LATERAL",
    "left lateral": "LATERAL",
    "right lateral": "LATERAL",
    "left anterior oblique": "LAO",
    "right posterior oblique": "RPO",
}
MAMMOGRAMS = {
    "cranio-caudal": "CC",
    "medio-lateral oblique": "MLO",
    "medio-lateral": "ML",
    "latero-medial": "LM",
    "latero-medial oblique": "LMO",
    "caudo-cranial": "FB",
    "cranio-caudal exaggerated laterally": "XCCL",
    "cranio-caudal exaggerated medially": "XCCM",
    "superolateral to inferomedial oblique": "SIO",
    "inferomedial to superolateral oblique": "ISO",
}


def codes_of(group) -> dict[str, str]:
    """The SNOMED CT codes of a context group, by meaning, as pydicom lists them."""
    return {
        code.meaning: code.value
        for name in dir(group)
        for code in [getattr(group, name)]
        if isinstance(code, Code) and code.scheme_designator == "SCT"
    }


@pytest.mark.parametrize(("meaning", "view"), RADIOGRAPHS.items())
def test_radiographic_views_are_known_by_the_codes_of_the_standard(tmp_path, meaning, view):
    code = codes_of(codes.cid4010)[meaning]
    assert view_of(tmp_path, "DX", ViewCodeSequence=coded(code)) == view


@pytest.mark.parametrize(("meaning", "view"), MAMMOGRAMS.items())
def test_mammographic_views_are_known_by_the_codes_of_the_standard(tmp_path, meaning, view):
    code = codes_of(codes.cid4014)[meaning]
    tags = {"ViewCodeSequence": coded(code), "ImageLaterality": "L"}
    assert view_of(tmp_path, "MG", **tags) == f"L {view}"


@pytest.mark.parametrize(
    "table", [dicom_views._RADIOGRAPHIC_CODES, dicom_views._MAMMOGRAPHIC_CODES]
)
def test_each_code_of_snomed_rt_means_what_its_successor_means(table):
    current = {code: view for code, view in table.items() if code.isdigit()}
    for old in table.keys() - current.keys() - {"R-10214"}:  # retired before pydicom's table
        same = [
            view for code, view in current.items() if Code(old, "SRT", "") == Code(code, "SCT", "")
        ]
        assert same == [table[old]]


@pytest.mark.parametrize(
    ("position", "view"),
    [
        ("AP", "AP"),
        ("PA", "PA"),
        ("LL", "LATERAL"),
        ("RL", "LATERAL"),
        ("LLD", "LLD"),
        ("RAO", "RAO"),
        ("", None),
    ],
)
@pytest.mark.parametrize("modality", ["CR", "DX"])
def test_stated_position_of_a_radiograph_is_its_view(tmp_path, modality, position, view):
    assert view_of(tmp_path, modality, ViewPosition=position) == view


def test_meaning_counts_where_the_code_is_a_vendors_own(tmp_path):
    code = coded("99", "99VENDOR", "Medio-lateral oblique")
    assert view_of(tmp_path, "MG", ViewCodeSequence=code) == "MLO"


def test_cleavage_view_is_no_craniocaudal_one(tmp_path):
    modifier = coded("399161006")
    view = coded("399162004", ViewModifierCodeSequence=modifier)
    assert view_of(tmp_path, "MG", ViewCodeSequence=view, ImageLaterality="B") == "B CV"


@pytest.mark.parametrize(
    ("tags", "view"),
    [
        ({"ImageLaterality": "R", "Laterality": "L"}, "R"),
        ({"Laterality": "L"}, "L"),
        ({"ImageLaterality": "U", "Laterality": None}, None),
        ({"FrameLaterality": "L"}, "L"),
    ],
)
def test_side_is_the_images_before_the_series(tmp_path, tags, view):
    assert view_of(tmp_path, "MG", **tags) == view


@pytest.mark.parametrize(
    ("modality", "orientation", "view"),
    [
        ("DX", ["A", "F"], "LATERAL"),
        ("CR", ["P", "F"], "LATERAL"),
        ("DX", ["L", "F"], None),
        ("MG", ["P", "L"], "CC"),
        ("MG", ["A", "FR"], "MLO"),
        ("MG", ["A", "F"], None),
        ("US", ["A", "F"], None),
    ],
)
def test_directions_of_rows_and_columns_tell_a_view_where_they_leave_no_other(
    tmp_path, modality, orientation, view
):
    assert view_of(tmp_path, modality, PatientOrientation=orientation) == view


def test_damaged_view_is_an_unknown_view(tmp_path):
    assert view_of(tmp_path, "DX", ViewCodeSequence=[items()]) is None
