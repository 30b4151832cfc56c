import pytest

from radfound.exceptions import CheckpointError
from radfound.model.cache import made_once


class Maker:
    """Fills a folder, and counts how often."""

    def __init__(self):
        self.times = 0

    def __call__(self, folder):
        self.times += 1
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights" * 1000)


@pytest.fixture
def make():
    return Maker()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_made_is_made_once(tmp_path, make):
    for _ in range(3):
        assert made_once(tmp_path / "cache" / "mini", make) == tmp_path / "cache" / "mini"
    assert make.times == 1
    assert names(tmp_path / "cache") == ["mini"]


def flip_a_bit(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[3000] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def cut(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1])


def lose_a_file(folder):
    (folder / "config.json").unlink()


def lose_the_sums(folder):
    (folder / "sha256.json").unlink()


def garble_the_sums(folder):
    (folder / "sha256.json").write_text("{half")


@pytest.mark.parametrize("harm", [flip_a_bit, cut, lose_a_file, lose_the_sums, garble_the_sums])
def test_what_is_damaged_is_made_anew(tmp_path, make, harm, caplog):
    target = made_once(tmp_path / "mini", make)
    whole = {path.name: path.read_bytes() for path in target.iterdir()}
    harm(target)
    made_once(target, make)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == whole
    assert make.times == 2 and "made anew" in caplog.text
    assert names(tmp_path) == ["mini"]


def test_what_fails_half_way_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="free some space"):
        made_once(tmp_path / "mini", fail)
    assert names(tmp_path) == []


def test_another_process_that_was_quicker_is_believed(tmp_path, make):
    target = tmp_path / "mini"

    def slow(folder):
        made_once(target, make)
        make(folder)

    assert made_once(target, slow) == target
    assert names(tmp_path) == ["mini"]
