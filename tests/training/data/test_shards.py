import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("webdataset", reason="webdataset is not installed")
from PIL import Image

from radfound.datasets import Example, Turn
from radfound.exceptions import DatasetError
from training.data.shards import main, read_shards, write_shards


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (24, 24), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


@pytest.fixture
def examples(tmp_path):
    turns = (
        Turn("vqa", ("Is there an effusion?", "Any effusion?"), "Yes — left.", "closed", "q1"),
        Turn("caption", (), "A radiograph."),
    )
    return [
        Example(
            f"case{n}",
            tuple(picture(tmp_path / f"in/John.Doe {n}/view.{v}.png", 10 * n + v) for v in range(n % 3 + 1)),
            turns,
            {"modality": "X-ray"},
            text="A caption.",
            source="own",
            split="train",
            footer=bool(n % 2),
            region={"axis": 2} if n == 4 else None,
        )
        for n in range(7)
    ]  # fmt: skip


def without_files(examples):
    return [replace(example, files=()) for example in examples]


def test_what_is_read_is_what_was_written(tmp_path, examples):
    paths = write_shards(examples, tmp_path / "shards")
    found = list(read_shards(tmp_path / "shards", tmp_path / "scratch"))
    assert len(paths) == 1
    assert without_files(found) == without_files(examples)
    for one, other in zip(found, examples, strict=True):
        assert [p.read_bytes() for p in one.files] == [p.read_bytes() for p in other.files]
        both = zip(one.read().images, other.read().images, strict=True)
        assert all(np.array_equal(a.voxels, b.voxels) for a, b in both)


def test_a_study_that_is_a_folder_of_files_stays_one(tmp_path):
    picture(tmp_path / "series/b/2.png", 2), picture(tmp_path / "series/1.png", 1)
    series = Example("case", (tmp_path / "series",), ())
    write_shards([series], tmp_path / "shards")
    (found,) = read_shards(tmp_path / "shards", tmp_path / "scratch")
    assert found.files[0].is_dir()
    wanted = {p.read_bytes() for p in (tmp_path / "series").rglob("*.png")}
    assert {p.read_bytes() for p in found.files[0].iterdir()} == wanted


def test_shards_do_not_keep_names_of_files(tmp_path, examples):
    (path,) = write_shards(examples, tmp_path / "shards")
    with tarfile.open(path) as file:
        assert not any("Doe" in name for name in file.getnames())
    assert b"Doe" not in path.read_bytes()


def test_processes_share_the_shards_out(tmp_path, examples):
    paths = write_shards(examples, tmp_path / "shards", max_bytes=1)
    assert len(paths) == 7
    parts = [
        [e.key for e in read_shards(tmp_path / "shards", tmp_path / f"s{n}", n, 3)]
        for n in range(3)
    ]
    assert sorted(sum(parts, [])) == [f"case{n}" for n in range(7)]
    with pytest.raises(DatasetError, match="7 shards found for 8 processes"):
        next(read_shards(paths, tmp_path / "s", 0, 8))


def test_what_cannot_be_written_or_read_is_a_clear_error(tmp_path, examples):
    with pytest.raises(DatasetError, match="no examples"):
        write_shards([], tmp_path / "none")
    with pytest.raises(DatasetError, match="cannot be read"):
        write_shards([replace(examples[0], files=(tmp_path / "gone.png",))], tmp_path / "gone")
    write_shards(examples, tmp_path / "shards")
    with pytest.raises(DatasetError, match="shards already"):
        write_shards(examples, tmp_path / "shards")
    with tarfile.open(tmp_path / "other.tar", "w") as file:
        file.add(examples[0].files[0], "0.png")
    with pytest.raises(DatasetError, match="not of training.data.shards"):
        next(read_shards([tmp_path / "other.tar"], tmp_path / "scratch"))


def test_the_command_writes_a_data_set(tmp_path, capsys):
    picture(tmp_path / "own/a.png", 0)
    row = {"patient": "p", "images": ["a.png"], "caption": "A picture.", "split": "train"}
    (tmp_path / "own/own.jsonl").write_text(json.dumps(row) + "\n")
    assert main([str(tmp_path / "own/own.jsonl"), "--out", str(tmp_path / "shards")]) == 0
    assert capsys.readouterr().out.startswith("1 shards in ")
    (found,) = read_shards(tmp_path / "shards", tmp_path / "scratch")
    assert found.turns[0].answer == "A picture."
    assert main(["none", "--out", str(tmp_path / "other")]) == 1
    assert "no such layout" in capsys.readouterr().err
