import gzip
import threading

import numpy as np
import pytest

from radfound.exceptions import NotFoundError
from radfound.reader_study.design.plan import Case, Criterion, Plan
from radfound.reader_study.rating.render import CaseCache, Levels, Picture, pictures_of
from radfound.reading import read_study
from radfound.study.study import Study, StudyImage

from .reading_room import volume


def decoded(picture: Picture, axis: int, position: int) -> np.ndarray:
    """The grey values of a slice as the browser gets them."""
    stack = next(each for each in picture.to_json()["stacks"] if each["axis"] == axis)
    levels = picture.to_json()["levels"]
    content = gzip.decompress(picture.encoded_slice(axis, position))
    grid = np.frombuffer(content, levels["dtype"]).reshape(stack["rows"], stack["columns"])
    return levels["intercept"] + levels["slope"] * grid.astype(float)


@pytest.fixture
def head(tmp_path) -> Picture:
    return pictures_of(read_study(volume(tmp_path / "head.nii.gz")))[0]


def place_of_spot(picture: Picture, plane: str) -> tuple[float, float, float]:
    """Where the bright spot is: across, down and along the stack, each from 0 to 1."""
    stack = next(each for each in picture.to_json()["stacks"] if each["plane"] == plane)
    slices = np.stack([decoded(picture, stack["axis"], at) for at in range(stack["depth"])])
    along, down, across = (np.argwhere(slices > 900).mean(0) + 0.5) / slices.shape
    return across, down, along


@pytest.mark.parametrize(
    ("plane", "across", "down", "along", "sides"),
    [
        ("axial", 0.75, 0.25, 0.25, "RLAP"),
        ("coronal", 0.75, 0.25, 0.25, "RLSI"),
        ("sagittal", 0.25, 0.25, 0.75, "APSI"),
    ],
)
def test_planes_are_turned_as_a_radiologist_looks_at_them(head, plane, across, down, along, sides):
    # the spot lies in front, on the patient's left and towards the head
    assert place_of_spot(head, plane) == pytest.approx((across, down, along), abs=0.03)
    stack = next(each for each in head.to_json()["stacks"] if each["plane"] == plane)
    assert "".join(stack["sides"][edge] for edge in ("left", "right", "top", "bottom")) == sides


@pytest.mark.parametrize("turn", [(0,), (1,), (2,), (0, 1, 2)])
def test_how_a_file_stores_its_axes_changes_nothing(head, turn):
    image = head.image
    affine = image.affine.copy()
    for axis in turn:
        affine[:3, 3] += affine[:3, axis] * (image.voxels.shape[2 - axis] - 1)
        affine[:3, axis] *= -1
    turned = Picture(StudyImage(np.flip(image.voxels, [2 - axis for axis in turn]), affine))
    for plane in ("axial", "coronal", "sagittal"):
        assert place_of_spot(turned, plane) == pytest.approx(place_of_spot(head, plane))


def test_pixels_have_the_shape_that_the_spacing_gives_them():
    image = StudyImage(np.zeros((40, 8, 8)), np.diag([1.0, 1.0, 3.0, 1.0]), modality="CT")
    aspects = {each["plane"]: each["pixel_aspect"] for each in Picture(image).to_json()["stacks"]}
    assert aspects == {"axial": 1.0, "coronal": 3.0, "sagittal": 3.0}


def test_a_thin_stack_is_shown_from_above_only():
    image = StudyImage(np.zeros((20, 64, 64)), np.diag([1.0, 1.0, 5.0, 1.0]), modality="CT")
    assert [each["plane"] for each in Picture(image).to_json()["stacks"]] == ["axial"]


def test_frames_of_a_cine_loop_keep_their_order_and_have_no_sides():
    frames = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    picture = Picture(StudyImage(frames, np.eye(4), modality="US"))
    (stack,) = picture.to_json()["stacks"]
    assert stack["sides"] is None and stack["plane"] == "" and stack["depth"] == 3
    assert np.sort(decoded(picture, 2, 0), None).tolist() == [0, 1, 2, 3]


