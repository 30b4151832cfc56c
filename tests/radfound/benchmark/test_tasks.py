import json
from collections import Counter

import pytest

from radfound.benchmark.controls import majority_answers, other_patients
from radfound.benchmark.tasks import NOT_STATED, Item, Source, calibration_items, load_task
from radfound.datasets import Example, Turn
from radfound.exceptions import DatasetError, RequestError

PATIENTS = 8  # of each split of `own_data`


def studies(*keys):
    return [Example(key, (), ()) for key in keys]


@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_given_an_image_of_the_same_patient(seed):
    examples = studies(*"aaabbcddee")
    given = other_patients(examples, seed)
    assert sorted(given) == list(range(len(examples)))
    assert all(examples[k].key != examples[given[k]].key for k in range(len(examples)))


def test_who_gets_whose_image_depends_on_the_seed_alone():
    examples = studies(*"abcdefgh")
    assert other_patients(examples, 1) == other_patients(examples, 1) != other_patients(examples, 2)


def test_a_patient_with_most_of_the_studies_cannot_be_given_anothers():
    with pytest.raises(DatasetError, match="3 of the 4"):
        other_patients(studies(*"aaab"), 0)


def question(text, answer, group="closed"):
    return Item("", Example("p", (), ()), Turn("vqa", (text,), answer), group)


def test_the_majority_answer_is_that_of_training_questions_of_the_same_kind():
    training = [
        *[question("Is it?", "No")] * 3,
        *[question("Are they?", "Yes")] * 2,
        *[question("What is it?", "CT", "open")] * 9,
    ]
    asked = [
        question("Is there?", "?"),
        question("Are there?", "?"),
        question("Does it?", "?"),
        question("Where?", "?", "open"),
    ]
    assert majority_answers(asked, training) == ["No", "Yes", "No", "CT"]


def test_the_majority_caption_is_the_training_text_nearest_to_all_others():
    texts = ["CT of a mass", "CT of a liver mass", "CT shows a liver mass", "sagittal knee"]
    items = [Item("", Example("p", (), ()), Turn("caption", (), t), "caption") for t in texts]
    assert majority_answers(items[:1], items) == ["CT of a liver mass"]


def test_a_blank_study_keeps_its_shape(own_data):
    study = Source(str(own_data)).items("caption", "test")[0].example.read()
    empty = study.blanked()
    assert empty.images[0].voxels.shape == study.images[0].voxels.shape
    assert not empty.images[0].voxels.any()


def test_metadata_questions_are_asked_of_validation_and_test_and_of_both(own_data):
    task = load_task("metadata", Source(str(own_data)))
    rows = Counter(row for item in task.items for row in item.rows)
    assert rows["plane, validation"] == rows["plane, test"] == PATIENTS
    assert rows["plane, both"] == 2 * PATIENTS and rows["all, both"] == 6 * PATIENTS
    assert all(item.turn.questions for item in task.items)


def test_questions_about_images_that_are_not_in_training_have_a_row_of_their_own(tmp_path):
    shared = {"question": "Is it?", "answer": "Yes", "kind": "closed"}
    rows = [
        {"patient": "a", "images": ["a.png"], "split": "train", "questions": [shared]},
        {"patient": "b", "images": ["a.png"], "split": "test", "questions": [shared]},
        {"patient": "c", "images": ["c.png"], "split": "test", "questions": [shared]},
    ]
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(b"")
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = load_task("vqa", Source(str(file))).items
    assert [item.rows for item in items] == [
        ("closed",),
        ("closed", "closed, image not in training"),
    ]


def test_a_limit_takes_that_many_studies_of_a_split(own_data):
    task = load_task("vqa", Source(str(own_data)), limit=3)
    assert len({item.example.key for item in task.items}) == 3
    assert len({item.id for item in task.items}) == len(task.items) == 9


def test_items_know_modality_and_organ_system_in_the_words_of_the_taxonomy(own_data):
    item = load_task("caption", Source(str(own_data))).items[0]
    assert item.modality == "computed tomography" and item.organ_system == "brain"
    assert (
        question("Is it?", "Yes").modality == question("Is it?", "Yes").organ_system == NOT_STATED
    )


def test_calibration_is_fitted_to_questions_of_the_validation_split(own_data):
    items = calibration_items(Source(str(own_data)))
    assert {item.example.split for item in items} == {"validation"}
    assert len(items) == 6 * PATIENTS


def test_unknown_tasks_and_missing_data_are_errors_that_say_what_to_do(own_data, tmp_path):
    with pytest.raises(RequestError, match="metadata, vqa, caption, report"):
        load_task("vqas", Source(str(own_data)))
    with pytest.raises(DatasetError, match="--data"):
        load_task("vqa", Source(str(tmp_path)))
    with pytest.raises(DatasetError, match="not found"):
        load_task("vqa", Source(f"slake={tmp_path}"))
    lines = [json.loads(line) for line in own_data.read_text().splitlines()]
    bare = own_data.with_name("bare.jsonl")
    bare.write_text("".join(json.dumps({**row, "questions": []}) + "\n" for row in lines))
    with pytest.raises(DatasetError, match="leave the task out"):
        load_task("vqa", Source(str(bare)))


def test_the_kit_asks_what_its_publishers_test_splits_ask(kit):
    source = Source(str(kit))
    closed = Counter(row for item in load_task("vqa", source).items for row in item.rows)
    assert (closed["closed"], closed["open"]) == (272, 179)
    # Figures of MedPix's held-out cases bring VQA-Med's questions and some of VQA-RAD's training split.
    assert [closed[f"{group}, image not in training"] for group in ("closed", "open")] == [47, 182]
    metadata = load_task("metadata", source)
    assert len({item.example.files for item in metadata.items}) == 93 + 123
