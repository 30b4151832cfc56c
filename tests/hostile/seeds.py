"""Small valid files, at least one for each way in which a format stores its voxels."""

from __future__ import annotations

import bz2
import io
import tempfile
import zipfile
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import SimpleITK as sitk
from PIL import Image
from pydicom.data import get_testdata_file

DICOM = (
    "CT_small.dcm",
    "ExplVR_BigEnd.dcm",
    "JPEG-lossy.dcm",
    "JPEG2000.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
    "rtdose.dcm",
)
VOXELS = np.random.default_rng(0).integers(0, 900, (6, 5, 4)).astype(np.int16)


def seeds() -> dict[str, bytes]:
    """Return the files by name."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for write in (_write_nifti, _write_nrrd, _write_metaimage, _write_pictures):
            write(folder)
        for path in folder.iterdir():
            found[path.name] = path.read_bytes()
    for name in DICOM:
        found[name] = Path(get_testdata_file(name, download=False)).read_bytes()
    found["series.zip"] = _zip({"series/1.dcm": found["CT_small.dcm"]})
    for header, data in (("pair.hdr", "pair.img"), ("beside.nhdr", "beside.raw")):
        found[f"{header}.zip"] = _zip({each: found.pop(each) for each in (header, data)})
    return found


def _zip(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _write_nifti(folder: Path) -> None:
    affine = np.diag([2.0, 2, 3, 1])
    image = nibabel.Nifti1Image(VOXELS, affine)
    nibabel.save(image, folder / "one.nii")
    nibabel.save(image, folder / "packed.nii.gz")
    nibabel.save(nibabel.Nifti1Pair(VOXELS, affine), folder / "pair.hdr")
    two = nibabel.Nifti2Image(VOXELS[..., np.newaxis].repeat(2, 3).astype("f4"), affine)
    two.header.extensions.append(nibabel.nifti1.Nifti1Extension(4, b"x" * 99))
    nibabel.save(two, folder / "two.nii")
    colour = np.zeros((4, 3, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colour, affine), folder / "colour.nii")
    big = nibabel.Nifti1Header(endianness=">")
    nibabel.save(nibabel.Nifti1Image(VOXELS, affine, big), folder / "big.nii")


def _write_nrrd(folder: Path) -> None:
    placed = {
        "space": "left-posterior-superior",
        "space directions": np.vstack([np.full(3, np.nan), np.diag([1.0, 2, 3])]),
        "space origin": np.array([4.0, 5, 6]),
        "kinds": ["list", "domain", "domain", "domain"],
    }
    for name, options in {
        "packed.nrrd": {"encoding": "gzip"},
        "raw.nrrd": {"encoding": "raw", "spacings": np.array([1.0, 2, 3])},
        "text.nrrd": {"encoding": "ascii"},
        "list.nrrd": {"encoding": "raw", **placed},
        "beside.nhdr": {"encoding": "raw"},
    }.items():
        voxels = VOXELS[np.newaxis].repeat(2, 0) if name == "list.nrrd" else VOXELS
        nrrd.write(str(folder / name), voxels, options, detached_header=name.endswith("nhdr"))
    header = b"NRRD0004\ntype: uchar\ndimension: 2\nsizes: 3 2\nencoding: "
    (folder / "bzip2.nrrd").write_bytes(header + b"bzip2\n\n" + bz2.compress(b"abcdef"))
    (folder / "hex.nrrd").write_bytes(
        header + b"hex\nbyte skip: 2\n\n--" + b"abcdef".hex().encode()
    )


def _write_metaimage(folder: Path) -> None:
    image = sitk.GetImageFromArray(VOXELS)
    for name, packed in (("raw.mha", False), ("packed.mha", True)):
        sitk.WriteImage(image, str(folder / name), packed)
    header = "NDims = 2\nDimSize = 3 2\nElementType = MET_SHORT\nBinaryData = False\n"
    (folder / "text.mha").write_text(f"{header}ElementDataFile = LOCAL\n1 2 3 4 5 6\n")


def _write_pictures(folder: Path) -> None:
    grey = Image.fromarray(VOXELS[:, :, 0].astype(np.uint8))
    grey.save(folder / "grey.png")
    Image.fromarray(VOXELS[:, :, 0].astype(np.uint16)).save(folder / "deep.png")
    grey.convert("P").save(folder / "palette.png", transparency=3)
    grey.save(folder / "grey.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    grey.convert("CMYK").save(folder / "colour.jpg", progressive=True, exif=exif)
