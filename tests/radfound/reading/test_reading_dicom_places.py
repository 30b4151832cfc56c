"""Where frames of one file lie: multi-frame CT and MR, nuclear medicine, mosaics, clips."""

import contextlib
import gzip
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.sequence import Sequence

from radfound.exceptions import (
    GeometryError,
    RadFoundError,
    StudyAmbiguousError,
    StudyUnreadableError,
)
from radfound.reading import read_study

from ..miniature import (
    AXIAL,
    dicom_dataset,
    items,
    ramp,
    refusal,
    rotation,
    voxels_of,
    write_dicom,
    write_enhanced,
)

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
OBLIQUE = rotation((1, 2, 3), 25)[:, :2].T
CT = {
    "ImagePositionPatient": [10, 20, 30],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.4, 0.3],
    "RescaleIntercept": -1024,
    "RescaleSlope": 1,
}
SEVERAL = np.uint16(ramp(4, 3, 5))


def ras(across, down, through, origin) -> np.ndarray:
    """The affine to RAS of steps and an origin in LPS."""
    affine = np.eye(4)
    affine[:3] = np.stack([across, down, through, origin], axis=1)
    return TO_RAS @ affine


def only_image(path, **choice):
    (image,) = read_study(path, **choice).images
    return image


# Multi-frame without functional groups


@pytest.mark.parametrize(
    "spacing", [{"SpacingBetweenSlices": 0.3, "SliceThickness": 0.6}, {"SliceThickness": 0.3}]
)
def test_ct_in_one_multi_frame_file_keeps_spacing_and_place(tmp_path, spacing):
    image = only_image(write_dicom(tmp_path / "a.dcm", SEVERAL, **CT, **spacing))
    right = ras((0.3, 0, 0), (0, 0.4, 0), (0, 0, 0.3), (10, 20, 30))
    np.testing.assert_allclose(image.affine, right)
    np.testing.assert_array_equal(image.voxels, SEVERAL.astype(int) - 1024)
    assert image.calibrated


def test_oblique_multi_frame_mr_lies_along_its_normal(tmp_path):
    tags = {
        **CT,
        "Modality": "MR",
        "ImageOrientationPatient": [round(float(x), 9) for x in OBLIQUE.ravel()],
        "SpacingBetweenSlices": 2.0,
    }
    image = only_image(write_dicom(tmp_path / "a.dcm", SEVERAL, **tags))
    across, down = OBLIQUE
    right = ras(0.3 * across, 0.4 * down, 2 * np.cross(across, down), (10, 20, 30))
    np.testing.assert_allclose(image.affine, right, atol=1e-7)


def test_slice_locations_of_a_multi_frame_capture_are_its_places(tmp_path):
    tags = {
        **CT,
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.3",
        "FrameIncrementPointer": 0x00182005,
        "SliceLocationVector": [100, 97.5, 95, 92.5],
        "SliceThickness": 5,
    }
    image = only_image(write_dicom(tmp_path / "a.dcm", SEVERAL, **tags))
    assert image.spacing_mm[2] == pytest.approx(2.5)


def test_uneven_slice_locations_are_refused_with_numbers(tmp_path):
    tags = {**CT, "FrameIncrementPointer": 0x00182005, "SliceLocationVector": [0, 1, 2, 5]}
    path = write_dicom(tmp_path / "a.dcm", SEVERAL, **tags)
    assert "varies from 1.00 to 3.00 mm" in refusal(GeometryError, path)


def test_multi_frame_ct_that_says_not_where_it_lies_keeps_its_spacing_only(tmp_path):
    tags = {**CT, "ImagePositionPatient": None, "SpacingBetweenSlices": 0.7}
    image = only_image(write_dicom(tmp_path / "a.dcm", SEVERAL, **tags))
    np.testing.assert_allclose(image.spacing_mm, (0.3, 0.4, 0.7))
    assert not image.calibrated


@pytest.mark.parametrize(
    "tags",
    [
        {**CT, "SliceThickness": 3, "FrameIncrementPointer": 0x00181063, "FrameTime": 40},
        {**CT, "Modality": "XA", "SliceThickness": 3},
        {"Modality": "US", "SliceThickness": 3},
    ],
    ids=["CT fluoroscopy", "angiogram", "ultrasound"],
)
def test_frames_in_time_are_a_clip_and_no_volume_in_space(tmp_path, tags):
    image = only_image(write_dicom(tmp_path / "a.dcm", SEVERAL, **tags))
    assert image.voxels.shape == SEVERAL.shape
    assert image.affine[2, 2] == 1 and not image.calibrated


