"""What is kept on disk between runs."""

import logging

import pytest
import torch

from training.corrections.frozen.kept import Kept, digest_of, key_of

KEY, OTHER = key_of("one"), key_of("other")


@pytest.fixture
def kept(tmp_path):
    return Kept(tmp_path / "kept", "numbers", 2**20)


def test_what_is_kept_is_found_by_the_next_run(kept, tmp_path):
    tensors = {"a": torch.arange(3), "b": torch.rand(2, 2)}
    kept.put(KEY, tensors)
    found = Kept(tmp_path / "kept", "numbers", 2**20).get(KEY)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert kept.get(OTHER) is None and kept.has(KEY) and not kept.has(OTHER)


@pytest.mark.parametrize("content", [b"", b"\xff" * 300, b'{"a"'])
def test_a_damaged_file_is_removed_with_a_line_in_the_log(kept, tmp_path, caplog, content):
    kept.put(KEY, {"a": torch.arange(3)})
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert kept.get(KEY) is None
    assert "numbers" in caplog.text and "damaged" in caplog.text and not file.exists()


def test_the_folder_is_bounded(tmp_path):
    kept = Kept(tmp_path / "kept", "numbers", 3000)
    for number in range(5):
        kept.put(key_of(number), {"a": torch.zeros(300)})
    assert not kept.has(key_of(0)) and kept.has(key_of(4))
    assert sum(file.stat().st_size for file in (tmp_path / "kept").iterdir()) <= 3000


def test_what_a_run_did_not_use_can_be_forgotten(kept, tmp_path):
    for key in (KEY, OTHER):
        kept.put(key, {"a": torch.arange(3)})
    run = Kept(tmp_path / "kept", "numbers", 2**20)
    run.get(KEY)
    run.forget_unused()
    assert run.has(KEY) and not run.has(OTHER)
    run.forget_all()
    assert list((tmp_path / "kept").iterdir()) == []


def test_without_a_folder_nothing_is_kept(tmp_path):
    kept = Kept(None, "numbers", 2**20)
    kept.put(KEY, {"a": torch.arange(3)})
    assert kept.get(KEY) is None and not kept.has(KEY)
    kept.forget_all()


def test_tensors_of_other_content_shape_or_type_have_another_digest():
    one = torch.zeros(2, 2)
    others = [one + 1, one.reshape(4), one.bfloat16()]
    assert digest_of([one]) == digest_of([torch.zeros(2, 2)])
    assert len({digest_of([each]) for each in (one, *others)}) == 4
