import io

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from radfound.reading import read_study

from ..miniature import dicom_dataset, ramp, voxels_of, write_dicom, write_series


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
