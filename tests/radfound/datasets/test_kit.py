import re

import pytest

from radfound.datasets import Kit
from radfound.datasets.questions import validation_question
from radfound.exceptions import DatasetError
from radfound.reading import read_study


def synpics(examples):
    return {
        found.group()
        for e in examples
        for f in e.files
        if (found := re.search(r"synpic\d+", f.name))
    }


def test_a_folder_without_the_kit_is_named(tmp_path):
    with pytest.raises(DatasetError, match="manifest.json"):
        Kit(tmp_path)


def test_no_training_image_is_a_held_out_medpix_figure(kit):
    data = Kit(kit)
    held_out = synpics([*data.medpix_figures("validation"), *data.medpix_figures("test")])
    training = [
        *data.medpix_figures(),
        *data.medpix_cases(),
        *data.vqa(),
        *data.radiographs(),
        *data.mammograms(),
    ]
    assert len(held_out) == 216
    assert synpics(training) & held_out == set()


def test_the_sources_are_read_whole(kit):
    data = Kit(kit)
    assert sum(len(e.turns) for e in data.vqa("test")) == 451
    assert sum(1 for _ in data.medpix_figures()) == 1551
    assert sum(1 for _ in data.medpix_figures("test")) == 123
    assert sum(1 for e in data.vqa("validation") for _ in e.turns) == 277
    report = next(data.medpix_cases()).turns[0]
    assert (
        report.task == "report"
        and report.answer.startswith("Findings: ")
        and "\nImpression: " in report.answer
    )


def test_figures_have_modality_plane_and_region_and_lose_their_footer(kit):
    example = next(Kit(kit).medpix_figures())
    assert example.labels == {"modality": "CT", "plane": "axial", "region": "thorax"}
    whole = read_study(example.files[0]).images[0].voxels.shape[1]
    assert example.read().images[0].voxels.shape[1] == whole - round(0.06 * whole)


def questions(examples):
    return {
        (example.files, turn.questions[0].lower()) for example in examples for turn in example.turns
    }


def test_validation_and_test_questions_of_vqa_rad_are_never_trained_on(kit):
    data = Kit(kit)
    asked = {split: questions(data.vqa(split)) for split in ("train", "validation", "test")}
    assert asked["train"].isdisjoint(asked["validation"] | asked["test"])
    assert asked["validation"].isdisjoint(asked["test"])
    ids = {turn.id for example in data.vqa("validation") for turn in example.turns}
    assert all(name.startswith("vqarad-train-") and validation_question(name) for name in ids)


def test_vqa_turns_say_whether_they_are_closed_and_what_the_source_calls_them(kit):
    turns = {turn.id: turn for e in Kit(kit).vqa("test") for turn in e.turns}
    assert len(turns) == 451 and {turn.kind for turn in turns.values()} == {"closed", "open"}


def test_vqa_rad_images_carry_the_region_in_the_words_of_medpix(kit):
    data = Kit(kit)
    regions = {e.labels["region"] for e in data.vqa() if e.source == "VQA-RAD"}
    assert regions == {"head", "thorax", "abdomen"}
    assert regions < {e.labels["region"] for e in data.medpix_figures()}
    assert all("modality" not in e.labels for e in data.vqa() if e.source == "VQA-RAD")
