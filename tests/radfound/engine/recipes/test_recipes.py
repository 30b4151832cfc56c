import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from radfound.engine.recipes import RECIPES, recipe_for
from radfound.engine.shown import Picture
from radfound.exceptions import RequestError
from radfound.question import Question, WorkedExample
from radfound.study.region import region_from_json
from radfound.study.study import Study, StudyImage

AXIAL = np.diag([-0.5, -0.5, 2.0, 1.0])
HU = (-1024, 40, 3000)
QUESTION = Question(text="?")


def volume(depth=300, *, hounsfield=True, side=6, affine=AXIAL, values=None):
    """Slice k holds the value k everywhere, or the given values."""
    levels = np.arange(depth) if values is None else np.resize(values, depth)
    voxels = np.broadcast_to(levels[:, None, None], (depth, side, side)).astype(np.int16)
    return Study((StudyImage(voxels, affine, "CT" if hounsfield else "MR", hounsfield=hounsfield),))


def radiograph(shape=(40, 20), dtype=np.uint8, view=None):
    pixels = np.arange(np.prod(shape)).reshape(1, *shape).astype(dtype)
    return StudyImage(pixels, np.eye(4), "DX", view=view)


def slices(name, study, question=QUESTION):
    return [each.slice for each in RECIPES[name].show(study, question).pictures]


def box(low_k, high_k, low=0.5, high=1.0):
    return region_from_json({"box_mm": [[-high, -high, low_k * 2.0], [-low, -low, high_k * 2.0]]})


WHICH_OF_300 = {
    "medgemma": [int(round(i / 85 * 299)) for i in range(1, 86)],
    "hulu_med": list(np.linspace(0, 299, 180, dtype=int)),
    "qwen_vl": [int((n + 0.5) * 300 / 32) for n in range(32)],
    "gemma3": [int((n + 0.5) * 300 / 32) for n in range(32)],
    "smolvlm": [int((n + 0.5) * 300 / 16) for n in range(16)],
    "plain": [int((n + 0.5) * 300 / 8) for n in range(8)],
    "single_picture": [None],
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_right_slices_of_300_are_shown(name):
    assert slices(name, volume()) == WHICH_OF_300[name]


def test_medgemma_never_takes_the_first_of_many_slices_and_takes_the_last():
    shown = slices("medgemma", volume())
    assert (shown[0], shown[-1], len(shown)) == (4, 299, 85)


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"single_picture"}))
def test_all_slices_of_a_thin_stack_are_shown_once(name):
    assert slices(name, volume(7)) == list(range(7))


# red, green and blue at -1024, 40 and 3000 HU
GREYS = {
    "medgemma": ((0, 0, 0), (132, 128, 128), (255, 255, 255)),
    "qwen_vl": ((0, 0, 55), (102, 128, 236), (255, 255, 255)),
    "gemma3": ((0, 0, 55), (102, 128, 236), (255, 255, 255)),
    "smolvlm": ((0, 0, 55), (102, 128, 236), (255, 255, 255)),
    "plain": ((0, 0, 55), (102, 128, 236), (255, 255, 255)),
}


