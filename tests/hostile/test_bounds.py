"""What a small file may cost: nothing is unpacked beyond what its size makes likely."""

import bz2
import gzip
import json
import subprocess
import sys

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from radfound.exceptions import StudyTooLargeError
from radfound.reading import read_study
from radfound.reading.bounds import FREE_UNPACKED_BYTES, MAX_ARCHIVE_RATIO, check_unpacked

from ..radfound.miniature import png_bytes

MOST_MEMORY = 6  # times what any file may unpack to

READ = """
import json, resource, sys
from radfound.exceptions import RadFoundError
from radfound.reading import read_study
from radfound.reading import picture
from radfound.reading.dicom import series as dicom
from radfound.reading.volumes import metaimage
from radfound.reading.volumes import nifti
from radfound.reading.volumes import nrrd
import nibabel, PIL.Image, PIL.PngImagePlugin, PIL.JpegImagePlugin, pydicom

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before, found = peak(), {}
for path in sys.argv[1:]:
    try:
        found[path] = str(read_study(path).images[0].voxels.shape)
    except RadFoundError as error:
        found[path] = type(error).__name__
print(json.dumps([peak() - before, found]))
"""


def read_in_child(paths):
    """Return the bytes that a process grew by while it read the files, and what came of each."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, found = json.loads(run.stdout)
    return grown, list(found.values())


def zeros(count, pack, size=900_000):
    """Many zeros in few bytes, as members one after another."""
    return pack(bytes(size)) * (count // size + 1)


def bombs(folder):
    """Files of at most some hundred kilobytes that promise a gigabyte or so, and have it."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((1024, 1024, 1000))
    header["magic"], header["vox_offset"] = b"n+1", 352
    nrrd = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 1024 1024 1000\nencoding: "
    meta = "NDims = 3\nDimSize = 1024 1024 1000\nElementType = MET_UCHAR\nCompressedData = True\n"
    count = 1024 * 1024 * 1000
    gzipped, bzipped = (zeros(count, pack.compress) for pack in (gzip, bz2))
    series = header.copy()
    series.set_data_shape((64, 64, 64, 4000))
    files = {
        "a.nii.gz": gzip.compress(header.binaryblock + bytes(4)) + gzipped,
        "b.nrrd": f"{nrrd}gzip\n\n".encode() + gzipped,
        "c.nrrd": f"{nrrd}bzip2\n\n".encode() + bzipped,
        "d.nrrd": f"{nrrd.replace('1000', '1')}bzip2\nbyte skip: -1\n\n".encode() + bzipped,
        "e.nrrd": f"{nrrd.replace('1000', '1')}gzip\nbyte skip: 999999999\n\n".encode() + gzipped,
        "f.mha": f"{meta}ElementDataFile = LOCAL\n".encode() + gzipped,
        "g.png": png_bytes((13_000, 13_000), 8, 0, b""),
        "h.png": png_bytes((13_000, 13_000), 16, 6, b""),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for name in ("JPEG2000.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm"):
        dataset = pydicom.dcmread(get_testdata_file(name, download=False))
        dataset.Rows = dataset.Columns = 20_000
        dataset.save_as(folder / name)
    Image.new("L", (16, 16)).save(folder / "i.jpg")
    jpeg = bytearray((folder / "i.jpg").read_bytes())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = (13_000).to_bytes(2, "big") * 2
    (folder / "i.jpg").write_bytes(jpeg)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("encoding", ["raw", "ascii", "hex"])
def test_unpacked_file_costs_what_it_holds(tmp_path, encoding):
    header = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 1024 1024 1000\nencoding: "
    (tmp_path / "a.nrrd").write_bytes(f"{header}{encoding}\n\n".encode() + b"1 " * 2**20)
    grown, found = read_in_child([tmp_path / "a.nrrd"])
    assert found == ["StudyUnreadableError"]
    assert grown < FREE_UNPACKED_BYTES


def test_small_files_that_promise_much_cost_little(tmp_path):
    paths = bombs(tmp_path)
    assert max(path.stat().st_size for path in paths) < 2**21
    grown, found = read_in_child(paths)
    assert found == ["StudyTooLargeError"] * len(paths)
    assert grown < FREE_UNPACKED_BYTES


def blanks(folder):
    """A mask, a dose and blank pictures that unpack to nearly what any file may."""
    count = FREE_UNPACKED_BYTES - 2**20
    for dtype in ("u1", "f8"):
        side = int((count // np.dtype(dtype).itemsize) ** (1 / 3))
        header = nibabel.Nifti1Header()
        header.set_data_dtype(dtype)
        header.set_data_shape((side,) * 3)
        header["magic"], header["vox_offset"] = b"n+1", 352
        voxels = zeros(side**3 * np.dtype(dtype).itemsize, gzip.compress)
        (folder / f"{dtype}.nii.gz").write_bytes(
            gzip.compress(header.binaryblock + bytes(4)) + voxels
        )
    for mode, channels in (("RGB", 3), ("I;16", 2)):
        side = int((count // channels) ** 0.5)
        Image.new(mode, (side, side)).save(folder / f"{channels}.png", compress_level=1)
    return sorted(folder.iterdir())


def test_masks_and_blank_pictures_of_a_sensible_size_are_read(tmp_path):
    paths = blanks(tmp_path)
    grown, found = read_in_child(paths)
    assert not [each for each in found if "Error" in each]
    assert grown < MOST_MEMORY * FREE_UNPACKED_BYTES


@pytest.mark.parametrize("packed", [0, 1, 10**6, 10**9])
def test_limit_grows_with_the_file(packed):
    allowed = FREE_UNPACKED_BYTES + MAX_ARCHIVE_RATIO * packed
    check_unpacked("a", packed, allowed)
    with pytest.raises(StudyTooLargeError, match="a: unpacks to"):
        check_unpacked("a", packed, allowed + 1)


def test_packed_volume_of_an_ordinary_ratio_is_read_whatever_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr("radfound.reading.bounds.FREE_UNPACKED_BYTES", 0)
    voxels = np.random.default_rng(0).integers(0, 4, (40, 40, 40)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    assert read_study(tmp_path / "a.nii.gz").images[0].voxels.size == voxels.size
