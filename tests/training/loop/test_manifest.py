import hashlib
import json
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import pytest

from radfound.datasets import Example, Turn
from radfound.exceptions import TrainingError
from training.loop.config import LoopConfig
from training.loop.manifest import hash_examples, write_manifest


@dataclass(frozen=True)
class Settings:
    data: Path
    loop: LoopConfig


SETTINGS = Settings(Path("/home/someone/kit"), LoopConfig(5, 1e-3))


def test_a_manifest_says_how_a_checkpoint_came_to_be(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"weights")
    path = write_manifest(
        tmp_path, stage="align", config=SETTINGS, data_hash="abc",
        metrics={"loss": 0.5, "odd": float("nan")}, files=["model.bin"],
    )  # fmt: skip
    found = json.loads(path.read_text())
    assert (found["schema"], found["stage"]) == ("radfound.training/1", "align")
    assert found["versions"]["torch"] == version("torch")
    assert {"python", "transformers", "radfound"} <= set(found["versions"])
    assert found["config"]["loop"]["steps"] == 5 and found["data_hash"] == "abc"
    assert found["metrics"] == {"loss": 0.5, "odd": None}
    digest = hashlib.sha256(b"weights").hexdigest()
    assert found["files"] == {"model.bin": {"bytes": 7, "sha256": digest}}


def test_a_manifest_does_not_tell_where_folders_lay(tmp_path):
    path = write_manifest(tmp_path, stage="x", config=SETTINGS, data_hash="", metrics={})
    assert json.loads(path.read_text())["config"]["data"] == "kit"
    assert "someone" not in path.read_text()


def test_a_manifest_of_a_file_that_was_not_written_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="gone.bin: not found"):
        write_manifest(
            tmp_path, stage="x", config=SETTINGS, data_hash="", metrics={}, files=["gone.bin"]
        )


def test_the_hash_of_the_data_changes_with_the_data_and_not_with_its_folder(tmp_path):
    def examples(folder):
        folder.mkdir()
        (folder / "a.png").write_bytes(b"12345")
        return [Example("case", (folder / "a.png",), (Turn("vqa", ("What?",), "This."),))]

    here, there = examples(tmp_path / "one"), examples(tmp_path / "two")
    first = hash_examples(here)
    assert first == hash_examples(there)
    assert hash_examples([replace(here[0], text="a caption")]) != first
    assert hash_examples(here * 2) != first
    (tmp_path / "two" / "a.png").write_bytes(b"123456")
    assert hash_examples(there) != first
