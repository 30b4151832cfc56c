import numpy as np
import pytest

from radfound.exceptions import RequestError
from radfound.study.frames import PLANES, FrameConfig, make_frames
from radfound.study.region import Box, Plane, PointAndNormal
from radfound.study.slices import slicing_axis
from radfound.study.study import Study, StudyImage

SMALL = FrameConfig(image_size=64, max_frames=4)
WHOLE_RANGE = FrameConfig(image_size=64, max_frames=20, percentiles=(0, 100))
ROTATION = np.array([[0.936, -0.275, 0.218], [0.289, 0.956, -0.036], [-0.199, 0.097, 0.975]])


def affine_of(directions, spacing_mm, origin=(10.0, -20.0, 30.0)):
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(directions, float) * np.asarray(spacing_mm, float)
    affine[:3, 3] = origin
    return affine


def volume(affine, shape=(20, 30, 40), bright_at=None):
    """Random noise, with one bright blob at a voxel (i, j, k)."""
    voxels = np.random.default_rng(0).integers(0, 20, shape).astype(np.int16)
    if bright_at is not None:
        i, j, k = bright_at
        voxels[max(k - 1, 0) : k + 2, j - 1 : j + 2, i - 1 : i + 2] = 1000
    return StudyImage(voxels, affine)


def brightest_ras(frames):
    """RAS position of the brightest pixel of all frames."""
    flat = int(frames.pixels[:, 0].argmax())
    frame, row, column = np.unravel_index(flat, frames.pixels[:, 0].shape)
    return (frames.sources[frame].pixel_to_ras @ [column, row, 0, 1])[:3]


@pytest.mark.parametrize(
    "directions",
    [np.diag([-1, -1, 1]), np.diag([1, 1, 1]), np.diag([1, -1, -1]), ROTATION],
    ids=["LPS", "RAS", "feet first", "oblique"],
)
def test_a_frame_pixel_maps_back_to_where_it_came_from(directions):
    affine = affine_of(directions, (1.0, 1.2, 1.1))
    bright = (28, 9, 12)
    frames = make_frames(Study((volume(affine, bright_at=bright),)), WHOLE_RANGE)
    expected = (affine @ [*bright, 1])[:3]
    assert np.linalg.norm(brightest_ras(frames) - expected) < 2.0


@pytest.mark.parametrize("flip", [(-1, -1, 1), (1, 1, 1), (1, -1, -1)])
def test_left_stays_left_whatever_the_storage_order(flip):
    affine = affine_of(np.diag(flip), (1, 1, 3), origin=(0, 0, 0))
    left = (33, 15, 10) if flip[0] < 0 else (6, 15, 10)  # towards smaller R, the patient's left
    frames = make_frames(Study((volume(affine, bright_at=left),)), WHOLE_RANGE)
    column = int(frames.pixels[:, 0].amax(dim=(0, 1)).argmax())
    assert column > 32, "the patient's left belongs on the right of the picture"


def test_anterior_is_at_the_top_of_an_axial_frame():
    affine = affine_of(np.diag([-1, -1, 1]), (1, 1, 3))
    frames = make_frames(Study((volume(affine, bright_at=(20, 3, 10)),)), WHOLE_RANGE)
    row = int(frames.pixels[:, 0].amax(dim=(0, 2)).argmax())
    assert row < 32
    assert set(frames.planes.tolist()) == {PLANES.index("axial")}


def test_thick_slices_are_read_along_the_direction_they_were_taken_in():
    coronal = StudyImage(np.zeros((30, 9, 30), np.int16), affine_of(np.eye(3), (1, 5, 1)))
    assert slicing_axis(coronal) == 1
    assert slicing_axis(StudyImage(np.zeros((9, 9, 9)), affine_of(np.eye(3), (1, 1.1, 1)))) == 2


def test_slices_are_spread_over_the_whole_volume_and_keep_to_the_budget():
    frames = make_frames(Study((volume(affine_of(np.eye(3), (1, 1, 2))),)), SMALL)
    heights = [source.pixel_to_ras[2, 3] for source in frames.sources]
    assert len(frames) == 4
    assert np.allclose(np.diff(heights), 10.0)


def test_a_multi_view_study_gives_one_frame_for_each_view():
    views = tuple(
        StudyImage(np.random.default_rng(n).random((1, 50, 30)), np.eye(4), "MG", view)
        for n, view in enumerate(("L CC", "R CC", "L MLO", "R MLO"))
    )
    frames = make_frames(Study(views), SMALL)
    assert len(frames) == 4 and len(set(frames.views.tolist())) == 4


def test_a_box_region_keeps_only_slices_inside_it():
    affine = affine_of(np.eye(3), (1, 1, 2), origin=(0, 0, 0))
    region = Box(((5, 5, 10), (25, 25, 16)))
    frames = make_frames(Study((volume(affine),)), FrameConfig(64, 16), region)
    assert [source.pixel_to_ras[2, 3] for source in frames.sources] == [10, 12, 14, 16]


@pytest.mark.parametrize("normal", [[0, 1, 0], [0, 0.6, 0.8]], ids=["along the grid", "oblique"])
def test_a_slice_region_gives_one_frame_through_its_point(normal):
    affine = affine_of(np.diag([-1, -1, 1]), (1, 1, 1))
    bright = (20, 15, 10)
    point = (affine @ [*bright, 1])[:3].tolist()
    region = Plane(PointAndNormal(point, normal))
    frames = make_frames(Study((volume(affine, bright_at=bright),)), WHOLE_RANGE, region)
    assert len(frames) == 1
    assert np.linalg.norm(brightest_ras(frames) - point) < 2.0


def test_a_region_outside_the_study_is_refused():
    study = Study((volume(affine_of(np.eye(3), (1, 1, 1))),))
    with pytest.raises(RequestError, match="region"):
        make_frames(study, SMALL, Box(((900, 900, 900), (950, 950, 950))))


def test_ct_fills_the_three_channels_with_three_windows():
    hu = np.full((5, 20, 20), 40, np.int16)
    image = StudyImage(hu, np.eye(4), "CT", hounsfield=True)
    wide, soft, lung = make_frames(Study((image,)), SMALL).pixels[0].mean(dim=(1, 2)).tolist()
    assert (wide, soft, lung) == pytest.approx((0.4, 0.5, 0.927), abs=0.01)


def test_a_constant_image_is_black_and_not_an_error():
    image = StudyImage(np.full((1, 20, 20), 7, np.uint8), np.eye(4), calibrated=False)
    assert make_frames(Study((image,)), SMALL).pixels.abs().max() == 0


def test_more_views_than_frames_is_refused():
    image = StudyImage(np.zeros((1, 4, 4)), np.eye(4))
    with pytest.raises(RequestError, match="at most 4"):
        make_frames(Study((image,) * 5), SMALL)
