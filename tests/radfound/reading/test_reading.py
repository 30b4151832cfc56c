import gzip
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from radfound.exceptions import RequestError, StudyAmbiguousError
from radfound.reading import read_study

from ..miniature import ramp, voxels_of, write_dicom, write_series


def save_nifti(path: Path, array, **header) -> Path:
    """Write an array [i, j, k, …] as it is stored."""
    image = nibabel.Nifti1Image(array, np.eye(4))
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


# Folders, zips, series, volumes


def write_exam(folder: Path) -> list[Path]:
    views = [("L", "CC"), ("R", "CC"), ("L", "MLO"), ("R", "MLO")]
    return [
        write_dicom(
            folder / f"{9 - index}.dcm",
            ramp(4, 3, dtype=np.uint16) + index,
            Modality="MG",
            ImageLaterality=side,
            ViewPosition=view,
            SeriesInstanceUID=f"1.2.3.{index}",
            SeriesNumber=index + 1,
        )
        for index, (side, view) in enumerate(views)
    ]


def test_mammograms_of_one_exam_become_one_study(tmp_path):
    write_exam(tmp_path)
    study = read_study(tmp_path, study_id="exam-1")
    assert [image.view for image in study.images] == ["L CC", "R CC", "L MLO", "R MLO"]
    assert study.id == "exam-1"


def test_one_view_of_an_exam_can_be_chosen(tmp_path):
    write_exam(tmp_path)
    assert [image.view for image in read_study(tmp_path, series="2").images] == ["R CC"]


def test_list_becomes_views_in_its_own_order(tmp_path):
    paths = write_exam(tmp_path)
    study = read_study([paths[2], str(paths[0])])
    assert [image.view for image in study.images] == ["L MLO", "L CC"]


def test_real_mammograms_keep_their_sixteen_bits(kit):
    paths = sorted((kit / "mammo" / "images").glob("gmic_exam0_*.png"))
    study = read_study(paths)
    assert len(study.images) == 4
    for path, image in zip(paths, study.images, strict=True):
        assert image.source == path.name
        assert image.voxels.dtype == np.uint16
        np.testing.assert_array_equal(image.voxels[0], sitk.GetArrayFromImage(sitk.ReadImage(path)))


def two_series(folder: Path) -> Path:
    for number, name in ((3, "Thorax 1.0"), (4, "Thorax Muster 5.0")):
        write_series(
            folder / f"series{number}",
            ramp(number, 4, 4),
            SeriesNumber=number,
            SeriesInstanceUID=f"1.2.3.{number}",
            SeriesDescription=name,
        )
    return folder


def test_several_series_ask_which(tmp_path):
    with pytest.raises(
        StudyAmbiguousError, match="2 series.*'3': CT, Thorax 1.0, 3 images"
    ) as info:
        read_study(two_series(tmp_path))
    assert info.value.choices == ("3", "4")


def test_series_description_with_the_patients_name_is_not_shown(tmp_path):
    with pytest.raises(StudyAmbiguousError) as info:
        read_study(two_series(tmp_path))
    assert "Muster" not in str(info.value)


@pytest.mark.parametrize("series", ["4", "1.2.3.4"])
def test_series_is_chosen_by_number_or_uid(tmp_path, series):
    assert len(voxels_of(two_series(tmp_path), series=series)) == 4


def test_series_that_share_a_number_are_chosen_by_uid(tmp_path):
    for uid, depth in (("1.2.3.4", 2), ("1.2.3.5", 3)):
        write_series(tmp_path / uid, ramp(depth, 2, 2), SeriesNumber=1, SeriesInstanceUID=uid)
    with pytest.raises(StudyAmbiguousError) as info:
        read_study(tmp_path)
    assert info.value.choices == ("1.2.3.4", "1.2.3.5")
    assert len(voxels_of(tmp_path, series="1.2.3.5")) == 3


def test_unknown_series_is_the_callers_mistake(tmp_path):
    with pytest.raises(RequestError, match="no series '7'; expected one of '3'"):
        read_study(two_series(tmp_path), series="7")


def test_zip_is_read_like_its_folder(tmp_path):
    folder = write_series(tmp_path / "s", ramp(3, 4, 4))
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"STUDY/SERIES/{path.name}")
    (image,) = read_study(tmp_path / "s.zip").images
    np.testing.assert_array_equal(image.voxels, ramp(3, 4, 4))
    assert image.source == "s.zip"


def test_other_files_beside_a_series_do_not_disturb(tmp_path):
    folder = write_series(tmp_path / "s", ramp(3, 4, 4))
    (folder / "README.txt").write_text("what this is")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    path = write_dicom(folder / "report.dcm", ramp(1, 1), Modality="SR", SeriesInstanceUID="9.9")
    assert path.is_file()
    np.testing.assert_array_equal(voxels_of(folder), ramp(3, 4, 4))


def test_copy_of_a_slice_counts_once(tmp_path):
    folder = write_series(tmp_path / "s", ramp(3, 4, 4))
    (folder / "copy.dcm").write_bytes((folder / "slice000.dcm").read_bytes())
    np.testing.assert_array_equal(voxels_of(folder), ramp(3, 4, 4))


