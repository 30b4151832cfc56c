import gzip
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from radfound.exceptions import (
    GeometryError,
    IntensityError,
    RadFoundError,
    RequestError,
    StudyAmbiguousError,
    StudyTooLargeError,
    StudyUnreadableError,
    UnknownKindError,
)
from radfound.reading import read_study

from ..miniature import dicom_dataset, ramp, refusal, write_dicom, write_series


def save_nifti(path, array, affine=None):
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def patched(path, offset, value):
    """Overwrite bytes of a file."""
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(value)] = value
    path.write_bytes(raw)
    return path


# Nothing, or not what it says


def test_missing_file_is_named(tmp_path):
    assert refusal(StudyUnreadableError, tmp_path / "ct.nii.gz").startswith(
        "ct.nii.gz: no such file or folder; expected DICOM, NIfTI"
    )


def test_empty_folder_says_so(tmp_path):
    (tmp_path / "series").mkdir()
    message = refusal(StudyUnreadableError, tmp_path / "series")
    assert message.startswith("series: no files in it; expected DICOM files")


def test_folder_without_images_says_so(tmp_path):
    (tmp_path / "a.txt").write_text("notes")
    (tmp_path / "b.txt").write_text("more notes")
    assert "2 files, none of them an image" in refusal(StudyUnreadableError, tmp_path)


def test_folder_of_several_pictures_asks_for_a_list(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    assert "a list of files as views" in refusal(StudyAmbiguousError, tmp_path)


def test_empty_list_is_the_callers_mistake():
    refusal(RequestError, [])


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.nii.gz", b"not an image\n", "named like NIfTI, but it holds text"),
        ("a.nii.gz", b"", "named like NIfTI, but the file is empty"),
        ("a.nii.gz", gzip.compress(b"x" * 999), "it holds gzip data that are no NIfTI"),
        ("a.dcm", b"%PDF-1.7\n", "named like DICOM, but it holds a PDF"),
        ("a.zip", b"text", "named like zip, but it holds text"),
        ("a.tif", b"II*\0\0\0", "it holds a TIFF; expected DICOM, NIfTI"),
        ("a.bin", bytes(range(256)), "it holds data of no known image format"),
    ],
)
def test_file_that_is_no_image_is_described(tmp_path, name, content, found):
    (tmp_path / name).write_bytes(content)
    assert found in refusal(UnknownKindError, tmp_path / name)


def test_device_is_no_study():
    assert "null: not a plain file" in refusal(StudyUnreadableError, "/dev/null")


def test_report_without_a_picture_says_so(tmp_path):
    path = write_dicom(tmp_path / "sr.dcm", ramp(1, 1), Modality="SR")
    assert "without a picture" in refusal(StudyUnreadableError, path)


def test_dicom_header_without_rows_is_damaged(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", ramp(4, 4))
    path.write_bytes(path.read_bytes()[:420])
    assert "truncated" in refusal(StudyUnreadableError, path)


# Truncated


def write_all_formats(folder):
    voxels = np.random.default_rng(0).integers(0, 4000, (6, 32, 32)).astype(np.int16)
    paths = [save_nifti(folder / name, voxels) for name in ("a.nii", "b.nii.gz")]
    for name, packed in (("c.nrrd", True), ("d.nrrd", False), ("e.mha", True), ("f.mha", False)):
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / name), packed)
        paths.append(folder / name)
    for name in ("g.png", "h.jpg"):
        Image.fromarray((voxels[0] % 256).astype(np.uint8)).save(folder / name)
        paths.append(folder / name)
    return [*paths, write_dicom(folder / "i.dcm", voxels[0])]


def test_truncated_file_of_each_format_is_refused(tmp_path):
    for path in write_all_formats(tmp_path):
        path.write_bytes(path.read_bytes()[:-700])
        assert "truncated" in refusal(StudyUnreadableError, path), path.name


def test_truncated_slice_of_a_series_is_named(tmp_path):
    write_series(tmp_path, ramp(5, 8, 8))
    path = tmp_path / "slice003.dcm"
    path.write_bytes(path.read_bytes()[:-20])
    message = refusal(StudyUnreadableError, tmp_path)
    assert message.startswith("slice003.dcm: is truncated: 108 bytes of pixels where 128")


