import gzip
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from miniature import dicom_dataset, ramp, write_dicom, write_series
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from radfound.exceptions import RequestError, StudyAmbiguousError
from radfound.reading import read_study


def voxels_of(path, **choice) -> np.ndarray:
    (image,) = read_study(path, **choice).images
    return image.voxels


def save_nifti(path: Path, array, **header) -> Path:
    """Write an array [i, j, k, …] as it is stored."""
    image = nibabel.Nifti1Image(array, np.eye(4))
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


# DICOM


def test_ct_is_read_in_hounsfield_units(tmp_path):
    stored = np.array([[0, 1024], [1000, 4095]], np.uint16)
    path = write_dicom(
        tmp_path / "ct.dcm",
        stored,
        BitsStored=12,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        BodyPartExamined="CHEST",
    )
    (image,) = read_study(path).images
    np.testing.assert_array_equal(image.voxels, [[[-1024, 0], [-24, 3071]]])
    assert image.voxels.dtype == np.int16
    assert image.hounsfield
    assert (image.modality, image.body_part, image.source) == ("CT", "chest", "ct.dcm")


def test_wide_values_get_a_type_that_holds_them(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm", np.array([[0, 65535]], np.uint16), RescaleIntercept=-1000
    )
    np.testing.assert_array_equal(voxels_of(path), [[[-1000, 64535]]])


def test_one_slice_of_wide_values_widens_the_volume(tmp_path):
    voxels = np.zeros((3, 2, 2), np.uint16)
    voxels[2] = 60000
    folder = write_series(tmp_path / "s", voxels, RescaleSlope=1, RescaleIntercept=-1024)
    np.testing.assert_array_equal(voxels_of(folder), voxels.astype(int) - 1024)


def test_fractional_rescale_of_each_slice_is_its_own(tmp_path):
    for k, slope in enumerate((0.5, 2.0)):
        write_dicom(
            tmp_path / f"{k}.dcm",
            np.full((2, 2), 10, np.uint16),
            Modality="PT",
            RescaleSlope=slope,
            RescaleIntercept=0,
            ImagePositionPatient=[0, 0, k],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
        )
    voxels = voxels_of(tmp_path)
    assert voxels.dtype == np.float32
    np.testing.assert_array_equal(voxels[:, 0, 0], [5, 20])


@pytest.mark.parametrize("modality", ["CR", "DX", "MG", "CT", "MR", "US", "PT", "NM", "XA", "RF"])
def test_single_image_of_each_modality_is_read(tmp_path, modality):
    path = write_dicom(tmp_path / "a.dcm", ramp(3, 4, dtype=np.uint16), Modality=modality)
    (image,) = read_study(path).images
    np.testing.assert_array_equal(image.voxels[0], ramp(3, 4))
    assert image.modality == modality
    assert image.hounsfield == (modality == "CT")
    assert not image.is_volume


@pytest.mark.parametrize(("bits", "white"), [(16, 65535), (12, 4095), (8, 255)])
def test_monochrome1_is_inverted(tmp_path, bits, white):
    stored = ramp(2, 3, dtype=np.uint8 if bits == 8 else np.uint16)
    path = write_dicom(
        tmp_path / "a.dcm",
        stored,
        Modality="DX",
        BitsStored=bits,
        PhotometricInterpretation="MONOCHROME1",
    )
    np.testing.assert_array_equal(voxels_of(path)[0], white - stored.astype(int))


def test_signed_monochrome1_is_inverted(tmp_path):
    stored = np.array([[-5, 0, 7]], np.int16)
    path = write_dicom(
        tmp_path / "a.dcm", stored, Modality="MG", PhotometricInterpretation="MONOCHROME1"
    )
    np.testing.assert_array_equal(voxels_of(path)[0], [[4, -1, -8]])


def test_hounsfield_units_are_not_inverted_by_monochrome1(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", ramp(2, 2), PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(voxels_of(path)[0], ramp(2, 2))


def test_padding_of_an_inverted_radiograph_stays_dark(tmp_path):
    stored = np.array([[0, 0, 100], [0, 3000, 4000]], np.uint16)
    path = write_dicom(
        tmp_path / "a.dcm",
        stored,
        Modality="DX",
        BitsStored=12,
        PhotometricInterpretation="MONOCHROME1",
        PixelPaddingValue=0,
    )
    np.testing.assert_array_equal(voxels_of(path)[0], [[95, 95, 3995], [95, 1095, 95]])


def test_overlay_in_unused_bits_is_cleared(tmp_path):
    stored = np.array([[0x0FFF, 0x1005, 0xF00A]], np.uint16)
    path = write_dicom(tmp_path / "a.dcm", stored, Modality="CR", BitsStored=12)
    np.testing.assert_array_equal(voxels_of(path)[0], [[4095, 5, 10]])


def test_colour_ultrasound_becomes_luminance(tmp_path):
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 200, 200]]], np.uint8)
    path = write_dicom(
        tmp_path / "us.dcm",
        colours,
        Modality="US",
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
    )
    np.testing.assert_array_equal(voxels_of(path), [[[76, 150, 29, 200]]])


