import logging
import os

import pytest
import torch

from radfound.exceptions import StudyUnreadableError
from radfound.study.region import Plane, PointAndNormal
from training.corrections.frozen.visual_tokens import VisualTokens


class Base:
    """Stands for the model: what it encodes can be told apart."""

    name, revision = "some model", "1"

    class model:  # noqa: N801
        device = torch.device("cpu")
        dtype = torch.float32

    def encode(self, study, region):
        return torch.full((1, 4, 8), float(len(study.images)))


@pytest.fixture
def make(tmp_path, study):
    """Make what a new training process makes of the same folder."""

    def visuals(**changes):
        options = {"version": lambda image: "1", "folder": tmp_path / "visual", **changes}
        base = options.pop("base", Base())
        return VisualTokens(base, options.pop("read", lambda image: study), **options)

    return visuals


@pytest.fixture
def study():
    import numpy as np

    from radfound.study.study import Study, StudyImage

    return Study((StudyImage(np.zeros((1, 8, 8), np.uint8), np.eye(4)),))


def files(tmp_path):
    return sorted((tmp_path / "visual").iterdir())


REGION = Plane(PointAndNormal((0.0, 0.0, 3.0), (0.0, 0.0, 1.0)))


def test_a_study_is_encoded_once_even_across_trainings(make, tmp_path):
    first = make()
    tokens = first.of(["ct01"], None)
    assert torch.equal(first.of(["ct01"], None), tokens) and first.encoded == 1

    def never(image):
        raise AssertionError("was read again")

    second = make(read=never)
    assert torch.equal(second.of(["ct01"], None), tokens) and second.encoded == 0
    assert len(files(tmp_path)) == 1


def test_region_images_model_and_file_each_have_tokens_of_their_own(make, tmp_path):
    class Other(Base):
        revision = "2"

    visuals, versions = make(), {"ct01": "1"}
    visuals.of(["ct01"], None)
    visuals.of(["ct01"], REGION)
    visuals.of(["ct01", "ct02"], None)
    assert visuals.encoded == 3
    other = make(base=Other())
    other.of(["ct01"], None)
    assert other.encoded == 1
    changing = make(version=versions.get)
    changing.of(["ct01"], None)
    assert changing.encoded == 0
    versions["ct01"] = "2"
    changing.of(["ct01"], None)
    assert changing.encoded == 1
    assert len(files(tmp_path)) == 5


@pytest.mark.parametrize("content", [b"", b"\xff" * 400])
def test_a_damaged_file_is_encoded_again(make, tmp_path, caplog, content):
    tokens = make().of(["ct01"], None)
    (file,) = files(tmp_path)
    file.write_bytes(content)
    again = make()
    assert torch.equal(again.of(["ct01"], None), tokens) and again.encoded == 1
    assert "visual tokens" in caplog.text and "made again" in caplog.text
    last = make()
    last.of(["ct01"], None)
    assert last.encoded == 0


def test_the_folder_is_bounded_and_what_was_used_longest_ago_goes_first(make, tmp_path):
    make().of(["size"], None)
    (file,) = files(tmp_path)
    size = file.stat().st_size
    file.unlink()
    visuals = make(max_bytes=3 * size)
    for number, image in enumerate(("ct01", "ct02", "ct03")):
        known = set(files(tmp_path))
        visuals.of([image], None)
        (new,) = set(files(tmp_path)) - known
        os.utime(new, (number, number))
    visuals.of(["ct01"], None)  # used just now
    visuals.of(["ct04"], None)
    assert len(files(tmp_path)) == 3
    before = visuals.encoded
    visuals.of(["ct01"], None)
    assert visuals.encoded == before
    visuals.of(["ct02"], None)
    assert visuals.encoded == before + 1


def test_a_full_disk_costs_a_warning_and_leaves_nothing(make, tmp_path, caplog):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    visuals = make()
    with caplog.at_level(logging.WARNING):
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
        try:
            tokens = visuals.of(["ct01"], None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert tokens.shape == (1, 4, 8)
    assert "not kept" in caplog.text
    assert files(tmp_path) == []


def test_without_versions_nothing_is_kept(make, tmp_path):
    visuals = make(version=None)
    visuals.of(["ct01"], None)
    visuals.of(["ct01"], None)
    assert visuals.encoded == 2 and not (tmp_path / "visual").exists()


def test_a_study_that_cannot_be_read_is_an_error_and_nothing_is_kept(make, tmp_path):
    def refuse(image):
        raise StudyUnreadableError(f"{image}: not there")

    with pytest.raises(StudyUnreadableError, match="gone: not there"):
        make(read=refuse).of(["gone"], None)
    assert not (tmp_path / "visual").exists()