def test_damaged_gzip_is_refused(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", np.random.default_rng(0).random((16, 16, 16)))
    raw = path.read_bytes()
    path.write_bytes(raw[:-8] + b"\0\0\0\0" + raw[-4:])
    assert "damaged" in refusal(StudyUnreadableError, path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_mutilated_header_makes_anything_but_an_error_of_the_tree(tmp_path):
    """Bytes of each header overwritten at random: read or refused, never another exception."""
    rng = np.random.default_rng(1)
    for original in write_all_formats(tmp_path):
        raw = original.read_bytes()
        path = tmp_path / f"mutilated{original.suffix}"
        for _ in range(60):
            broken = bytearray(raw)
            for place in rng.integers(0, min(700, len(raw)), 4):
                broken[place] = rng.integers(256)
            path.write_bytes(broken)
            try:
                read_study(path)
            except RadFoundError as error:
                assert str(tmp_path) not in str(error)


# Slices and geometry


def test_missing_slice_is_noticed_and_its_neighbours_named(tmp_path):
    write_series(tmp_path / "s", ramp(6, 4, 4), step=(0, 0, 2.5))
    (gone,) = (
        path
        for path in (tmp_path / "s").iterdir()
        if read_study(path).images[0].affine[2, 3] == pytest.approx(5)
    )
    gone.unlink()
    message = refusal(GeometryError, tmp_path / "s")
    assert message.startswith("s: slice spacing varies from 2.50 to 5.00 mm (widest between slice")
    assert "resample it or select one series" in message


def test_positions_rounded_to_a_tenth_are_even(tmp_path):
    for k in range(12):
        write_dicom(
            tmp_path / f"{k}.dcm",
            ramp(4, 4),
            ImagePositionPatient=[0, 0, round(k * 0.625, 1)],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
        )
    assert read_study(tmp_path).images[0].spacing_mm[2] == pytest.approx(0.625, abs=0.01)


def test_slice_shifted_sideways_is_noticed(tmp_path):
    write_series(tmp_path, ramp(4, 4, 4))
    write_series(tmp_path / "more", ramp(1, 4, 4), origin=(30, 0, 4))
    refusal(GeometryError, tmp_path)


@pytest.mark.parametrize(
    ("pixels", "tags", "found"),
    [
        (ramp(8, 4), {}, "4 x 8 pixels, but"),
        (ramp(4, 4), {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "another direction"),
        (ramp(4, 4), {"PixelSpacing": [2, 2]}, "pixel spacing differs"),
        (ramp(4, 4), {"PixelSpacing": None}, "pixel spacing differs"),
        (ramp(4, 4), {"ImagePositionPatient": None}, "no position in the patient"),
        (ramp(4, 4), {"ImagePositionPatient": [0, 0, 1]}, "2 slices at one position"),
    ],
)
def test_slice_that_does_not_belong_is_named(tmp_path, pixels, tags, found):
    write_series(tmp_path / "s", ramp(4, 4, 4))
    belongs = {
        "ImagePositionPatient": [0, 0, 4],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1, 1],
    }
    write_dicom(tmp_path / "s" / "odd.dcm", pixels, **{**belongs, **tags})
    message = refusal(GeometryError, tmp_path / "s")
    assert found in message
    assert "odd.dcm" in message


def test_ct_slices_without_any_position_are_refused(tmp_path):
    for name in "ab":
        write_dicom(tmp_path / name, ramp(4, 4))
    assert "without position" in refusal(GeometryError, tmp_path)


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagerPixelSpacing"])
@pytest.mark.parametrize(
    ("spacing", "fault"),
    [
        ([0, 1], "is 0 x 1 mm"),
        ([1, 0], "is 1 x 0 mm"),
        ([-1, 1], "is -1 x 1 mm"),
        ([1], "holds no two numbers"),
        ([0.1, 0.1, 0.1], "holds no two numbers"),
        (["half", "a mm"], "holds no two numbers"),
    ],
)
def test_radiograph_of_impossible_pixel_size_is_read_without_one(
    tmp_path, caplog, keyword, spacing, fault
):
    dataset = dicom_dataset(ramp(4, 4), Modality="DX")
    stored = "\\".join(map(str, spacing)).encode()
    tag = Tag(keyword)
    dataset[tag] = RawDataElement(tag, "DS", len(stored), stored, 0, False, True)
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, write_like_original=False)
    (image,) = read_study(tmp_path / "a.dcm").images
    np.testing.assert_array_equal(image.voxels[0], ramp(4, 4))
    assert not image.calibrated
    assert f"a.dcm: {keyword} {fault}; expected two numbers above zero" in caplog.text


def test_pixel_size_at_the_detector_stands_in_for_an_impossible_one(tmp_path):
    sizes = {"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.1]}
    (image,) = read_study(
        write_dicom(tmp_path / "a.dcm", ramp(4, 4), Modality="DX", **sizes)
    ).images
    np.testing.assert_allclose(image.spacing_mm, (0.1, 0.2, 1))
    assert image.calibrated


def test_zero_spacing_of_a_series_is_refused(tmp_path):
    write_series(tmp_path, ramp(3, 4, 4), spacing_mm=(0, 1))
    assert "spacing is 0 x 1 x 1 mm" in refusal(GeometryError, tmp_path)


def test_series_without_pixel_spacing_is_refused(tmp_path):
    for k in range(2):
        write_dicom(
            tmp_path / f"{k}.dcm",
            ramp(4, 4),
            ImagePositionPatient=[0, 0, k],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
    assert "no pixel spacing" in refusal(GeometryError, tmp_path)


def test_zero_spacing_in_nifti_is_refused(tmp_path):
    path = patched(save_nifti(tmp_path / "a.nii", ramp(4, 4, 4)), 252, b"\0\0\0\0")
    patched(path, 84, np.float32(0).tobytes())
    assert "spacing" in refusal(GeometryError, path)


@pytest.mark.parametrize(
    "affine",
    [np.diag([1.0, 1, 0, 1]), np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])],
    ids=["zero", "flat"],
)
def test_affine_that_does_not_span_space_is_refused(tmp_path, affine):
    path = save_nifti(tmp_path / "a.nii", ramp(4, 4, 4))
    patched(path, 280, affine[:3].astype("<f4").tobytes())
    refusal(GeometryError, path)


def test_nan_in_the_affine_is_refused(tmp_path):
    path = patched(save_nifti(tmp_path / "a.nii", ramp(4, 4, 4)), 280, np.float32("nan").tobytes())
    assert "NaN" in refusal(GeometryError, path)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.mha", "NDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 0\nElementType = MET_UCHAR\n"),
        ("a.mha", "NDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1\nElementType = MET_UCHAR\n"),
        (
            "a.nrrd",
            "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nspacings: 1 1 0\n",
        ),
        (
            "a.nrrd",
            "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nspace: LPS\n"
            "space directions: (1,0,0) (0,1,0) (0,0,0)\n",
        ),
    ],
)
def test_zero_spacing_in_nrrd_and_metaimage_is_refused(tmp_path, name, header):
    end = "ElementDataFile = LOCAL\n" if name.endswith("mha") else "\n"
    (tmp_path / name).write_bytes((header + end).encode() + bytes(8))
    assert "spacing" in refusal(GeometryError, tmp_path / name).lower()