# Functional groups


def test_frames_of_an_enhanced_file_are_sorted_by_position(tmp_path):
    order = [2, 0, 3, 1]
    across, down = OBLIQUE
    through = np.cross(across, down)
    positions = [np.array([1, 2, 3]) + 3.3 * place * through for place in order]
    path = write_enhanced(tmp_path / "e.dcm", SEVERAL[order], positions, directions=OBLIQUE)
    image = only_image(path)
    np.testing.assert_array_equal(image.voxels, SEVERAL)
    right = ras(0.5 * across, 0.8 * down, 3.3 * through, (1, 2, 3))
    np.testing.assert_allclose(image.affine, right, atol=1e-9)


def test_enhanced_ct_lies_where_itk_says(tmp_path):
    positions = [(5, 6, 7 + 2.5 * place) for place in range(4)]
    transform = {"PixelValueTransformationSequence": {"RescaleSlope": 1, "RescaleIntercept": -7}}
    tags = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1", "Modality": "CT"}
    path = write_enhanced(tmp_path / "e.dcm", SEVERAL, positions, shared=transform, **tags)
    image, reference = only_image(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(image.voxels, sitk.GetArrayViewFromImage(reference))
    for corner in ((0, 0, 0), (4, 2, 3)):
        lps = reference.TransformIndexToPhysicalPoint(corner)
        np.testing.assert_allclose(TO_RAS[:3, :3] @ lps, (image.affine @ (*corner, 1))[:3])


@pytest.mark.parametrize("found", [(0, 1), (1,)], ids=["whole", "a part lacks"])
def test_parts_of_a_concatenation_are_joined_or_named(tmp_path, found):
    for part in found:
        write_enhanced(
            tmp_path / f"{9 - part}.dcm",
            SEVERAL[2 * part : 2 * part + 2],
            [(0, 0, 3 * place) for place in range(2 * part, 2 * part + 2)],
            ConcatenationUID="1.2.99",
            InConcatenationNumber=part + 1,
            InConcatenationTotalNumber=2,
        )
    if len(found) == 2:
        np.testing.assert_array_equal(voxels_of(tmp_path), SEVERAL)
    else:
        assert "1 of 2 parts" in refusal(StudyUnreadableError, tmp_path)


def test_ultrasound_volume_keeps_its_spacing_without_a_place_in_the_patient(tmp_path):
    own = [
        items(
            PlanePositionVolumeSequence={"ImagePositionVolume": [0.0, 0.0, 0.4 * place]},
            PlaneOrientationVolumeSequence={"ImageOrientationVolume": [1.0, 0, 0, 0, 1, 0]},
        )
        for place in (1, 0, 3, 2)
    ]
    shared = items(PixelMeasuresSequence={"PixelSpacing": [0.2, 0.3]})
    path = write_dicom(
        tmp_path / "u.dcm",
        SEVERAL[[1, 0, 3, 2]],
        SOPClassUID="1.2.840.10008.5.1.4.1.1.6.2",
        Modality="US",
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=own,
    )
    image = only_image(path)
    np.testing.assert_array_equal(image.voxels, SEVERAL)
    np.testing.assert_allclose(image.spacing_mm, (0.3, 0.2, 0.4))
    assert not image.calibrated


def test_slices_of_a_tomosynthesis_lie_where_they_were_reconstructed(tmp_path):
    path = write_enhanced(
        tmp_path / "t.dcm",
        SEVERAL,
        [(0, 30 + place, 0) for place in range(4)],
        directions=((1, 0, 0), (0, 0, -1)),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.3",
        Modality="MG",
        shared={"FrameAnatomySequence": {"FrameLaterality": "R"}},
        ViewCodeSequence=[items(CodeValue="399368009", CodingSchemeDesignator="SCT")],
    )
    image = only_image(path)
    assert image.view == "R MLO"
    np.testing.assert_allclose(image.spacing_mm, (0.5, 0.8, 1))
    np.testing.assert_array_equal(image.voxels, SEVERAL)


@pytest.mark.parametrize(
    ("sop_class", "modality", "found"),
    [
        ("1.2.840.10008.5.1.4.1.1.13.1.4", "MG", "4 raw projections of a tomosynthesis"),
        ("1.2.840.10008.5.1.4.1.1.77.1.6", "SM", "4 tiles of a whole-slide picture"),
    ],
)
def test_frames_that_are_no_slices_are_named(tmp_path, sop_class, modality, found):
    tags = {"SOPClassUID": sop_class, "Modality": modality}
    assert found in refusal(GeometryError, write_dicom(tmp_path / "a.dcm", SEVERAL, **tags))


# Nuclear medicine


def write_nuclear(path, frames, kind, detectors=None, **tags) -> Path:
    """Write frames of grey value 0, 1, 2 and so on."""
    pixels = np.repeat(np.arange(frames, dtype=np.uint16), 12).reshape(frames, 3, 4)
    place = {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    nuclear = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.20",
        "Modality": "NM",
        "ImageType": ["ORIGINAL", "PRIMARY", kind, "EMISSION"],
        "DetectorInformationSequence": [items(**one) for one in detectors or [place]],
        "PixelSpacing": [4.5, 4],
        "SliceThickness": 5,
        "SpacingBetweenSlices": 4,
    }
    return write_dicom(path, pixels, **{**nuclear, **tags})


@pytest.mark.parametrize("between_mm", [4, -4])
def test_reconstructed_slices_lie_on_the_side_that_the_sign_says(tmp_path, between_mm):
    path = write_nuclear(tmp_path / "n.dcm", 3, "RECON TOMO", SpacingBetweenSlices=between_mm)
    image = only_image(path)
    for k, value in enumerate(image.voxels[:, 0, 0]):
        np.testing.assert_allclose((image.affine @ (0, 0, k, 1))[2], 3 + between_mm * value)


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({"TimeSlotVector": [1, 1, 2, 2], "SliceVector": [1, 2, 1, 2]}, "time slot 1"),
        ({"RRIntervalVector": [1, 1, 2, 2], "SliceVector": [1, 2, 1, 2]}, "R-R interval 1"),
        ({"EnergyWindowVector": [1, 1, 2, 2], "SliceVector": [1, 2, 1, 2]}, "energy window 1"),
        ({"DetectorVector": [1, 1, 2, 2], "SliceVector": [1, 2, 1, 2]}, "detector 1"),
        ({"RotationVector": [1, 1, 2, 2], "SliceVector": [1, 2, 1, 2]}, "rotation 1"),
        ({"EnergyWindowVector": [1, 1, 2, 2]}, "energy window 1"),
        (
            {
                "FrameIncrementPointer": [0x00540070, 0x00540080],
                "NumberOfTimeSlots": 2,
                "NumberOfSlices": 2,
            },
            "time slot 1",
        ),
    ],
    ids=[
        "gated",
        "R-R",
        "windows",
        "detectors",
        "rotations",
        "no slice vector",
        "no vector at all",
    ],
)
def test_frames_of_a_tomogram_are_grouped_by_their_vectors(tmp_path, tags, name):
    path = write_nuclear(tmp_path / "n.dcm", 4, "RECON GATED TOMO", **tags)
    with pytest.raises(StudyAmbiguousError) as info:
        read_study(path)
    assert info.value.words[0] == name
    for volume in (0, 1):
        values = voxels_of(path, volume=volume)[:, 0, 0]
        np.testing.assert_array_equal(values, (2 * volume, 2 * volume + 1))