def test_several_phases_at_one_place_ask_which(tmp_path):
    for phase in (2, 1):
        write_series(
            tmp_path / f"p{phase}", ramp(3, 2, 2) * phase, TemporalPositionIdentifier=phase
        )
    with pytest.raises(StudyAmbiguousError, match="2 volumes") as info:
        read_study(tmp_path)
    assert info.value.choices == ("0", "1")
    np.testing.assert_array_equal(voxels_of(tmp_path, volume=1), ramp(3, 2, 2) * 2)


def test_folder_with_one_other_image_is_read(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", ramp(2, 3, 4))
    assert voxels_of(tmp_path).shape == (4, 3, 2)


def test_detached_header_in_a_zip_finds_its_voxels(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(ramp(4, 3, 2)), str(tmp_path / "a.mhd"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.mhd", "in/a.mhd")
        archive.write(tmp_path / "a.raw", "in/a.raw")
    np.testing.assert_array_equal(voxels_of(tmp_path / "a.zip"), ramp(4, 3, 2))


# NIfTI, NRRD, MetaImage


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", ">i2", ">f4", "f4"])
def test_nifti_keeps_the_stored_type(tmp_path, dtype):
    header = nibabel.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    image = nibabel.Nifti1Image(ramp(5, 4, 3, dtype=dtype), np.eye(4), header)
    image.set_data_dtype(dtype.lstrip(">"))
    nibabel.save(image, tmp_path / "a.nii")
    voxels = voxels_of(tmp_path / "a.nii")
    assert voxels.dtype == np.dtype(dtype.lstrip(">"))
    np.testing.assert_array_equal(voxels.transpose(2, 1, 0), ramp(5, 4, 3))


def test_nifti_integers_with_a_whole_intercept_stay_integers(tmp_path):
    path = save_nifti(tmp_path / "a.nii", ramp(2, 2, 2), scl_slope=1, scl_inter=-1024)
    image = nibabel.load(path)
    image.header.set_slope_inter(1, -1024)
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([1, -1024], "<f4").tobytes()
    path.write_bytes(raw)
    voxels = voxels_of(path)
    assert voxels.dtype == np.int16
    np.testing.assert_array_equal(voxels.transpose(2, 1, 0), ramp(2, 2, 2) - 1024)


def test_nifti_fractional_slope_gives_float32(tmp_path):
    path = save_nifti(tmp_path / "a.nii", ramp(2, 2, 2))
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([0.5, 3], "<f4").tobytes()
    path.write_bytes(raw)
    voxels = voxels_of(path)
    assert voxels.dtype == np.float32
    np.testing.assert_array_equal(voxels.transpose(2, 1, 0), nibabel.load(path).get_fdata())


def test_nifti_2_is_read(tmp_path):
    nibabel.save(nibabel.Nifti2Image(ramp(4, 3, 2), np.eye(4)), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(
        voxels_of(tmp_path / "a.nii.gz").transpose(2, 1, 0), ramp(4, 3, 2)
    )


def test_flat_nifti_is_one_slice(tmp_path):
    assert voxels_of(save_nifti(tmp_path / "a.nii", ramp(4, 3))).shape == (1, 3, 4)


def test_colour_nifti_becomes_luminance(tmp_path):
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    array = np.zeros((2, 1, 1), rgb)
    array[1] = (255, 255, 0)
    np.testing.assert_array_equal(
        voxels_of(save_nifti(tmp_path / "a.nii", array)).ravel(), (0, 226)
    )


def test_gzip_of_several_members_is_read_whole(tmp_path):
    raw = save_nifti(tmp_path / "a.nii", ramp(8, 8, 8)).read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(raw[:700]) + gzip.compress(raw[700:]))
    np.testing.assert_array_equal(voxels_of(path).transpose(2, 1, 0), ramp(8, 8, 8))


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_one_volume_of_a_4d_nifti_is_read(tmp_path, ending):
    path = save_nifti(tmp_path / f"a.{ending}", ramp(4, 3, 2, 5))
    with pytest.raises(StudyAmbiguousError, match="5 volumes.*volume=0 to 4"):
        read_study(path)
    np.testing.assert_array_equal(
        voxels_of(path, volume=3).transpose(2, 1, 0), ramp(4, 3, 2, 5)[..., 3]
    )


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_one_volume_of_a_4d_image_is_read(tmp_path, name):
    sitk.WriteImage(sitk.GetImageFromArray(ramp(5, 4, 3, 2), isVector=False), str(tmp_path / name))
    with pytest.raises(StudyAmbiguousError, match="5 volumes"):
        read_study(tmp_path / name)
    np.testing.assert_array_equal(voxels_of(tmp_path / name, volume=3), ramp(5, 4, 3, 2)[3])


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_one_component_of_a_vector_image_is_read(tmp_path, name):
    sitk.WriteImage(sitk.GetImageFromArray(ramp(4, 3, 2, 5), isVector=True), str(tmp_path / name))
    np.testing.assert_array_equal(voxels_of(tmp_path / name, volume=3), ramp(4, 3, 2, 5)[..., 3])


@pytest.mark.parametrize("volume", [5, -1, 1.0, "1", True])
def test_volume_that_does_not_exist_is_the_callers_mistake(tmp_path, volume):
    path = save_nifti(tmp_path / "a.nii", ramp(2, 2, 2, 5))
    with pytest.raises(RequestError, match="^volume: "):
        read_study(path, volume=volume)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_colour_image_becomes_luminance(tmp_path, name):
    colours = np.zeros((1, 2, 2, 3), np.uint8)
    colours[0, 0, 0] = (255, 255, 0)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / name))
    if name.endswith("nrrd"):
        raw = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(raw.replace(b"kinds: vector", b"kinds: RGB-color"))
    np.testing.assert_array_equal(voxels_of(tmp_path / name), [[[226, 0], [0, 0]]])


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
def test_types_of_nrrd_and_metaimage_are_those_that_itk_writes(tmp_path, name, dtype):
    voxels = ramp(4, 3, 2, dtype=dtype)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / name))
    found = voxels_of(tmp_path / name)
    assert found.dtype == ("f4" if dtype == "f8" else dtype)
    np.testing.assert_array_equal(found, voxels)


