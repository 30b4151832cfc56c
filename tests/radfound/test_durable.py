import os

import pytest

from radfound.durable import make_directory, replace_text


def test_modification_time_grows_even_when_the_clock_does_not(tmp_path):
    path = tmp_path / "pointer"
    replace_text(path, "one")
    future_ns = path.stat().st_mtime_ns + 3_600 * 10**9
    os.utime(path, ns=(future_ns, future_ns))
    replace_text(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mtime_ns > future_ns


def test_failed_replacement_keeps_the_old_text_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "pointer"
    replace_text(path, "one")

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("radfound.durable.os.fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        replace_text(path, "two")
    assert path.read_text() == "one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["pointer"]


def test_folders_are_made_with_their_parents_and_may_exist(tmp_path):
    make_directory(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
