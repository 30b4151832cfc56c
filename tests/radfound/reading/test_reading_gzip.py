"""Gzip by RFC 1952, as it packs NIfTI: heads of any length, many members, what follows them."""

import gzip
import io
import tarfile
import zlib

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from radfound.exceptions import StudyUnreadableError, UnknownKindError
from radfound.reading import read_study
from radfound.reading.volumes.stored import read_bytes

from ..miniature import ramp, refusal, voxels_of, write_dicom

VOXELS = np.random.default_rng(0).integers(-999, 999, (30, 20, 50)).astype(np.int16)
EXTRA, NAME, COMMENT, CHECKSUM = 4, 8, 16, 2


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A NIfTI as it is before packing."""
    path = tmp_path_factory.mktemp("plain") / "a.nii"
    nibabel.save(nibabel.Nifti1Image(VOXELS, np.eye(4)), path)
    return path.read_bytes()


def member(content, flags=0, head=b""):
    """One gzip member whose head holds more than the usual ten bytes."""
    start = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6) + head
    if flags & CHECKSUM:
        start += (zlib.crc32(start) & 0xFFFF).to_bytes(2, "little")
    body = zlib.compress(content)[2:-4]
    return (
        start
        + body
        + zlib.crc32(content).to_bytes(4, "little")
        + len(content).to_bytes(4, "little")
    )


def assert_is_read(path, content):
    path.write_bytes(content)
    np.testing.assert_array_equal(voxels_of(path).transpose(2, 1, 0), VOXELS)


@pytest.mark.parametrize(
    ("flags", "head"),
    [
        (NAME, b"a.nii\0"),
        (NAME, b"x" * 5_000 + b"\0"),
        (COMMENT, b"x" * 100_000 + b"\0"),
        (EXTRA, b"\xff\xff" + bytes(65_535)),
        (EXTRA | NAME | COMMENT, b"\xff\xff" + bytes(65_535) + b"a.nii\0" + b"x" * 2_000 + b"\0"),
        (CHECKSUM, b""),
    ],
    ids=["name", "long name", "long comment", "extra", "all", "head checksum"],
)
def test_head_of_any_length_is_passed_over(tmp_path, plain, flags, head):
    assert_is_read(tmp_path / "a.nii.gz", member(plain, flags, head))


@pytest.mark.parametrize("size", [1, 7, 100, 348, 16_384])
def test_each_of_many_members_is_read(tmp_path, plain, size):
    parts = [plain[at : at + size] for at in range(0, 600, size)] + [
        plain[-(-600 // size) * size :]
    ]
    assert_is_read(tmp_path / "a.nii.gz", b"".join(map(gzip.compress, parts)))


@pytest.mark.parametrize(
    "between", [gzip.compress(b""), gzip.compress(b"") * 99, bytes(1), bytes(999), bytes(200_000)]
)
def test_nothing_between_two_members_does_not_disturb(tmp_path, plain, between):
    both = gzip.compress(plain[:700]) + between + gzip.compress(plain[700:])
    assert_is_read(tmp_path / "a.nii.gz", both)


def test_member_may_begin_at_any_byte_of_what_is_read_at_once(tmp_path, plain):
    """The two bytes that begin a member may be read in two pieces."""
    for fill in range(2**16 - 2, 2**16 + 3):
        first = member(plain[:700], NAME, b"x" * (fill - 400) + b"\0")
        first = member(plain[:700], NAME, b"x" * (fill - 400 + fill - len(first)) + b"\0")
        assert len(first) == fill
        assert_is_read(tmp_path / "a.nii.gz", first + gzip.compress(plain[700:]))


@pytest.mark.parametrize("behind", [bytes(512), b"\x1f", b"garbage", b"\n"])
def test_what_follows_the_last_member_is_left_alone(tmp_path, plain, behind):
    assert_is_read(tmp_path / "a.nii.gz", gzip.compress(plain) + behind)


@pytest.mark.parametrize("left", [5, 20, 400, 9_000, -200])
def test_truncated_member_is_refused(tmp_path, plain, left):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(plain)[:left])
    error = UnknownKindError if left in (5, 20) else StudyUnreadableError
    assert "damaged" in refusal(error, path) or "truncated" in refusal(error, path)


def test_truncated_second_member_is_refused(tmp_path, plain):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(plain[:900]) + gzip.compress(plain[900:])[:-300])
    assert "truncated" in refusal(StudyUnreadableError, path)


def packed_files(folder):
    """Files of other kinds than NIfTI, which nobody unpacks here."""
    image = sitk.GetImageFromArray(ramp(3, 4, 5).astype(np.uint8))
    for name in ("a.nrrd", "a.mha"):
        sitk.WriteImage(image, str(folder / name))
    sitk.WriteImage(image[:, :, 0], str(folder / "a.png"))
    write_dicom(folder / "a.dcm", ramp(3, 4))
    with tarfile.open(folder / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("b.dcm"), io.BytesIO())
    kinds = {"nrrd": "NRRD", "mha": "METAIMAGE", "png": "PNG", "dcm": "DICOM"}
    found = {f"a.{ending}": f"a {kind} file packed by gzip" for ending, kind in kinds.items()}
    return {**found, "a.tar": "a tar archive, packed by gzip"}


def test_gzip_of_another_kind_is_called_what_it_is(tmp_path):
    for name, found in packed_files(tmp_path).items():
        packed = tmp_path / f"{name}.gz"
        packed.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        assert f"it holds {found}" in refusal(UnknownKindError, packed)


def test_gzip_within_a_gzip_is_no_nifti(tmp_path, plain):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(gzip.compress(plain)))
    assert "it holds a gzip, packed by gzip" in refusal(UnknownKindError, path)


def test_many_empty_members_cost_what_their_bytes_do(tmp_path):
    """Not the square of it: what follows a member is not copied over and over."""
    sizes = (20_000, 80_000)
    costs = []
    for count in sizes:
        path = tmp_path / "a.gz"
        path.write_bytes(gzip.compress(b"", mtime=0) * count + gzip.compress(b"abc"))
        copied = CountingFile(path)
        assert read_bytes(copied, 3, "a.gz", packing="zlib").tobytes() == b"abc"
        costs.append(copied.bytes_read)
        copied.close()
    assert costs[1] / costs[0] < 1.1 * sizes[1] / sizes[0]


class CountingFile(io.FileIO):
    """A file that counts what is read from it."""

    bytes_read = 0

    def read(self, size=-1):
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def test_volume_far_into_a_gzip_is_read(tmp_path):
    series = ramp(4, 3, 2, 50)
    nibabel.save(nibabel.Nifti1Image(series, np.eye(4)), tmp_path / "a.nii.gz")
    (image,) = read_study(tmp_path / "a.nii.gz", volume=49).images
    np.testing.assert_array_equal(image.voxels.transpose(2, 1, 0), series[..., 49])