def test_frames_of_a_tomogram_may_come_in_any_order(tmp_path):
    vectors = {"TimeSlotVector": [2, 1, 2, 1], "SliceVector": [1, 2, 2, 1]}
    path = write_nuclear(tmp_path / "n.dcm", 4, "RECON GATED TOMO", **vectors)
    np.testing.assert_array_equal(voxels_of(path, volume=0)[:, 0, 0], (3, 1))
    np.testing.assert_array_equal(voxels_of(path, volume=1)[:, 0, 0], (0, 2))


def test_energy_windows_are_called_by_their_names(tmp_path):
    path = write_nuclear(
        tmp_path / "n.dcm",
        4,
        "RECON TOMO",
        EnergyWindowVector=[1, 1, 2, 2],
        EnergyWindowInformationSequence=[items(EnergyWindowName=n) for n in ("Tc99m", "Scatter")],
    )
    with pytest.raises(StudyAmbiguousError, match=r"energy window 2 \(Scatter\)"):
        read_study(path)


def test_more_frames_than_slices_and_nothing_to_tell_them_apart_is_refused(tmp_path):
    path = write_nuclear(tmp_path / "n.dcm", 8, "RECON GATED TOMO", NumberOfSlices=4)
    assert "8 frames of 4 slices" in refusal(GeometryError, path)


