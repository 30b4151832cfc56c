import numpy as np
import pytest

from radfound.fields.features import field_frames
from radfound.fields.stated import stated_fields
from radfound.study.study import Study, StudyImage


def image(shape=(1, 32, 32), **given):
    voxels = np.random.default_rng(0).integers(0, 255, shape).astype(np.int16)
    return StudyImage(voxels, np.diag([-1.0, -1.0, 3.0, 1.0]), **given)


def stated(*images):
    study = Study(images)
    return stated_fields(study, field_frames(study))


def test_a_picture_without_metadata_states_nothing():
    assert stated(image(calibrated=False)) == {}


def test_a_volume_states_its_plane_and_hounsfield_units_state_ct():
    assert stated(image((8, 32, 32), hounsfield=True)) == {"modality": "CT", "plane": "axial"}


def test_a_header_states_modality_region_and_projection():
    assert stated(image(modality="DX", view="PA", body_part="chest")) == {
        "modality": "X-ray",
        "region": "thorax",
        "projection": "PA",
    }


@pytest.mark.parametrize(
    ("views", "side"), [(("L CC", "L MLO"), "left"), (("L CC", "R CC"), "both")]
)
def test_mammograms_state_the_side(views, side):
    found = stated(*(image(modality="MG", view=view) for view in views))
    assert found["side"] == side


def test_images_that_disagree_state_nothing():
    assert "modality" not in stated(image(modality="CT"), image(modality="MR"))
