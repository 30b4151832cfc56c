import os

import pytest

from radfound.records.durable import make_directory, read_json, remove_temporary_files, replace_text


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

    monkeypatch.setattr("radfound.records.durable.os.fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        replace_text(path, "two")
    assert path.read_text() == "one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["pointer"]


def test_folders_are_made_with_their_parents_and_may_exist(tmp_path):
    make_directory(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_temporary_files_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    for name in (".tmp-a", "kept", ".other"):
        (tmp_path / name).touch()
    (tmp_path / ".tmp-folder").mkdir()
    remove_temporary_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"kept", ".other", ".tmp-folder"}
    remove_temporary_files(tmp_path / "not there")


def test_a_text_that_another_process_took_for_a_stray_is_written_again(tmp_path, monkeypatch):
    replace, path = os.replace, tmp_path / "state.json"

    def swept_once(source, target):
        monkeypatch.setattr(os, "replace", replace)
        remove_temporary_files(tmp_path)
        replace(source, target)

    monkeypatch.setattr(os, "replace", swept_once)
    replace_text(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b'{"status": ', b"[]", b"7", b"\xff", b"[" * 100_000])
def test_a_damaged_state_is_set_aside_and_said(tmp_path, caplog, content):
    path = tmp_path / "training.json"
    path.write_bytes(content)
    assert read_json(path, dict, "state of the training") == {}
    (aside,) = tmp_path.iterdir()
    assert aside.read_bytes() == content and aside.name.startswith("training.json.broken-")
    assert "state of the training is damaged" in caplog.text
    assert read_json(path, dict, "state of the training") == {}