def test_vectors_that_do_not_fit_the_frames_are_named(tmp_path):
    path = write_nuclear(tmp_path / "n.dcm", 4, "RECON TOMO", TimeSlotVector=[1, 2])
    assert "2 numbers in TimeSlotVector for 4 frames" in refusal(GeometryError, path)


def test_reconstruction_without_a_place_keeps_its_volumes_apart(tmp_path):
    path = write_nuclear(
        tmp_path / "n.dcm", 4, "RECON GATED TOMO", [{}], TimeSlotVector=[1, 1, 2, 2]
    )
    image = only_image(path, volume=1)
    np.testing.assert_array_equal(image.voxels[:, 0, 0], (2, 3))
    assert not image.calibrated
    np.testing.assert_allclose(image.spacing_mm, (4, 4.5, 4))


@pytest.mark.parametrize("kind", ["TOMO", "GATED TOMO", "OTHER"])
def test_raw_projections_of_a_spect_are_refused(tmp_path, kind):
    path = write_nuclear(
        tmp_path / "n.dcm", 4, kind, RotationVector=[1] * 4, AngularViewVector=[1, 2, 3, 4]
    )
    assert "4 raw projections of a tomogram" in refusal(GeometryError, path)


FRONT, BACK = [1, 0, 0, 0, 0, -1], [-1, 0, 0, 0, 0, -1]
BY_CODE = [
    {"ViewCodeSequence": {"CodeValue": "399321004", "CodeMeaning": "Anterior projection"}},
    {"ViewCodeSequence": {"CodeValue": "399001007", "CodeMeaning": "posterior"}},
]
BY_DIRECTION = [{"ImageOrientationPatient": FRONT}, {"ImageOrientationPatient": BACK}]


@pytest.mark.parametrize("detectors", [BY_CODE, BY_DIRECTION], ids=["code", "direction"])
@pytest.mark.parametrize("kind", ["WHOLE BODY", "STATIC"])
def test_front_and_back_are_two_views(tmp_path, kind, detectors):
    path = write_nuclear(tmp_path / "n.dcm", 2, kind, detectors, DetectorVector=[2, 1])
    back, front = read_study(path).images
    assert (front.view, back.view) == ("anterior", "posterior")
    np.testing.assert_array_equal(front.voxels, np.full((1, 3, 4), 1))
    np.testing.assert_allclose(front.spacing_mm[:2], (4, 4.5))


def test_views_that_nothing_names_stay_without_a_name(tmp_path):
    path = write_nuclear(tmp_path / "n.dcm", 2, "STATIC", [{}], DetectorVector=[1, 2])
    assert [image.view for image in read_study(path).images] == [None, None]


def test_dynamic_frames_of_each_detector_are_a_clip_of_their_own(tmp_path):
    path = write_nuclear(
        tmp_path / "n.dcm",
        4,
        "DYNAMIC",
        BY_CODE,
        DetectorVector=[1, 2, 1, 2],
        PhaseVector=[1] * 4,
        TimeSliceVector=[1, 1, 2, 2],
    )
    front, back = read_study(path).images
    np.testing.assert_array_equal(front.voxels[:, 0, 0], (0, 2))
    np.testing.assert_array_equal(back.voxels[:, 0, 0], (1, 3))
    assert not front.calibrated


def test_static_views_in_files_of_their_own_are_no_stack(tmp_path):
    for index, name in enumerate(("a", "b")):
        place = {"ImagePositionPatient": [0, index, 0], "ImageOrientationPatient": FRONT}
        write_nuclear(tmp_path / name, 1, "STATIC", [place])
    assert len(read_study(tmp_path).images) == 2


# Mosaics


