from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from radfound.engine.engine import Engine
from radfound.exceptions import NotFoundError, RequestError
from radfound.question import CANNOT_TELL
from radfound.reading import read_study
from radfound.reading.geometry import flat_affine
from radfound.records.adapters import AdapterStore
from radfound.study.evidence_map import HIGHEST, Evidence, lay_back, write_nrrd
from radfound.study.frames import FrameConfig, make_frames
from radfound.study.region import Box, Plane, PointAndNormal
from radfound.study.study import Study, StudyImage

from ..miniature import rotation
from .test_engine import published

CONFIG = FrameConfig(image_size=64, max_frames=8)
PATCHES = 8


def affine_of(spacing_mm, axis=(0, 0, 1), degrees=0.0, origin=(-40.0, 25.0, 60.0)):
    affine = np.eye(4)
    affine[:3, :3] = rotation(axis, degrees) @ np.diag(spacing_mm)
    affine[:3, 3] = origin
    return affine


def brightness_laid_back(image, region=None, config=CONFIG):
    """What comes back where a patch's value is the mean of its pixels, as a model would see them."""
    study = Study((image,))
    frames = make_frames(study, config, region)
    patches = F.avg_pool2d(frames.pixels[:, 0], config.image_size // PATCHES).numpy()
    (found,) = lay_back(patches, frames.sources, config.image_size, study)
    return found


def block(shape, middle, radius):
    """A volume with one bright block, and the block."""
    voxels = np.zeros(shape, np.int16)
    part = tuple(slice(max(0, m - r), m + r + 1) for m, r in zip(middle, radius, strict=True))
    voxels[part] = 1000
    return voxels


GEOMETRIES = {
    "axial, thick slices": affine_of((1.0, 1.0, 4.0)),
    "both axes flipped": affine_of((-1.0, -1.0, 4.0)),
    "oblique and anisotropic": affine_of((0.8, 1.3, 5.0), (1, 2, 0.5), 25),
    "turned by nearly a right angle": affine_of((1.1, 0.7, 3.0), (1, 0, 0), 80),
    "sheared like a tilted gantry": affine_of((1.0, 1.0, 4.0))
    @ np.array([[1, 0, 0, 0], [0, 1, 0.5, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    "thick along i": affine_of((5.0, 1.0, 1.0), (0, 1, 1), 10),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("middle", [(6, 12, 40), (18, 44, 12)])
def test_a_peak_lands_on_the_voxels_that_its_patch_was_cut_from(name, middle):
    affine = GEOMETRIES[name]
    shape, radius = ((24, 56, 64), (3, 6, 6))
    if name == "thick along i":
        shape, radius, middle = (64, 56, 24), (6, 6, 3), middle[::-1]
        middle = (middle[0], middle[1], middle[2])
    voxels = block(shape, middle, radius)
    found = brightness_laid_back(StudyImage(voxels, affine))
    assert found.shape == voxels.shape and found.dtype == np.uint8
    assert found.max() == pytest.approx(HIGHEST, abs=12)
    assert np.all(voxels[found == found.max()] == 1000)
    assert found.mean() < 0.1 * HIGHEST


def test_a_region_is_mapped_inside_and_nothing_outside():
    voxels = block((24, 56, 64), (8, 30, 40), (2, 5, 5))
    voxels[20, 5, 5] = 5000  # outside, and never shown
    image = StudyImage(voxels, affine_of((1.0, 1.0, 4.0), (0, 0, 1), 20))
    corners = image.affine @ np.array([[30, 50], [20, 40], [4, 12], [1, 1]])
    box = np.sort(corners[:3].T, axis=0)
    region = Box(box.tolist())
    found = brightness_laid_back(image, region)
    assert voxels[np.unravel_index(found.argmax(), found.shape)] == 1000
    k, j, i = np.nonzero(found)
    places = (image.affine @ np.stack([i, j, k, np.ones_like(i)]))[:3]
    slack = np.abs(image.affine[:3, :3]).sum(1)
    # The box is cut along the voxels, which run askew to it: what is shown is the box of its corners.
    indices = (
        np.linalg.inv(image.affine)
        @ np.array(
            [[box[a, 0], box[b, 1], box[c, 2], 1] for a in (0, 1) for b in (0, 1) for c in (0, 1)]
        ).T
    )
    for axis, coordinates in enumerate((i, j, k)):
        assert coordinates.min() >= np.floor(indices[axis].min()) - 1
        assert coordinates.max() <= np.ceil(indices[axis].max()) + 1
    assert len(places.T) and np.all(slack > 0)


@pytest.mark.parametrize("normal", [(0, 0, 1), (0, 0.5, 1), (1, 1, 1)])
def test_a_plane_is_mapped_on_the_voxels_that_it_runs_through(normal):
    voxels = block((24, 56, 64), (11, 28, 32), (4, 7, 7))
    image = StudyImage(voxels, affine_of((1.0, 1.0, 2.0)))
    point = (image.affine @ [32, 28, 11, 1])[:3]
    region = Plane(PointAndNormal(point.tolist(), list(normal)))
    found = brightness_laid_back(image, region)
    assert voxels[np.unravel_index(found.argmax(), found.shape)] == 1000
    k, j, i = np.nonzero(found)
    away = (image.affine @ np.stack([i, j, k, np.ones_like(i)]))[:3].T - point
    assert np.abs(away @ normal / np.linalg.norm(normal)).max() <= 2.0


def test_a_picture_gets_a_map_of_one_slice_without_its_border():
    voxels = block((1, 40, 100), (0, 10, 80), (0, 8, 8))
    image = StudyImage(voxels, flat_affine(), calibrated=False)
    found = brightness_laid_back(image)
    assert found.shape == (1, 40, 100)
    assert voxels[np.unravel_index(found.argmax(), found.shape)] == 1000


def test_what_a_model_made_of_the_black_border_is_left_out():
    image = StudyImage(np.ones((1, 20, 100), np.int16), flat_affine(), calibrated=False)
    study = Study((image,))
    frames = make_frames(study, CONFIG)
    patches = np.zeros((1, PATCHES, PATCHES), np.float32)
    patches[0, 0, 0], patches[0, 4, 4] = 100.0, 1.0
    (found,) = lay_back(patches, frames.sources, CONFIG.image_size, study)
    assert found.max() > 0.6 * HIGHEST


def test_each_view_gets_its_own_map_on_one_scale():
    views = [
        StudyImage(np.full((1, 64, 64), value, np.int16), flat_affine(), view=view)
        for value, view in ((1, "L CC"), (2, "R CC"))
    ]
    study = Study(tuple(views))
    frames = make_frames(study, CONFIG)
    patches = np.zeros((2, PATCHES, PATCHES), np.float32)
    patches[0], patches[1] = 1.0, 2.0
    left, right = lay_back(patches, frames.sources, CONFIG.image_size, study)
    assert (left.max(), right.max()) == (128, HIGHEST)


def test_a_map_of_nothing_is_zero_everywhere():
    image = StudyImage(np.ones((4, 20, 20), np.int16), np.eye(4))
    study = Study((image,))
    frames = make_frames(study, CONFIG)
    (found,) = lay_back(np.zeros((4, 8, 8)), frames.sources, CONFIG.image_size, study)
    assert not found.any()


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_file_lies_where_the_volume_lies(tmp_path, name):
    affine = GEOMETRIES[name]
    values = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / "map.nrrd"
    write_nrrd(path, values, affine)

    read = sitk.ReadImage(str(path))
    for ijk in ((0, 0, 0), (3, 2, 1), (1, 2, 0)):
        lps = np.array(read.TransformIndexToPhysicalPoint(ijk))
        assert np.allclose(lps * [-1, -1, 1], (affine @ [*ijk, 1])[:3], atol=1e-6)
        assert read[ijk] == values[ijk[::-1]]
    (again,) = read_study(path).images
    assert np.allclose(again.affine, affine, atol=1e-6)


# A model ---------------------------------------------------------------------------------------


def asked(engine, study, question="What is shown?", **how):
    answer = engine.answer(study, "vqa", question, max_new_tokens=6, **how)
    return engine.evidence(study, answer, **how)


def correlation(first: Evidence, second: Evidence) -> float:
    """Rank correlation between the patches of two maps."""
    from scipy.stats import spearmanr

    return float(spearmanr(first.patches.ravel(), second.patches.ravel()).statistic)


def test_an_answer_has_a_map_on_the_voxels_of_its_study(engine, study):
    found = asked(engine, study)
    assert found.maps[0].shape == study.images[0].voxels.shape
    assert found.maps[0].max() > 0.5 * HIGHEST
    assert found.patches.shape == (4, 4, 4) and found.patches.min() >= 0
    again = asked(engine, study)
    assert np.array_equal(found.maps[0], again.maps[0])


def test_captions_reports_and_regions_have_maps_too(engine, study):
    for task in ("caption", "report"):
        answer = engine.answer(study, task, max_new_tokens=4)
        assert engine.evidence(study, answer).maps[0].any()
    box = Box(((-15.0, -15.0, 0.0), (-2.0, -2.0, 9.0)))
    found = asked(engine, study, region=box).maps[0]
    assert found.any() and not found[6:].any()


def test_asking_for_a_map_changes_no_answer_and_leaves_no_gradient(engine, study):
    before = engine.answer(study, "vqa", "Why?", max_new_tokens=8).text
    asked(engine, study, "Why?")
    assert engine.answer(study, "vqa", "Why?", max_new_tokens=8).text == before
    assert all(p.grad is None for p in engine.backend.model.model.parameters())
    assert all(
        getattr(module, "seen", None) is None for module in engine.backend.model.model.modules()
    )


def test_the_attention_that_is_watched_is_the_one_that_answers(engine, study):
    local = engine.backend.model
    inputs = local.processor.image_processor.preprocess(study)
    with torch.no_grad():
        plain = local.model.get_image_features(**inputs)
        for module in local.model.modules():
            if hasattr(module, "seen"):
                module.seen = []
        watched = local.model.get_image_features(**inputs)
        for module in local.model.modules():
            if hasattr(module, "seen"):
                module.seen = None
    assert torch.allclose(plain.float(), watched.float(), atol=2e-2)


def test_other_weights_give_another_map(engine, study):
    found = asked(engine, study)
    other = Engine.load("radfound-tiny")
    answer = engine.answer(study, "vqa", "What is shown?", max_new_tokens=6)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in other.backend.model.model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(
                    parameter.flatten()[torch.randperm(parameter.numel())].view_as(parameter)
                )
    assert correlation(found, other.evidence(study, answer)) < 0.7


def test_the_map_is_of_the_adapter_that_wrote_the_answer(study, tmp_path):
    store = AdapterStore(tmp_path / "adapters")
    engine = Engine.load("radfound-tiny", adapters=store)
    on_base = engine.answer(study, "vqa", "What is shown?", max_new_tokens=6)
    map_of_base = engine.evidence(study, on_base)

    name = published(store)
    with_adapter = engine.answer(study, "vqa", "What is shown?", max_new_tokens=6)
    assert with_adapter.model.adapter == name
    map_with_adapter = engine.evidence(study, with_adapter)
    assert not np.array_equal(map_of_base.patches, map_with_adapter.patches)

    again = engine.evidence(study, on_base)  # while the adapter is active
    assert np.array_equal(map_of_base.patches, again.patches)
    assert engine.answer(study, "vqa", "What is shown?", max_new_tokens=6).text == with_adapter.text

    store.activate(None)
    engine.answer(study, "vqa", "What is shown?", max_new_tokens=2)
    again = engine.evidence(study, with_adapter)
    assert np.array_equal(map_with_adapter.patches, again.patches)
    assert engine.model_version.adapter is None


def test_an_answer_of_other_weights_has_no_map_here(engine, study):
    answer = engine.answer(study, "vqa", "Why?", max_new_tokens=2)
    with pytest.raises(RequestError, match="ask again"):
        engine.evidence(study, replace(answer, model=replace(answer.model, revision="0" * 12)))
    with pytest.raises(NotFoundError, match="no adapters"):
        engine.evidence(study, replace(answer, model=replace(answer.model, adapter="a-0001")))


def test_each_sentence_of_a_report_has_a_map_of_its_own(engine, study):
    report = replace(
        engine.answer(study, "report", max_new_tokens=4),
        text="Findings: The heart is large. No effusion. Impression: Large heart.",
    )
    whole = engine.evidence(study, report)
    first = engine.evidence(study, report, text="The heart is large.")
    second = engine.evidence(study, report, text="No effusion.")
    assert not np.array_equal(first.patches, second.patches)
    assert not np.array_equal(whole.patches, second.patches)
    assert np.array_equal(whole.patches, engine.evidence(study, report, text=report.text).patches)
    other = engine.evidence(study, report, text="A sentence that is not in the report.")
    assert other.maps[0].any()


def test_a_sentence_is_explained_given_what_comes_before_it(engine, study):
    def report(lead):
        answer = engine.answer(study, "report", max_new_tokens=4)
        return replace(answer, text=f"{lead} No effusion.")

    one, other = (
        engine.evidence(study, report(lead), text="No effusion.")
        for lead in ("Findings: Clear lungs.", "Findings: The liver is large.")
    )
    assert not np.array_equal(one.patches, other.patches)


@pytest.mark.parametrize(
    ("text", "complaint"), [(" ", "text: empty"), ("word " * 2000, "at most 512 fit")]
)
def test_a_text_that_cannot_be_explained_is_refused(engine, study, text, complaint):
    answer = engine.answer(study, "vqa", "Why?", max_new_tokens=2)
    with pytest.raises(RequestError, match=complaint):
        engine.evidence(study, answer, text=text)


def test_what_the_model_cannot_tell_has_no_map(engine, study):
    answer = replace(engine.answer(study, "vqa", "Why?", max_new_tokens=2), text=CANNOT_TELL)
    with pytest.raises(RequestError, match="no answer"):
        engine.evidence(study, answer)


def test_maps_are_written_beside_each_other(tmp_path):
    found = Evidence(
        (np.zeros((1, 2, 3), np.uint8), np.ones((1, 3, 2), np.uint8)),
        (flat_affine(), flat_affine()),
        np.zeros((2, 8, 8), np.float32),
        (),
    )
    paths = found.write(tmp_path / "map.nrrd")
    assert [path.name for path in paths] == ["map.nrrd", "map_2.nrrd"]
    assert sitk.ReadImage(str(paths[1])).GetSize() == (2, 3, 1)
