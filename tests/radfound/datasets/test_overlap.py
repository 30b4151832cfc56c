import pytest

from radfound.datasets import Example, Turn, open_dataset, overlaps
from radfound.datasets.__main__ import main
from radfound.exceptions import DatasetError


def study(key, file, question=""):
    turns = (Turn("vqa", (question,), "Yes"),) if question else ()
    return Example(key, (file,), turns)


def test_shared_images_patients_and_questions_are_counted(tmp_path, picture):
    a, b, copy = (picture(tmp_path / name) for name in ("a.png", "b.png", "copy.png"))
    train = [study("p1", a, "Is it?"), study("p2", b)]
    test = [study("p1", a, "is  it?"), study("p3", copy)]
    (both,) = overlaps({"train": train, "test": test})
    assert (both.first, both.second) == ("train", "test")
    assert (both.images, both.keys, both.questions) == (1, 1, 1)


def test_a_copy_under_another_name_is_found_by_content(tmp_path, picture):
    original, copy = picture(tmp_path / "a.png"), picture(tmp_path / "copy.png")
    splits = {"train": [study("p1", original)], "test": [study("p2", copy)]}
    assert overlaps(splits)[0].images == 0
    assert overlaps(splits, by_content=True)[0].images == 1


def test_203_images_of_vqa_rad_are_in_both_of_its_official_splits(kit):
    splits = {name: open_dataset("kit-vqa-rad", kit, name) for name in ("train", "test")}
    assert overlaps(splits)[0].images == 203


def test_the_command_prints_what_splits_share(tmp_path, picture, write, capsys):
    picture(tmp_path / "a.png")
    rows = [
        {"patient": f"p{n}", "images": ["a.png"], "split": s}
        for n, s in enumerate(("train", "test"))
    ]
    file = write(tmp_path / "own.jsonl", rows, lines=True)
    assert main(["overlap", str(file), "--splits", "train,test"]) == 0
    said = capsys.readouterr().out
    assert "| train | 1 | 1 | 0 |" in said
    assert "| train and test | 1 | 0 | 0 |" in said


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert main(["overlap", "slake", str(tmp_path)]) == 1
    assert "train.json: not found" in capsys.readouterr().err


def test_an_unknown_layout_is_answered_with_the_known_ones():
    with pytest.raises(DatasetError, match="no such layout; expected one of vqa-rad, slake"):
        open_dataset("vqarad", ".")
    with pytest.raises(DatasetError, match="no folder given"):
        open_dataset("slake")
