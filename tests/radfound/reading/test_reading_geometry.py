import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from radfound.reading import read_study

from ..miniature import AXIAL, place_of, ramp, rotation, write_dicom, write_series

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
OBLIQUE = rotation((1, 2, 3), 25)
# Columns i, j, k of the affine in mm; every case anisotropic, so that swapped axes show.
GEOMETRIES = {
    "plain": np.diag([0.5, 0.7, 2.0]),
    "flipped in plane": np.diag([-0.5, 0.7, 2.0]),
    "flipped along the slices": np.diag([0.5, -0.7, -2.0]),
    "coronal": np.array([[0.5, 0, 0], [0, 0, 2.0], [0, -0.7, 0]]),
    "sagittal": np.array([[0, 0, 2.0], [0.5, 0, 0], [0, -0.7, 0]]),
    "oblique": OBLIQUE @ np.diag([0.5, 0.7, 2.0]),
    "oblique and flipped": OBLIQUE @ np.diag([0.5, -0.7, 2.0]),
}
GANTRY_TILT = np.array([[0.5, 0, 0], [0, 0.7, 0.6], [0, 0, 2.0]])
ORIGIN = np.array([-11.5, 22.25, -33.0])


@pytest.fixture(params=GEOMETRIES.values(), ids=GEOMETRIES.keys())
def columns(request):
    return request.param


def affine_of(columns, origin=ORIGIN) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, origin
    return affine


def itk_image(voxels, columns, origin=ORIGIN):
    image = sitk.GetImageFromArray(voxels)
    spacing = np.linalg.norm(columns, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((columns / spacing).ravel().tolist())
    image.SetOrigin(origin.tolist())
    return image


def assert_agrees_with_itk(image, reference):
    """Same voxels at the same places in the body, corner by corner."""
    np.testing.assert_array_equal(image.voxels, sitk.GetArrayViewFromImage(reference))
    i, j, k = (size - 1 for size in reference.GetSize())
    for corner in ((0, 0, 0), (i, 0, 0), (0, j, 0), (0, 0, k), (i, j, k)):
        lps = reference.TransformIndexToPhysicalPoint(corner)
        ras = image.affine @ (*corner, 1)
        np.testing.assert_allclose(ras[:3], (-lps[0], -lps[1], lps[2]), atol=1e-4)


def write_nifti(path, voxels, affine, *, sform=True, qform=True):
    """Write voxels [k, j, i] with the affine in the forms asked for."""
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), affine)
    image.set_sform(affine if sform else None, code=int(sform))
    image.set_qform(affine if qform else None, code=int(qform), strip_shears=True)
    nibabel.save(image, path)
    return path


def assert_agrees_with_nibabel(image, path):
    reference = nibabel.load(path)
    np.testing.assert_allclose(image.affine, reference.affine, atol=1e-6)
    np.testing.assert_array_equal(image.voxels.transpose(2, 1, 0), np.asarray(reference.dataobj))


def test_nifti_lies_where_nibabel_says(tmp_path, columns):
    path = write_nifti(tmp_path / "a.nii.gz", ramp(4, 3, 5), affine_of(columns))
    assert_agrees_with_nibabel(read_study(path).images[0], path)


def test_nifti_lies_where_itk_says(tmp_path, columns):
    path = write_nifti(tmp_path / "a.nii", ramp(4, 3, 5), affine_of(columns))
    assert_agrees_with_itk(read_study(path).images[0], sitk.ReadImage(str(path)))


def test_sheared_nifti_keeps_its_shear(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", ramp(4, 3, 5), affine_of(GANTRY_TILT), qform=False)
    (image,) = read_study(path).images
    np.testing.assert_allclose(image.affine, affine_of(GANTRY_TILT), atol=1e-5)
    assert_agrees_with_nibabel(image, path)


@pytest.mark.parametrize(("sform", "qform"), [(True, True), (False, True)])
def test_nifti_form_is_chosen_as_nibabel_does(tmp_path, sform, qform):
    path = tmp_path / "a.nii"
    columns = GEOMETRIES["oblique"]
    write_nifti(path, ramp(4, 3, 5), affine_of(columns), sform=sform, qform=qform)
    assert_agrees_with_nibabel(read_study(path).images[0], path)


def test_sform_comes_before_a_different_qform(tmp_path):
    path = tmp_path / "a.nii"
    image = nibabel.Nifti1Image(ramp(5, 3, 4), None)
    image.set_qform(affine_of(GEOMETRIES["plain"]), code=1)
    image.set_sform(affine_of(GEOMETRIES["oblique"]), code=1)
    nibabel.save(image, path)
    affine = read_study(path).images[0].affine
    np.testing.assert_allclose(affine, affine_of(GEOMETRIES["oblique"]), atol=1e-5)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001), ("mm", 1)])
