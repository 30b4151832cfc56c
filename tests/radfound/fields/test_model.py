import json
import shutil

import numpy as np
import pytest

from radfound.datasets import Kit
from radfound.exceptions import CheckpointError
from radfound.fields import FieldModel
from radfound.fields.compose import UNKNOWN_PICTURE
from radfound.model.checkpoints import shipped_folder
from radfound.question import CANNOT_TELL, Question
from radfound.reading import read_study
from radfound.study.study import Study, StudyImage

FOLDER = shipped_folder("radfound-mini")


@pytest.fixture(scope="module")
def model():
    return FieldModel.load(FOLDER)


def picture(pixels):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    return Study((StudyImage(pixels.astype(np.uint8)[None], affine, calibrated=False),))


@pytest.fixture(scope="module")
def ct():
    voxels = np.random.default_rng(0).normal(0, 300, (6, 64, 64)).astype(np.int16)
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])
    return Study((StudyImage(voxels, affine, modality="CT", hounsfield=True),))


def figures(kit, split="test"):
    """One figure of each case, with its labels."""
    cases = {example.key: example for example in Kit(kit).medpix_figures(split)}
    return list(cases.values())


@pytest.mark.parametrize("value", [0, 255])
def test_a_blank_picture_is_of_no_known_kind(model, value):
    fields = model.read(picture(np.full((256, 256), value)))
    assert fields["modality"].value is None
    assert fields["modality"].reason == UNKNOWN_PICTURE
    answer = model.answer(
        picture(np.full((256, 256), value)), Question(text="Which modality is this?")
    )
    assert (answer.text, answer.silent, answer.confidence) == (CANNOT_TELL, True, None)


def test_noise_is_of_no_known_kind(model):
    noise = np.random.default_rng(1).uniform(0, 255, (256, 256))
    assert model.read(picture(noise))["modality"].value is None


def test_the_file_states_modality_and_plane_of_a_volume(model, ct):
    fields = model.read(ct)
    assert fields["modality"] == ("CT", None, "file", "")
    assert fields["plane"] == ("axial", None, "file", "")
    answer = model.answer(ct, Question(text="In which plane is this image?"))
    assert (answer.text, answer.source, answer.confidence) == ("Axial", "file", None)
    assert model.answer(ct, Question(text="Is this an MRI?")).text == "No"


def test_the_plane_of_a_file_is_told_of_a_volume_of_no_known_kind(model):
    noise = np.random.default_rng(2).uniform(0, 255, (12, 64, 64)).astype(np.float32)
    volume = Study((StudyImage(noise, np.diag([-2.0, -2.0, 4.0, 1.0])),))
    assert model.read(volume)["modality"].reason == UNKNOWN_PICTURE
    answer = model.answer(volume, Question(text="In which plane is this image?"))
    assert (answer.text, answer.source) == ("Axial", "file")


def test_a_field_that_does_not_apply_is_not_answered(model, ct):
    assert "weighting" not in model.read(ct)
    answer = model.answer(ct, Question(text="What is the MR weighting?"))
    assert answer.silent
    assert "MRI only; this is CT" in answer.reason


def test_no_finding_is_judged_in_a_volume(model, ct):
    assert model.reading(ct).findings == {}
    answer = model.answer(ct, Question(text="Is there pneumonia?"))
    assert (answer.text, answer.kind, answer.silent) == (CANNOT_TELL, "finding", True)


def test_other_questions_are_left_to_the_language_model(model, ct):
    assert model.answer(ct, Question(text="Where is the lesion?")) is None


def test_captions_and_reports_are_composed(model, ct):
    assert model.answer(ct, Question(task="caption")).text.startswith("Axial ")
    assert "Impression:" in model.answer(ct, Question(task="report")).text


def test_saved_heads_load_again_and_read_the_same(model, ct, tmp_path):
    model.save(tmp_path)
    again = FieldModel.load(tmp_path, stem=model.features.stem)
    assert again.read(ct) == model.read(ct)


def test_the_shipped_files_are_small():
    size = sum((FOLDER / name).stat().st_size for name in ("fields.json", "fields.safetensors"))
    assert size < 4_000_000


def test_damaged_heads_are_named(tmp_path):
    shutil.copy(FOLDER / "fields.safetensors", tmp_path)
    (tmp_path / "fields.json").write_text(json.dumps({"schema": "other"}))
    with pytest.raises(CheckpointError, match="schema is 'other'"):
        FieldModel.load(tmp_path)


def test_only_findings_with_a_lower_bound_above_065_are_shipped(model):
    assert len(model.finding_heads) >= 10
    assert all(each.measured["auroc"][1] > 0.65 for each in model.finding_heads)


def test_modality_and_plane_of_held_out_figures_are_mostly_right(model, kit):
    chosen = figures(kit)
    right = {"modality": 0, "plane": 0}
    asked = dict.fromkeys(right, 0)
    for example in chosen:
        fields = model.read(example.read())
        for name in right:
            if example.labels.get(name) in model.fields[name].head.names:
                asked[name] += 1
                right[name] += fields.get(name, (None,))[0] == example.labels[name]
    assert right["modality"] / asked["modality"] > 0.9
    assert right["plane"] / asked["plane"] > 0.8


def test_the_sides_of_a_four_view_mammogram_are_right_one_by_one(model, kit):
    for row in Kit(kit).rows("mammo/exams.jsonl")[0]["images"]:
        study = read_study(kit / row["image"])
        (image,) = study.images
        named = Study((StudyImage(image.voxels, image.affine, modality="MG", calibrated=False),))
        side = model.read(named)["side"]
        assert side.value in (None, {"L": "left", "R": "right"}[row["laterality"]])


def test_a_childs_film_gets_no_adults_finding(model, kit):
    rows = Kit(kit).rows("findings/findings.jsonl")
    films = [r for r in rows if r["set"] == "kermany_pediatric_cxr" and r["split"] == "test"][:12]
    for row in films:
        reading = model.reading(read_study(kit / "findings" / row["file"]))
        assert all("children" in each.limit for each in reading.findings.values())