def test_every_hounsfield_unit_arrives():
    hu = np.arange(-1024, 3072, dtype=np.int16).reshape(1, 64, 64)
    picture = Picture(StudyImage(hu, np.diag([-1.0, -1.0, 1, 1]), "CT", hounsfield=True))
    assert np.array_equal(decoded(picture, 2, 0), hu[0])
    windows = picture.to_json()["windows"]
    assert [each["name"] for each in windows] == ["Soft tissue", "Lung", "Bone", "Brain"]


def test_a_head_ct_begins_with_the_brain_window():
    hu = np.zeros((1, 4, 4), np.int16)
    image = StudyImage(hu, np.eye(4), "CT", body_part="head", hounsfield=True)
    assert Picture(image).to_json()["windows"][0]["name"] == "Brain"


def test_fractions_keep_their_differences_beside_a_far_outlier():
    voxels = np.random.default_rng(0).normal(0, 1, (1, 100, 100)).astype(np.float32)
    voxels[0, 0, 0] = 1e9
    picture = Picture(StudyImage(voxels, np.diag([-1.0, -1.0, 1, 1])))
    shown = decoded(picture, 2, 0)
    assert np.abs(shown - voxels[0]).ravel()[1:].max() < 0.002


def test_an_empty_image_is_shown_as_such():
    picture = Picture(StudyImage(np.full((1, 4, 4), 0.5, np.float32), np.eye(4)))
    assert np.all(decoded(picture, 2, 0) == 0.5)
    assert all(each["width"] > 0 for each in picture.to_json()["windows"])


def test_eight_bits_travel_as_eight():
    assert Levels.of(np.array([0, 255], np.int32)).dtype == "uint8"
    assert Levels.of(np.array([0, 256], np.int32)).dtype == "uint16"


def test_only_slices_that_exist_are_given(head):
    for axis, position in ((2, 40), (2, -1), (3, 0)):
        with pytest.raises(NotFoundError):
            head.encoded_slice(axis, position)


def test_images_without_a_view_are_numbered_where_there_are_several():
    image = StudyImage(np.zeros((1, 2, 2)), np.eye(4))
    lateral = StudyImage(np.zeros((1, 2, 2)), np.eye(4), view="LATERAL")
    assert [each.label for each in pictures_of(Study((image, lateral)))] == ["Image 1", "LATERAL"]
    assert [each.label for each in pictures_of(Study((image,)))] == [""]


@pytest.fixture
def two_cases(tmp_path) -> Plan:
    cases = []
    for name in ("one", "two"):
        (tmp_path / "cases" / name).mkdir(parents=True)
        volume(tmp_path / "cases" / name / "image.nii.gz")
        cases.append(Case(name, (f"cases/{name}/image.nii.gz",), "caption"))
    criterion = Criterion("k", "K", "", ("", "", "", "", ""))
    return Plan("", "", (criterion,), False, False, tuple(cases), (), tmp_path)


def test_readers_who_open_a_case_at_once_read_it_once(two_cases, monkeypatch):
    read = []
    monkeypatch.setattr(
        "radfound.reader_study.rating.render.read_study",
        lambda *path, **choice: read.append(path) or read_study(*path, **choice),
    )
    cache = CaseCache(two_cases)
    threads = [
        threading.Thread(target=cache.pictures, args=(two_cases.cases[0],)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(read) == 1


def test_a_full_shelf_lets_the_oldest_case_go(two_cases):
    cache = CaseCache(two_cases, max_bytes=1)
    first = cache.pictures(two_cases.cases[0])
    assert cache.pictures(two_cases.cases[0]) is first
    cache.pictures(two_cases.cases[1])
    assert cache.pictures(two_cases.cases[0]) is not first
