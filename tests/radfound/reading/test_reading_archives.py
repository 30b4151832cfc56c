import os
import stat
import zipfile

import pytest
import SimpleITK as sitk

from radfound.exceptions import StudyUnreadableError, UnsafeArchiveError
from radfound.reading import read_study

from ..miniature import ramp, refusal, write_series


def write_zip(path, entries, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../evil.dcm",
        "a/../../evil.dcm",
        "/etc/evil.dcm",
        "..\\evil.dcm",
        "C:\\evil.dcm",
        "C:evil.dcm",
    ],
)
def test_zip_that_leaves_its_folder_is_refused_and_writes_nothing(tmp_path, name):
    path = write_zip(tmp_path / "a.zip", [("fine.dcm", b"x"), (name, b"x")])
    message = refusal(UnsafeArchiveError, path)
    assert message.startswith("a.zip: the entry") and "evil.dcm" in message
    assert not list(tmp_path.parent.glob("evil*"))


def test_zip_with_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = write_zip(tmp_path / "a.zip", [(link, "/etc/passwd")])
    assert "symbolic link" in refusal(UnsafeArchiveError, path)


def test_zip_bomb_is_refused(tmp_path):
    entries = [("a.dcm", bytes(100 * 2**20))]
    path = write_zip(tmp_path / "a.zip", entries, compression=zipfile.ZIP_DEFLATED)
    assert "unpacks to 100 MiB" in refusal(UnsafeArchiveError, path)


def test_zip_larger_than_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("radfound.reading.files.MAX_UNPACKED_BYTES", 1000)
    path = write_zip(tmp_path / "a.zip", [("a.dcm", b"\x01\x02" * 600)])
    refusal(UnsafeArchiveError, path)


def test_zip_with_too_many_entries_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("radfound.reading.files.MAX_FILES", 3)
    path = write_zip(tmp_path / "a.zip", [(str(index), b"") for index in range(4)])
    refusal(UnsafeArchiveError, path)


def test_zip_that_lies_about_its_sizes_is_refused(tmp_path):
    path = write_zip(
        tmp_path / "a.zip", [("a.dcm", bytes(10_000))], compression=zipfile.ZIP_DEFLATED
    )
    raw = path.read_bytes()
    path.write_bytes(raw.replace((10_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    assert "damaged" in refusal(StudyUnreadableError, path)


def test_truncated_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", [("a.dcm", os.urandom(5000))])
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated or damaged" in refusal(StudyUnreadableError, path)


def test_encrypted_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", [("a.dcm", b"secret")])
    raw = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + place] |= 1
    path.write_bytes(raw)
    assert "encrypted" in refusal(StudyUnreadableError, path)


def test_empty_zip_says_so(tmp_path):
    assert "no files in it" in refusal(StudyUnreadableError, write_zip(tmp_path / "a.zip", []))


def test_temporary_files_are_gone_after_reading(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    write_series(tmp_path / "s", ramp(2, 4, 4))
    path = write_zip(
        tmp_path / "a.zip", [(file.name, file.read_bytes()) for file in (tmp_path / "s").iterdir()]
    )
    read_study(path)
    assert list((tmp_path / "temporary").iterdir()) == []


# Headers that point elsewhere


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "../secret.raw",
        "LIST\n../secret.raw",
        "LIST\n/etc/passwd",
        "a%03d.raw 1 4 1",
        "../a%03d.raw 1 4 1",
        "..",
        "x" * 999,
    ],
)
@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_header_that_points_elsewhere_is_refused(tmp_path, name, target):
    (tmp_path / "secret.raw").write_bytes(bytes(8))
    folder = tmp_path / "upload"
    folder.mkdir()
    if name.endswith("mhd"):
        header = "NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = "
    else:
        header = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: "
    (folder / name).write_text(f"{header}{target}\n")
    assert "in the same folder" in refusal(StudyUnreadableError, folder / name)


def test_missing_voxel_file_is_named(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(ramp(2, 2, 2)), str(tmp_path / "a.mhd"))
    (tmp_path / "a.raw").unlink()
    assert "'a.raw'" in refusal(StudyUnreadableError, tmp_path / "a.mhd")
