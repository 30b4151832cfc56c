"""The cache of a DICOM server: no start fails for what a kill or a full disk has left of its index."""

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from monailabel_app.lib.studies.dicom_cache import DicomCache


@pytest.fixture
def cache(tmp_path):
    """Open the cache of a server that is not asked."""

    def make():
        client = SimpleNamespace(base_url="http://127.0.0.1/dicom-web")
        return DicomCache(client, {}, str(tmp_path))

    return make


def folder(cache):
    return Path(cache._datastore_path)


@pytest.mark.parametrize("content", [b"", b'{"name": ', b"[]", b"\x00" * 9])
def test_a_damaged_index_is_set_aside_and_made_anew(cache, tmp_path, content):
    first = cache()
    (tmp_path / "a.nii.gz").touch()
    first.add_image("a", str(tmp_path / "a.nii.gz"), {})
    index = folder(first) / "datastore_v2.json"
    index.write_bytes(content)
    again = cache()
    assert again._datastore.objects.keys() == {"a"}
    (aside,) = index.parent.glob("*.broken-*")
    assert aside.read_bytes() == content


def test_a_write_that_fails_leaves_the_index_whole(cache, tmp_path, monkeypatch):
    first = cache()
    (tmp_path / "a.nii.gz").touch()
    first.add_image("a", str(tmp_path / "a.nii.gz"), {"kept": True})

    def no_room(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("radfound.records.durable.os.fsync", no_room)
        with pytest.raises(OSError, match="No space"):
            first.update_image_info("a", {"kept": False})
    assert cache()._datastore.objects["a"].image.info["kept"]


def test_no_other_user_reads_it(cache):
    umask = os.umask(0)
    try:
        assert stat.S_IMODE(folder(cache()).stat().st_mode) == 0o700
    finally:
        os.umask(umask)
