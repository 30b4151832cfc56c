import json

import pytest

from radfound.exceptions import CheckpointError, StorageError
from radfound.records.measured import MeasuredFile

SPEED = MeasuredFile("speed.json", ("radfound.speed/2", "radfound.speed/1"), "make bench")


def read(folder, revision="r1"):
    return SPEED.read(folder, revision, lambda data: data["seconds"])


def test_what_is_written_is_read(tmp_path):
    assert read(tmp_path) is None
    assert SPEED.write(tmp_path / "new", "r1", {"seconds": 2}).name == "speed.json"
    assert read(tmp_path / "new") == 2


def test_that_of_other_weights_is_not_used_and_the_log_tells_the_remedy(tmp_path, caplog):
    SPEED.write(tmp_path, "r1", {"seconds": 2})
    assert read(tmp_path, "r2") is None
    assert "other weights (r1, but r2 are loaded)" in caplog.text and "make bench" in caplog.text


def test_an_earlier_schema_is_read_and_a_later_one_is_an_error(tmp_path):
    for version in (1, 3):
        data = {"schema": f"radfound.speed/{version}", "revision": "r1", "seconds": 2}
        (tmp_path / "speed.json").write_text(json.dumps(data))
        if version == 1:
            assert read(tmp_path) == 2
        else:
            with pytest.raises(CheckpointError, match=r"radfound.speed/3.*make bench"):
                read(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema": "radfound.speed/2"}', "\udcff"])
def test_a_damaged_file_is_an_error_with_the_remedy(tmp_path, text):
    (tmp_path / "speed.json").write_text(text, errors="surrogateescape")
    with pytest.raises(CheckpointError, match=r"speed.json: cannot be read.*make bench"):
        read(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="speed.json: cannot be written"):
        SPEED.write(tmp_path / "file", "r1", {})