def test_palette_colour_becomes_luminance(tmp_path):
    lut = {"Red": [0, 255], "Green": [0, 255], "Blue": [0, 0]}
    tags = {}
    for name, values in lut.items():
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [2, 0, 8]
        tags[f"{name}PaletteColorLookupTableData"] = bytes(values)
    indices = np.indices((16, 16)).sum(0).astype(np.uint8) % 2
    dataset = dicom_dataset(indices, PhotometricInterpretation="PALETTE COLOR", **tags)
    for packed in (False, True):
        if packed:
            dataset.compress(RLELossless)
        pydicom.dcmwrite(tmp_path / "a.dcm", dataset, write_like_original=False)
        np.testing.assert_array_equal(voxels_of(tmp_path / "a.dcm")[0], indices * 226)


def test_ultrasound_regions_give_the_size_of_a_pixel(tmp_path):
    region = pydicom.Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, 0.03
    path = write_dicom(
        tmp_path / "us.dcm",
        ramp(4, 4, dtype=np.uint8),
        Modality="US",
        SequenceOfUltrasoundRegions=[region],
    )
    (image,) = read_study(path).images
    np.testing.assert_allclose(image.spacing_mm, (0.2, 0.3, 1))


def test_jpeg_ultrasound_clip_becomes_frames(tmp_path):
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[:] = 40 * (index + 1)
    dataset = dicom_dataset(
        frames, Modality="US", SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL_422"
    )
    packed = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=95)
        packed.append(buffer.getvalue())
    dataset.PixelData = encapsulate(packed)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    pydicom.dcmwrite(tmp_path / "clip.dcm", dataset, write_like_original=False)
    (image,) = read_study(tmp_path / "clip.dcm").images
    np.testing.assert_allclose(image.voxels.mean((1, 2)), (40, 80, 120), atol=1)
    assert not image.calibrated


@pytest.mark.parametrize("packed", ["RLE", "jp2klossless", "jpeg_ls_lossless", "bigendian"])
def test_packed_dicom_gives_the_same_voxels_as_plain(packed):
    plain = voxels_of(get_testdata_file("MR_small.dcm"))
    np.testing.assert_array_equal(plain, voxels_of(get_testdata_file(f"MR_small_{packed}.dcm")))


def test_dicom_that_comes_with_pydicom_agrees_with_itk():
    path = get_testdata_file("CT_small.dcm")
    np.testing.assert_array_equal(
        voxels_of(path), sitk.GetArrayFromImage(sitk.ReadImage(path)).astype(int)
    )


def test_dicom_without_preamble_is_read(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", ramp(3, 4))
    dataset = pydicom.dcmread(path)
    path.write_bytes(b"")
    del dataset.file_meta
    dataset.preamble = None
    pydicom.dcmwrite(path, dataset, write_like_original=True)
    np.testing.assert_array_equal(voxels_of(path)[0], ramp(3, 4))


@pytest.mark.parametrize(
    ("tags", "view"),
    [
        ({"Modality": "DX", "ViewPosition": "PA"}, "PA"),
        ({"Modality": "CR", "ViewPosition": "LL"}, "LATERAL"),
        ({"Modality": "MG", "ViewPosition": "MLO", "ImageLaterality": "R"}, "R MLO"),
        ({"Modality": "MG", "ImageLaterality": "L"}, "L"),
        ({"Modality": "DX"}, None),
    ],
)
def test_view_is_named_in_the_fields_words(tmp_path, tags, view):
    path = write_dicom(tmp_path / "a.dcm", ramp(2, 2), **tags)
    assert read_study(path).images[0].view == view


def test_mammographic_view_is_found_in_the_code_sequence(tmp_path):
    code = pydicom.Dataset()
    code.CodeMeaning = "cranio-caudal"
    path = write_dicom(
        tmp_path / "a.dcm",
        ramp(2, 2),
        Modality="MG",
        ImageLaterality="L",
        ViewCodeSequence=[code],
    )
    assert read_study(path).images[0].view == "L CC"


def test_localizer_values_are_no_hounsfield_units(tmp_path):
    tags = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    assert not read_study(write_dicom(tmp_path / "a.dcm", ramp(2, 2), **tags)).images[0].hounsfield


def test_localizer_inside_a_series_is_left_out(tmp_path):
    write_series(tmp_path, ramp(3, 4, 4))
    write_dicom(
        tmp_path / "scout.dcm",
        ramp(9, 9),
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImagePositionPatient=[0, 0, 0],
        ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
        PixelSpacing=[1, 1],
    )
    np.testing.assert_array_equal(voxels_of(tmp_path), ramp(3, 4, 4))


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