# Values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_refused(tmp_path, value):
    array = np.zeros((4, 4, 4), np.float32)
    array[1, 2, 3] = value
    path = save_nifti(tmp_path / "a.nii.gz", array)
    assert "1 of 64 voxels are NaN or infinite" in refusal(IntensityError, path)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_nan_in_nrrd_and_metaimage_is_refused(tmp_path, name):
    sitk.WriteImage(sitk.GetImageFromArray(np.full((2, 2, 2), np.nan)), str(tmp_path / name))
    refusal(IntensityError, tmp_path / name)


def test_infinite_rescale_is_refused(tmp_path):
    path = save_nifti(tmp_path / "a.nii", ramp(2, 2, 2))
    patched(path, 112, np.array([1, np.inf], "<f4").tobytes())
    refusal(IntensityError, path)


def test_constant_image_is_readable(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", np.full((4, 4, 4), 7, np.int16))
    assert (read_study(path).images[0].voxels == 7).all()


# Too large


def test_very_wide_image_is_refused_from_its_header(tmp_path):
    path = write_dicom(tmp_path / "wide.dcm", ramp(4, 4), Modality="DX")
    raw = path.read_bytes()
    columns = b"\x28\x00\x11\x00US\x02\x00"
    assert raw.count(columns + b"\x04\x00") == 1
    path.write_bytes(raw.replace(columns + b"\x04\x00", columns + (60_000).to_bytes(2, "little")))
    assert "60,000 x 4 x 1 voxels; expected at most 20,000" in refusal(StudyTooLargeError, path)


def test_very_wide_picture_is_refused_before_it_is_decoded(tmp_path):
    Image.new("L", (60_000, 3)).save(tmp_path / "wide.png")
    assert "60,000 x 3" in refusal(StudyTooLargeError, tmp_path / "wide.png")


def test_decompression_bomb_of_a_picture_is_refused(tmp_path):
    def chunk(kind, data):
        return (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )

    size = (60_000).to_bytes(4, "big")
    header = size + size + bytes([8, 0, 0, 0, 0])
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    (tmp_path / "bomb.png").write_bytes(picture + chunk(b"IEND", b""))
    refusal(StudyTooLargeError, tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "sizes", [(30_000, 2, 2), (10_000, 10_000, 100)], ids=["one side", "altogether"]
)
def test_volume_of_impossible_size_is_refused_from_its_header(tmp_path, sizes):
    nifti = patched(
        save_nifti(tmp_path / "a.nii", ramp(2, 2, 2)), 42, np.array(sizes, "<i2").tobytes()
    )
    shown = " ".join(map(str, sizes))
    (tmp_path / "a.nrrd").write_text(
        f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: {shown}\nencoding: gzip\n\n"
    )
    (tmp_path / "a.mha").write_text(
        f"NDims = 3\nDimSize = {shown}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    for path in (nifti, tmp_path / "a.nrrd", tmp_path / "a.mha"):
        refusal(StudyTooLargeError, path)


def test_packed_voxels_beyond_the_header_are_not_unpacked(tmp_path):
    raw = save_nifti(tmp_path / "a.nii", ramp(4, 4, 4)).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(raw + bytes(50_000_000)))
    assert read_study(tmp_path / "a.nii.gz").images[0].voxels.size == 64


def test_deflated_dicom_that_unpacks_to_far_more_than_it_holds_is_refused(tmp_path):
    raw = Path(get_testdata_file("image_dfl.dcm", download=False)).read_bytes()
    start = 144 + int.from_bytes(raw[140:144], "little")
    unpacked = zlib.decompress(raw[start:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = packer.compress(unpacked + bytes(100_000_000)) + packer.flush()
    (tmp_path / "a.dcm").write_bytes(raw[:start] + bomb)
    message = refusal(StudyTooLargeError, tmp_path / "a.dcm")
    assert "deflated, and unpacks to more than 64 MiB" in message


# Patients


def test_files_of_two_patients_are_no_study(tmp_path):
    first = write_dicom(tmp_path / "a.dcm", ramp(2, 2), Modality="DX")
    second = write_dicom(tmp_path / "b.dcm", ramp(2, 2), Modality="DX", PatientID="P-0815")
    message = refusal(StudyAmbiguousError, [first, second])
    assert message.startswith("b.dcm: images of more than one patient") and "P-0815" not in message


def test_exam_of_two_patients_in_one_folder_is_refused(tmp_path):
    for name, patient in (("a.dcm", "P-4711"), ("b.dcm", "P-0815")):
        write_dicom(tmp_path / name, ramp(2, 2), Modality="DX", PatientID=patient)
    refusal(StudyAmbiguousError, tmp_path)


def test_radiographs_of_two_studies_ask_which(tmp_path):
    for number in (1, 2):
        write_dicom(
            tmp_path / f"{number}.dcm",
            ramp(2, 2),
            Modality="DX",
            StudyInstanceUID=f"1.2.{number}",
            SeriesInstanceUID=f"1.2.{number}.1",
            SeriesNumber=number,
        )
    refusal(StudyAmbiguousError, tmp_path)
    assert len(read_study(tmp_path, series="2").images) == 1


@pytest.mark.parametrize("offset", [4, 12])
def test_run_lengths_beyond_the_data_are_refused_before_room_is_made_for_them(tmp_path, offset):
    dataset = pydicom.dcmread(get_testdata_file("MR_small_RLE.dcm", download=False))
    packed = bytearray(dataset.PixelData)
    second_item = 8 + int.from_bytes(packed[4:8], "little")
    packed[second_item + offset : second_item + offset + 4] = b"\xff\xff\xff\x7f"
    dataset.PixelData = bytes(packed)
    dataset.save_as(tmp_path / "a.dcm")
    assert "damaged pixels" in refusal(StudyUnreadableError, tmp_path / "a.dcm")