def test_nifti_in_other_units_becomes_millimetres(tmp_path, unit, factor):
    image = nibabel.Nifti1Image(ramp(5, 3, 4), affine_of(np.diag([1.0, 2.0, 3.0])))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    (image,) = read_study(tmp_path / "a.nii").images
    np.testing.assert_allclose(image.spacing_mm, np.array([1, 2, 3]) * factor, rtol=1e-6)


@pytest.mark.parametrize("ending", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("compressed", [True, False], ids=["packed", "plain"])
def test_nrrd_and_metaimage_lie_where_itk_says(tmp_path, columns, ending, compressed):
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(itk_image(ramp(4, 3, 5), columns), str(path), compressed)
    assert_agrees_with_itk(read_study(path).images[0], sitk.ReadImage(str(path)))


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_sheared_nrrd_and_metaimage_lie_where_itk_says(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(itk_image(ramp(4, 3, 5), GANTRY_TILT), str(path))
    (image,) = read_study(path).images
    assert_agrees_with_itk(image, sitk.ReadImage(str(path)))
    np.testing.assert_allclose(image.affine, TO_RAS @ affine_of(GANTRY_TILT), atol=1e-6)


@pytest.mark.parametrize(
    "geometry",
    [
        "space: left-posterior-superior\nspace directions: (1,0,0) (0,2,0) (0,.5,3)",
        "space: right-anterior-superior\nspace directions: (1,0,0) (0,2,0) (0,.5,3)",
        "space: LAS\nspace directions: (1,0,0) (0,2,0) (0,.5,3)",
        "space: RAS\nspace directions: (0,0,1) (2,0,0) (0,3,0)\nspace origin: (5,6,7)",
        "space dimension: 3\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (5,6,7)",
        "spacings: 1 2 3",
        "spacings: 1 2 3\naxis mins: 5 6 7\ncenterings: node node node",
        "space: LPS\nspace origin: (0,0,9)\nspace directions: (-1,0,0) (0,2,0) (0,0,3)",
    ],
)
def test_hand_written_nrrd_lies_where_itk_says(tmp_path, geometry):
    path = tmp_path / "a.nrrd"
    voxels = ramp(4, 3, 2)
    header = f"NRRD0005\n# made by hand\ntype: int16\ndimension: 3\nsizes: 2 3 4\n{geometry}\n"
    path.write_bytes(f"{header}encoding: raw\nendian: little\n\n".encode() + voxels.tobytes())
    assert_agrees_with_itk(read_study(path).images[0], sitk.ReadImage(str(path)))


def test_dicom_series_lies_where_itk_says(tmp_path, columns):
    spacing = np.linalg.norm(columns, axis=0)
    across, down, through = (columns / spacing).T
    folder = write_series(
        tmp_path / "series",
        ramp(4, 3, 5),
        directions=(across, down),
        spacing_mm=spacing[:2],
        origin=ORIGIN,
        step=through * spacing[2],
        SliceThickness=9.0,
    )
    (image,) = read_study(folder).images
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    assert_agrees_with_itk(image, reader.Execute())


def test_each_slice_of_a_tilted_gantry_lies_where_itk_says(tmp_path):
    voxels = ramp(4, 3, 5)
    folder = write_series(
        tmp_path / "tilted",
        voxels,
        spacing_mm=(0.5, 0.7),
        origin=ORIGIN,
        step=GANTRY_TILT[:, 2],
        GantryDetectorTilt=16.7,
    )
    (image,) = read_study(folder).images
    np.testing.assert_allclose(image.affine, TO_RAS @ affine_of(GANTRY_TILT), atol=1e-6)
    for path in folder.iterdir():
        reference = sitk.ReadImage(str(path))
        pixels = sitk.GetArrayViewFromImage(reference)[0]
        (k,) = (k for k in range(4) if (image.voxels[k] == pixels).all())
        lps = reference.TransformIndexToPhysicalPoint((4, 2, 0))
        np.testing.assert_allclose((TO_RAS @ image.affine @ (4, 2, k, 1))[:3], lps, atol=1e-4)


def test_slices_are_sorted_by_position_not_by_name_or_number(tmp_path):
    folder = write_series(tmp_path / "s", ramp(9, 2, 2), step=(0, 0, 2.5), origin=(0, 0, -40))
    (image,) = read_study(folder).images
    np.testing.assert_array_equal(image.voxels, ramp(9, 2, 2))
    np.testing.assert_allclose(image.affine[2], (0, 0, 2.5, -40))


def test_head_to_feet_series_gives_the_same_places_as_feet_to_head(tmp_path):
    voxels = ramp(5, 3, 3)
    up = write_series(tmp_path / "up", voxels, origin=(0, 0, 10), step=(0, 0, 3))
    down = write_series(tmp_path / "down", voxels[::-1], origin=(0, 0, 22), step=(0, 0, -3))
    for value in (0, 17, 44):
        places = [place_of(read_study(folder).images[0], value) for folder in (up, down)]
        np.testing.assert_allclose(*places)


def test_pixel_spacing_rows_come_first_in_dicom(tmp_path):
    folder = write_series(tmp_path / "s", ramp(2, 4, 3), spacing_mm=(0.5, 0.8))
    np.testing.assert_allclose(read_study(folder).images[0].spacing_mm, (0.5, 0.8, 1.0))


def test_lone_slice_takes_its_thickness_as_spacing(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm",
        ramp(3, 4),
        ImagePositionPatient=[1, 2, 3],
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
        PixelSpacing=[0.8, 0.5],
        SliceThickness=4,
    )
    (image,) = read_study(path).images
    expected_lps = np.array([[0, 0, -4, 1], [0.5, 0, 0, 2], [0, -0.8, 0, 3], [0, 0, 0, 1]])
    np.testing.assert_allclose(image.affine, TO_RAS @ expected_lps)


def marked_on_the_left():
    """A volume (D, H, W) in LPS order, bright in the last column: the patient's left."""
    voxels = np.zeros((3, 4, 5), np.int16)
    voxels[1, 2, 4] = 100
    return voxels


def test_left_stays_left_in_every_format(tmp_path):
    voxels = marked_on_the_left()
    origin_lps = np.array([-10.0, -10.0, 0.0])
    columns = np.diag([5.0, 5.0, 5.0])
    paths = [
        write_series(
            tmp_path / "dicom", voxels, spacing_mm=(5, 5), origin=origin_lps, step=(0, 0, 5)
        ),
        write_nifti(tmp_path / "a.nii.gz", voxels, TO_RAS @ affine_of(columns, origin_lps)),
    ]
    for name in ("a.nrrd", "a.mha"):
        paths.append(tmp_path / name)
        sitk.WriteImage(itk_image(voxels, columns, origin_lps), str(paths[-1]))
    for path in paths:
        np.testing.assert_allclose(place_of(read_study(path).images[0], 100), (-10, 0, 5))


def test_left_stays_left_after_a_nifti_round_trip(tmp_path):
    folder = write_series(tmp_path / "dicom", marked_on_the_left(), origin=(-2, 0, 0))
    (first,) = read_study(folder).images
    write_nifti(tmp_path / "a.nii.gz", first.voxels, first.affine)
    (second,) = read_study(tmp_path / "a.nii.gz").images
    np.testing.assert_array_equal(first.voxels, second.voxels)
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-6)
    assert place_of(second, 100)[0] < 0


def test_left_of_a_reoriented_volume_stays_left(tmp_path):
    """The same head stored from left to right and from right to left."""
    voxels = marked_on_the_left()
    affine = affine_of(np.diag([-5.0, -5.0, 5.0]), np.array([10.0, 10.0, 0.0]))
    mirrored = affine @ np.diag([-1.0, 1, 1, 1])
    mirrored[:3, 3] = affine[:3] @ (4, 0, 0, 1)
    write_nifti(tmp_path / "a.nii", voxels, affine)
    write_nifti(tmp_path / "b.nii", np.ascontiguousarray(voxels[:, :, ::-1]), mirrored)
    places = [place_of(read_study(tmp_path / name).images[0], 100) for name in ("a.nii", "b.nii")]
    np.testing.assert_allclose(places[0], places[1])
    assert places[0][0] < 0


def test_radiograph_lies_as_itk_shows_it(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm",
        ramp(3, 4, dtype=np.uint16),
        Modality="DX",
        ImagerPixelSpacing=[0.3, 0.2],
    )
    (image,) = read_study(path).images
    np.testing.assert_allclose(image.affine, np.diag([-0.2, -0.3, 1, 1]))
    assert image.calibrated


def enhanced(voxels, positions_mm, tmp_path, **tags):
    """A multi-frame file whose frames are given in any order, each with its position."""
    from pydicom.dataset import Dataset

    def group(sequence, **values):
        item, holder = Dataset(), Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        setattr(holder, sequence, [item])
        return holder

    shared = group("PlaneOrientationSequence", ImageOrientationPatient=list(np.ravel(AXIAL)))
    shared.update(group("PixelMeasuresSequence", PixelSpacing=[0.8, 0.5], SliceThickness=3))
    frames = []
    for z, slope in positions_mm:
        frame = group("PlanePositionSequence", ImagePositionPatient=[1, 2, z])
        values = dict(RescaleSlope=slope, RescaleIntercept=-1000)
        frame.update(group("PixelValueTransformationSequence", **values))
        frames.append(frame)
    return write_dicom(
        tmp_path / "enhanced.dcm",
        voxels,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
        **tags,
    )


def test_multi_frame_file_is_sorted_by_its_per_frame_positions(tmp_path):
    path = enhanced(ramp(3, 2, 2), [(9, 1), (3, 1), (6, 1)], tmp_path)
    (image,) = read_study(path).images
    np.testing.assert_array_equal(image.voxels[:, 0, 0], np.array([4, 8, 0]) - 1000)
    np.testing.assert_allclose(
        image.affine, [[-0.5, 0, 0, -1], [0, -0.8, 0, -2], [0, 0, 3, 3], [0, 0, 0, 1]]
    )
    assert image.hounsfield


def test_multi_frame_file_applies_each_frames_own_rescale(tmp_path):
    path = enhanced(ramp(2, 2, 2), [(0, 0.5), (3, 2)], tmp_path)
    (image,) = read_study(path).images
    assert image.voxels.dtype == np.float32
    np.testing.assert_allclose(image.voxels.ravel(), np.r_[0:2:0.5, 8:16:2] - 1000)


def nifti_ct_and_its_dicom(kit):
    volumes = kit / "volumes"
    return (
        read_study(volumes / "ct_abdomen_pelvis.nii.gz").images[0],
        read_study(volumes / "ct_abdomen_pelvis_dicom_derived.zip").images[0],
    )


def test_real_ct_is_the_same_from_nifti_and_from_dicom(kit):
    nifti, dicom = nifti_ct_and_its_dicom(kit)
    # Which stored axis of the one is which of the other, and in which direction.
    to_other = np.linalg.inv(dicom.affine) @ nifti.affine
    turn = np.rint(to_other[:3, :3]).astype(int)
    np.testing.assert_allclose(to_other[:3, :3], turn, atol=1e-3)
    assert (np.abs(turn).sum(0) == 1).all()
    axes = np.abs(turn).argmax(1)
    voxels = nifti.voxels.transpose(2, 1, 0).transpose(axes)
    for axis in range(3):
        if turn[axis].sum() < 0:
            voxels = np.flip(voxels, axis)
    np.testing.assert_array_equal(voxels, dicom.voxels.transpose(2, 1, 0))
    first = to_other @ (0, 0, 0, 1)
    last = to_other @ (*np.array(nifti.voxels.shape[::-1]) - 1, 1)
    np.testing.assert_allclose(np.minimum(first, last)[:3], 0, atol=0.01)


def test_real_ct_looks_like_hounsfield_in_both_formats(kit):
    nifti, dicom = nifti_ct_and_its_dicom(kit)
    assert nifti.hounsfield and dicom.hounsfield
    assert (nifti.modality, dicom.modality) == (None, "CT")


def test_real_volumes_lie_where_nibabel_says(kit):
    paths = sorted((kit / "volumes").glob("*.nii.gz"))
    assert paths
    for path in paths:
        assert_agrees_with_nibabel(read_study(path).images[0], path)


@pytest.mark.parametrize("name", ["ct_abdomen_dicom.zip", "mr_head_neck_t1_dicom.zip"])
def test_real_dicom_series_lie_where_itk_says(kit, tmp_path, name):
    import zipfile

    with zipfile.ZipFile(kit / "volumes" / name) as archive:
        archive.extractall(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    assert_agrees_with_itk(read_study(kit / "volumes" / name).images[0], reader.Execute())