@pytest.mark.parametrize("name", GREYS)
def test_ct_numbers_become_the_right_grey_values(name):
    pictures = RECIPES[name].show(volume(3, values=HU), Question()).pictures
    middles = [
        each.pixels[each.pixels.shape[0] // 2, each.pixels.shape[1] // 2] for each in pictures
    ]
    assert tuple(tuple(int(v) for v in rgb) for rgb in middles) == GREYS[name]


def test_medgemma_scales_mr_over_the_whole_acquisition():
    pictures = RECIPES["medgemma"].show(volume(11, hounsfield=False), Question()).pictures
    greys = [tuple(each.pixels[448, 448]) for each in pictures]
    assert greys == [(v, v, v) for v in (0, 26, 51, 76, 102, 128, 153, 178, 204, 230, 255)]


def test_hulu_med_scales_each_slice_on_its_own_rounding_down():
    voxels = np.array([[[0, 1], [2, 3]], [[0, 100], [200, 300]]], np.int16)
    pictures = RECIPES["hulu_med"].show(Study((StudyImage(voxels, AXIAL),)), Question()).pictures
    for each in pictures:
        # indexed (i, j), as nibabel gives it
        assert each.pixels[..., 0].tolist() == [[0, 170], [85, 255]]


SIZES = {
    "medgemma": (896, 896),
    "gemma3": (896, 896),
    "smolvlm": (512, 512),
    "single_picture": (672, 672),
    "qwen_vl": (40, 20),
    "hulu_med": (40, 20),
    "plain": (40, 20),
}


@pytest.mark.parametrize("name", RECIPES)
def test_pictures_have_the_size_that_the_model_takes(name):
    (picture,) = RECIPES[name].show(Study((radiograph(),)), Question()).pictures
    assert picture.pixels.shape == (*SIZES[name], 3)
    assert picture.pixels.dtype == np.uint8


def test_padding_is_black_and_the_picture_is_in_the_middle():
    white = StudyImage(np.full((1, 40, 20), 255, np.uint8), np.eye(4))
    (picture,) = RECIPES["medgemma"].show(Study((white,)), Question()).pictures
    columns = picture.pixels[:, :, 0].mean(0)
    assert columns[:224].max() == 0 and columns[224:672].min() == 255 and columns[672:].max() == 0


def test_pixels_become_square_in_mm():
    flat = np.diag([-0.5, -1.0, 2.0, 1.0])
    (picture, *_) = RECIPES["plain"].show(volume(3, affine=flat), Question()).pictures
    assert picture.pixels.shape[:2] == (12, 6)


def test_many_large_slices_keep_within_the_pixel_budget():
    voxels = np.zeros((40, 600, 500), np.int16)
    pictures = RECIPES["qwen_vl"].show(Study((StudyImage(voxels, AXIAL),)), Question()).pictures
    assert len(pictures) == 32
    assert (
        sum(each.pixels.shape[0] * each.pixels.shape[1] for each in pictures) <= 1.01 * 32 * 448**2
    )


def layout(name, study):
    parts = RECIPES[name].show(study, Question()).parts
    return ["picture" if isinstance(each, Picture) else each for each in parts]


def test_medgemma_has_its_label_after_each_slice_and_the_instruction_first():
    instruction, *rest = layout("medgemma", volume(2))
    assert "slices" in instruction
    assert rest == ["picture", "SLICE 1", "picture", "SLICE 2"]


@pytest.mark.parametrize("name", ["qwen_vl", "gemma3", "smolvlm", "plain"])
def test_other_models_have_the_label_before_each_slice(name):
    assert layout(name, volume(2)) == ["SLICE 1", "picture", "SLICE 2", "picture"]


def test_a_prior_and_a_current_radiograph_are_told_apart():
    study = Study((radiograph(view="PA"), radiograph()))
    assert layout("medgemma", study) == ["picture", "IMAGE 1 (PA)", "picture", "IMAGE 2"]


def test_several_series_share_the_slices_and_are_named():
    (image,) = volume(100).images
    shown = RECIPES["medgemma"].show(Study((image, image)), Question())
    assert [each.image for each in shown.pictures] == [0] * 42 + [1] * 42
    assert "SERIES 2" in shown.parts
    assert shown.note == "image 1: 42 of 100 slices; image 2: 42 of 100 slices"


def test_a_box_keeps_the_slices_that_cross_it_cropped():
    question = Question(text="?", region=box(20, 25))
    shown = RECIPES["plain"].show(volume(), question)
    assert [each.slice for each in shown.pictures] == list(range(20, 26))
    assert shown.pictures[0].pixels.shape == (2, 2, 3)
    assert slices("medgemma", volume(), question) == list(range(20, 26))


@pytest.mark.parametrize("name", RECIPES)
def test_a_plane_shows_its_slice_alone(name):
    region = region_from_json({"slice_mm": {"point": [-1, -1, 80.0], "normal": [0, 0, 1]}})
    assert slices(name, volume(), Question(text="?", region=region)) == [40]


def test_an_oblique_plane_is_no_stored_slice():
    region = region_from_json({"slice_mm": {"point": [-1, -1, 80.0], "normal": [0, 1, 1]}})
    assert slices("plain", volume(), Question(text="?", region=region)) == [None]


def test_a_region_outside_the_study_is_refused():
    with pytest.raises(RequestError, match="region: outside"):
        RECIPES["medgemma"].show(volume(), Question(text="?", region=box(900, 901)))


def test_a_single_picture_model_gets_a_montage_and_its_answer_says_so():
    shown = RECIPES["single_picture"].show(volume(), Question())
    assert shown.pictures[0].caption.startswith("montage of 9, row by row: axial slice 17 of 300")
    assert shown.note == "9 of 300 slices; in one montage, because the model takes one picture"


def test_the_montage_has_the_slices_row_by_row():
    shown = RECIPES["single_picture"].show(volume(4, values=(-160, 240, 240, -160)), Question())
    (pixels,) = (each.pixels[..., 0] for each in shown.pictures)
    assert [int(pixels[r, c]) for r in (168, 504) for c in (168, 504)] == [0, 255, 255, 0]


def sagittal(spacing_mm):
    """Slices along R-L, as MR of the spine is acquired."""
    affine = np.zeros((4, 4))
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = -1.0, -1.0, spacing_mm, 1.0
    return Study((StudyImage(np.zeros((10, 30, 20), np.int16), affine, "MR"),))


def test_medgemma_gets_axial_slices_of_a_volume_that_was_acquired_sagittally():
    shown = RECIPES["medgemma"].show(sagittal(1.0), Question())
    assert len(shown.pictures) == 30
    assert {each.slice for each in shown.pictures} == {None}
    assert shown.pictures[0].caption.startswith("axial slice across the stored ones")


def test_thick_sagittal_slices_are_not_cut_across_and_the_note_says_so():
    shown = RECIPES["medgemma"].show(sagittal(4.0), Question())
    assert [each.slice for each in shown.pictures] == list(range(10))
    assert "not axial" in shown.note


def test_too_many_images_are_refused():
    with pytest.raises(RequestError, match="the study has 9; the model takes at most 8"):
        RECIPES["medgemma"].show(Study((radiograph(),) * 9), Question())


@pytest.mark.parametrize(
    ("model", "model_type", "name"),
    [
        ("google/medgemma-1.5-4b-it", "gemma3", "medgemma"),
        ("gemma-3-4b-it", "gemma3", "gemma3"),
        ("Qwen2-VL-2B-Instruct", "qwen2_vl", "qwen_vl"),
        ("Lingshu-7B", "qwen2_5_vl", "qwen_vl"),
        ("Qwen3-VL-4B", "qwen3_vl", "qwen_vl"),
        ("llava-med-v1.5", "llava_mistral", "single_picture"),
        ("Hulu-Med-7B", None, "hulu_med"),
        ("lingshu-medical-mllm/Lingshu-32B", None, "qwen_vl"),
        ("SmolVLM-256M-Instruct", "smolvlm", "smolvlm"),
        ("some-model", "internvl", "plain"),
    ],
)
def test_the_recipe_follows_the_model(model, model_type, name):
    assert recipe_for(model=model, model_type=model_type).name == name


def test_a_recipe_can_be_named_and_an_unknown_name_is_refused():
    assert recipe_for("medgemma", model_type="qwen2_vl").name == "medgemma"
    with pytest.raises(RequestError, match="recipe: found 'medgema'; expected one of medgemma"):
        recipe_for("medgema")


def test_what_was_shown_can_be_stored_and_looked_at():
    shown = RECIPES["medgemma"].show(volume(2), Question())
    record = shown.to_json()
    assert record["recipe"] == "medgemma"
    assert record["parts"][1] == {
        "picture": 0,
        "caption": "axial slice 1 of 2, windows -1024..1024, -135..215, 0..80 HU",
        "image": 0,
        "slice": 0,
        "size": [896, 896],
    }
    with Image.open(io.BytesIO(shown.png(1))) as picture:
        assert np.array_equal(np.asarray(picture), shown.pictures[1].pixels)


def test_images_of_a_prior_study_are_named_as_such():
    now, earlier = volume(4), replace(volume(4).images[0], prior=True)
    shown = RECIPES["qwen_vl"].show(Study((*now.images, earlier)), Question(text="Any change?"))
    words = [part for part in shown.parts if isinstance(part, str)]
    assert "SERIES 1, CURRENT" in words and "SERIES 2, PRIOR" in words
    captions = [picture.caption for picture in shown.pictures]
    assert [text.startswith("prior study, ") for text in captions] == [False] * 4 + [True] * 4


def worked(number, study):
    return WorkedExample(f"c{number}", study, "Any effusion?", f"Yes {number}", "Dr A, 2026-08-01")


def film(shape=(40, 20)):
    return Study((radiograph(shape),))


def with_examples(name, study, *examples):
    return RECIPES[name].show(study, Question(text="Any effusion?", examples=examples))


def test_worked_examples_come_before_the_study_with_pictures_and_answers():
    shown = with_examples("plain", film(), worked(1, film((30, 30))), worked(2, volume(20)))
    assert [each.pixels.shape[0] for each in shown.pictures[:1]] == [30]
    assert len(shown.pictures) == 1 + 4 + 1
    texts = [part for part in shown.parts if isinstance(part, str)]
    assert "QUESTION: Any effusion?\nANSWER: Yes 1\n" in texts
    assert texts.index("THE STUDY IN QUESTION:\n") > texts.index(
        "QUESTION: Any effusion?\nANSWER: Yes 2\n"
    )
    assert shown.pictures[0].caption.startswith("worked example 1, ")
    assert shown.pictures[1].slice is None
    assert shown.note == (
        "with 2 worked examples: Yes 1 (Dr A, 2026-08-01); Yes 2 (Dr A, 2026-08-01)"
    )


def test_the_study_itself_is_shown_as_without_examples():
    alone, shown = (
        with_examples("qwen_vl", film()),
        with_examples("qwen_vl", film(), worked(1, film())),
    )
    assert shown.parts[-len(alone.parts) :] != () and len(alone.pictures) == 1
    assert np.array_equal(shown.pictures[-1].pixels, alone.pictures[0].pixels)


def test_examples_that_there_is_no_room_for_are_left_out():
    assert with_examples("plain", volume(300), worked(1, film())).note == "8 of 300 slices"
    shown = with_examples("plain", volume(4), worked(1, volume(9)), worked(2, film()))
    assert shown.note.startswith("with 1 worked example: Yes 1")


def test_a_model_that_takes_one_picture_gets_no_examples():
    shown = with_examples("single_picture", film(), worked(1, film()))
    assert len(shown.pictures) == 1 and shown.note is None