def test_big_endian_nrrd_with_skipped_bytes_is_read(tmp_path):
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 4\nencoding: raw\nendian: big\n"
        "line skip: 1\nbyte skip: 3\n\n"
    )
    raw = header.encode() + b"a line\nxyz" + ramp(4, 3, 2, dtype=">i2").tobytes()
    (tmp_path / "a.nrrd").write_bytes(raw)
    np.testing.assert_array_equal(voxels_of(tmp_path / "a.nrrd"), ramp(4, 3, 2))


def test_bzip2_nrrd_is_read(tmp_path):
    import bz2

    header = "NRRD0004\ntype: uchar\ndimension: 2\nsizes: 3 2\nencoding: bzip2\n\n"
    raw = header.encode() + bz2.compress(ramp(2, 3, dtype=np.uint8).tobytes())
    (tmp_path / "a.nrrd").write_bytes(raw)
    (image,) = read_study(tmp_path / "a.nrrd").images
    np.testing.assert_array_equal(image.voxels, ramp(1, 2, 3))
    assert not image.calibrated


# Pictures


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_keeps_its_depth(tmp_path, dtype):
    Image.fromarray(ramp(3, 4, dtype=dtype) * 20).save(tmp_path / "a.png")
    (image,) = read_study(tmp_path / "a.png").images
    assert image.voxels.dtype == dtype
    np.testing.assert_array_equal(image.voxels, ramp(1, 3, 4) * 20)
    assert not image.calibrated
    assert image.modality is None


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
def test_png_of_any_mode_becomes_grey(tmp_path, mode):
    Image.new("L", (4, 3), 255).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(voxels_of(tmp_path / "a.png"), np.full((1, 3, 4), 255))


def test_jpeg_is_read_and_turned_as_it_says(tmp_path):
    picture = Image.fromarray(np.repeat(np.uint8([[0], [0], [250], [250]]) * 1, 8, axis=1))
    picture = picture.resize((16, 32), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = 3
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    voxels = voxels_of(tmp_path / "a.jpg")
    assert voxels.shape == (1, 32, 16)
    assert voxels[0, :12].mean() > 240 and voxels[0, -12:].mean() < 10


# What a file is, is told by its content


@pytest.mark.parametrize(
    ("real", "given"),
    [
        ("a.nii", "a.dcm"),
        ("a.nii.gz", "a.nii"),
        ("a.nrrd", "a"),
        ("a.mha", "a.png"),
        ("a.png", "x"),
    ],
)
def test_content_counts_not_the_name(tmp_path, real, given):
    sitk.WriteImage(sitk.GetImageFromArray(ramp(1, 3, 4, dtype=np.uint8)[0]), str(tmp_path / real))
    (tmp_path / "other").mkdir()
    path = (tmp_path / real).rename(tmp_path / "other" / given)
    np.testing.assert_array_equal(voxels_of(path), ramp(1, 3, 4))


def test_same_content_has_the_same_id_under_another_name(tmp_path):
    first = write_series(tmp_path / "a", ramp(3, 4, 4))
    second = first.rename(tmp_path / "b")
    assert read_study(second).id == read_study(second).id
    assert len(read_study(second).id) == 16


def test_importing_the_reader_imports_nothing_heavy():
    script = (
        "import sys, radfound.reading;"
        "print({'torch','itk','SimpleITK','nibabel','pydicom','PIL'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_a_volume_is_not_hashed_before_somebody_asks_for_its_name(tmp_path):
    nibabel.save(nibabel.Nifti1Image(ramp(4, 3, 2), np.eye(4)), tmp_path / "a.nii.gz")
    study = read_study(tmp_path / "a.nii.gz")
    assert "digest" not in vars(study.images[0])
    assert study.id == study.digest[:16]