def siemens_mosaic(count=4, normal=None, **tags) -> pydicom.Dataset:
    """A sheet of 2 x 2 tiles of 4 x 6 pixels, the grey value 100 times the slice, plus the pixel."""
    tiles = [np.uint16(100 * (k + 1) + ramp(4, 6)) * (k < count) for k in range(4)]
    sheet = np.block([[tiles[0], tiles[1]], [tiles[2], tiles[3]]])
    siemens = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
        "Modality": "MR",
        "Manufacturer": "SIEMENS",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
        "ImagePositionPatient": [-24, -20, 7],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [2, 3],
        "SliceThickness": 4,
        "SpacingBetweenSlices": 5,
    }
    dataset = dicom_dataset(sheet, **{**siemens, **tags})
    if count:
        block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0A, "US", count)
    if normal is not None:
        block = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        block.add_new(0x10, "OB", csa_header("SliceNormalVector", normal))
    return dataset


def csa_header(name, numbers) -> bytes:
    """One entry in Siemens' second format: a head, then each number as padded text."""
    entry = name.encode().ljust(64, b"\0") + np.int32([len(numbers)]).tobytes() + b"FD\0\0"
    entry += np.int32([4, len(numbers), 77]).tobytes()
    for value in numbers:
        entry += np.int32([0, 12, 77, 0]).tobytes() + f"{value:.8f}".encode().ljust(12, b"\0")
    return b"SV10\4\3\2\1" + np.uint32([1, 77]).tobytes() + entry


def save(dataset, path):
    pydicom.dcmwrite(path, dataset, write_like_original=False)
    return path


@pytest.mark.parametrize("count", [3, 4])
def test_mosaic_is_unfolded_into_its_slices(tmp_path, count):
    image = only_image(save(siemens_mosaic(count), tmp_path / "m.dcm"))
    expected = [100 * (k + 1) + ramp(4, 6) for k in range(count)]
    np.testing.assert_array_equal(image.voxels, expected)
    # The middle of the first slice lies where the middle of the sheet is said to lie.
    middle = (image.affine @ (2.5, 1.5, 0, 1))[:3]
    np.testing.assert_allclose(middle, (24 - 5.5 * 3, 20 - 3.5 * 2, 7))
    np.testing.assert_allclose(image.affine[:3, :3], np.diag([-3, -2, 5]))


def test_number_of_slices_is_found_in_siemens_own_header(tmp_path):
    dataset = siemens_mosaic(count=0)
    block = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", csa_header("NumberOfImagesInMosaic", [3]))
    assert only_image(save(dataset, tmp_path / "m.dcm")).voxels.shape == (3, 4, 6)


def test_slices_of_a_mosaic_follow_the_normal_that_siemens_states(tmp_path):
    up = only_image(save(siemens_mosaic(normal=(0, 0, 1)), tmp_path / "up.dcm"))
    down = only_image(save(siemens_mosaic(normal=(0, 0, -1)), tmp_path / "down.dcm"))
    np.testing.assert_array_equal(down.voxels, up.voxels[::-1])
    np.testing.assert_allclose((down.affine @ (0, 0, 3, 1))[2], 7)
    np.testing.assert_allclose((up.affine @ (0, 0, 3, 1))[2], 7 + 3 * 5)


@pytest.mark.parametrize(
    "tags",
    [
        {"count": 0},
        {"ImagePositionPatient": None},
        {"SliceThickness": None, "SpacingBetweenSlices": None},
        {"normal": (1, 0, 0)},
        {"count": 5},
        {"count": 0, "ImageType": ["ORIGINAL", "PRIMARY", "M", "VFRAME"]},
    ],
    ids=["number", "position", "distance", "normal", "tiles", "another vendor's"],
)
def test_sheet_of_which_too_little_is_known_is_refused_by_name(tmp_path, tags):
    message = refusal(GeometryError, save(siemens_mosaic(**tags), tmp_path / "m.dcm"))
    assert "all slices of a volume side by side in one picture" in message


def test_mosaic_is_known_by_siemens_number_where_the_image_type_hides_it(tmp_path):
    path = save(siemens_mosaic(ImageType=["ORIGINAL", "PRIMARY", "M"]), tmp_path / "m.dcm")
    assert only_image(path).voxels.shape == (4, 4, 6)


def test_mosaics_of_a_time_series_are_one_volume_each(tmp_path):
    for time in range(3):
        dataset = siemens_mosaic(InstanceNumber=time + 1, AcquisitionTime=f"10000{time}")
        dataset.PixelData = (dataset.pixel_array + 1000 * time).astype("<u2").tobytes()
        save(dataset, tmp_path / f"{time}.dcm")
    with pytest.raises(StudyAmbiguousError, match="3 volumes"):
        read_study(tmp_path)
    assert voxels_of(tmp_path, volume=2)[0, 0, 0] == 2100


def test_enhanced_file_that_still_says_mosaic_is_read_by_its_groups(tmp_path):
    kind = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    positions = [(0, 0, 3 * place) for place in range(4)]
    path = write_enhanced(tmp_path / "e.dcm", SEVERAL, positions, ImageType=kind)
    np.testing.assert_array_equal(voxels_of(path), SEVERAL)


@pytest.mark.parametrize("name", ["siemens_dwi_0.dcm.gz", "siemens_dwi_1000.dcm.gz"])
def test_mosaics_from_a_scanner_lie_where_nibabel_says(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom.dicomwrappers import wrapper_from_file
    packed = Path(nibabel.__file__).parent / "nicom/tests/data" / name
    path = tmp_path / "m.dcm"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    reference = wrapper_from_file(path)
    image = only_image(path)
    # nibabel's arrays run down the columns first, and its affine leads to LPS.
    np.testing.assert_array_equal(image.voxels, reference.get_data().transpose(2, 0, 1))
    swap = np.eye(4)[[1, 0, 2, 3]]
    np.testing.assert_allclose(image.affine, TO_RAS @ reference.affine @ swap, atol=1e-3)


# Slices of a series


def write_slices(folder, positions, **tags) -> Path:
    for number, position in enumerate(positions):
        place = {"ImageOrientationPatient": list(np.ravel(AXIAL)), "PixelSpacing": [1, 1]}
        write_dicom(
            folder / f"{number}.dcm",
            np.full((2, 2), number, np.uint16),
            **{**place, "ImagePositionPatient": list(position), **tags},
        )
    return folder


def test_a_slice_that_is_there_twice_is_refused_with_numbers(tmp_path):
    path = write_slices(tmp_path, [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 2)])
    assert "2 slices at one position (2.dcm and 3.dcm)" in refusal(GeometryError, path)


def test_spacing_that_changes_halfway_is_refused_with_numbers(tmp_path):
    path = write_slices(tmp_path, [(0, 0, z) for z in (0, 1, 2, 4, 6, 8)])
    assert "slice spacing varies from 1.00 to 2.00 mm" in refusal(GeometryError, path)


def test_series_of_one_slice_is_a_picture_in_its_place(tmp_path):
    image = only_image(write_slices(tmp_path, [(1, 2, 3)], SliceThickness=4))
    np.testing.assert_allclose(image.affine, ras((1, 0, 0), (0, 1, 0), (0, 0, 4), (1, 2, 3)))


def test_sequence_of_detectors_may_be_empty(tmp_path):
    path = write_nuclear(tmp_path / "n.dcm", 2, "STATIC", DetectorInformationSequence=Sequence())
    assert only_image(path).voxels.shape == (2, 3, 4)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_damage_to_groups_vectors_or_sheets_makes_anything_but_an_error_of_the_tree(tmp_path):
    rng = np.random.default_rng(3)
    positions = [(0, 0, place // 2) for place in range(4)]
    kinds = [{"MREchoSequence": {"EffectiveEchoTime": te}} for te in (2.0, 4.0)] * 2
    originals = [
        write_enhanced(tmp_path / "e.dcm", SEVERAL, positions, kinds),
        write_nuclear(tmp_path / "n.dcm", 2, "STATIC", BY_CODE, DetectorVector=[1, 2]),
        save(siemens_mosaic(normal=(0, 0, 1)), tmp_path / "m.dcm"),
    ]
    for original in originals:
        raw = original.read_bytes()
        for _ in range(30):
            broken = bytearray(raw)
            for place in rng.integers(132, len(raw), 3):
                broken[place] = rng.integers(256)
            original.write_bytes(broken)
            with contextlib.suppress(RadFoundError):
                read_study(original, volume=0)
