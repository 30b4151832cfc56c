"""NIfTI by its specification: values beside nibabel, places beside ITK, which 3D Slicer reads with."""

import gzip
import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from radfound.exceptions import (
    GeometryError,
    IntensityError,
    StudyAmbiguousError,
    StudyUnreadableError,
)
from radfound.reading import read_study

from ..miniature import ramp, refusal, rotation, voxels_of

SHAPE = (3, 4, 5)
KINDS = {1: nibabel.Nifti1Header, 2: nibabel.Nifti2Header}


def write_nifti(path, *, version=1, order="<", extension=b"", voxels=None, **fields):
    """Write a file of one header whose fields are just those given."""
    header = KINDS[version](endianness=order)
    header["dim"][: len(SHAPE) + 1] = (len(SHAPE), *SHAPE)
    header["pixdim"][1:4] = (2, 3, 4)
    header["datatype"], header["bitpix"] = 4, 16
    header["magic"] = b"n+1" if version == 1 else b"n+2"
    header["vox_offset"] = header.single_vox_offset + len(extension)
    for field, value in fields.items():
        if isinstance(value, dict):
            for place, one in value.items():
                header[field][place] = one
        else:
            header[field] = value
    if voxels is None:
        voxels = ramp(*SHAPE[::-1], dtype=f"{order}i2")
    path.parent.mkdir(exist_ok=True)
    content = header.binaryblock + (b"\1\0\0\0" if extension else bytes(4)) + extension
    content += voxels.tobytes()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


# Where it lies


def form(matrix, offset=(5, -6, 7)):
    rows = np.hstack([matrix, np.reshape(offset, (3, 1))])
    return {"srow_x": rows[0], "srow_y": rows[1], "srow_z": rows[2]}


SCALED = np.diag([2.0, 3.0, 4.0])
TURNED = rotation((1, 2, 3), 25) @ SCALED
QUATERNION = {"quatern_b": 0.3, "quatern_c": -0.2, "quatern_d": 0.5}
OFFSET = {"qoffset_x": 1, "qoffset_y": 20, "qoffset_z": -3}
PLACES = {
    "no form": {},
    "no form, metres": {"xyzt_units": 1},
    "no form, microns and seconds": {"xyzt_units": 3 | 8},
    "no form, unknown unit": {"xyzt_units": 5},
    "no form, other leftovers": {**form(TURNED), **QUATERNION, **OFFSET},
    "negative codes": {"qform_code": -1, "sform_code": -1, **form(TURNED)},
    "qform": {"qform_code": 1, **QUATERNION, **OFFSET},
    "qform, metres": {"qform_code": 1, "xyzt_units": 1, **QUATERNION, **OFFSET},
    "qform, qfac 0": {"qform_code": 1, "pixdim": {0: 0}, **QUATERNION},
    "qform, qfac -1": {"qform_code": 1, "pixdim": {0: -1}, **QUATERNION},
    "qform of a half turn": {"qform_code": 2, "quatern_c": 1.00001},
    "qform too long": {"qform_code": 1, "quatern_b": 1, "quatern_d": 1},
    "sform": {"sform_code": 1, **form(TURNED)},
    "sform of the atlas": {"sform_code": 4, **form(TURNED)},
    "sform of an unknown code": {"sform_code": 7, **form(TURNED)},
    "sform, microns": {"sform_code": 1, "xyzt_units": 3, **form(TURNED)},
    "sform that mirrors": {"sform_code": 2, **form(TURNED @ np.diag([-1, 1, 1]))},
    "sform of another scale than pixdim": {"sform_code": 1, **form(rotation((1, 2, 3), 25))},
    "scanner's sform and qform": {"sform_code": 1, "qform_code": 1, **form(TURNED), **QUATERNION},
    "other sform and qform": {"sform_code": 2, "qform_code": 1, **form(TURNED), **QUATERNION},
    "sheared sform and qform": {
        "sform_code": 1,
        "qform_code": 1,
        **form(SCALED + np.eye(3, k=1)),
        **QUATERNION,
    },
    "empty sform and qform": {"sform_code": 1, "qform_code": 1, **QUATERNION},
    "one slice, no thickness": {
        "dim": {3: 1},
        "pixdim": {3: 0},
        "qform_code": 1,
        **QUATERNION,
        **OFFSET,
    },
}


def assert_lies_where_itk_says(path):
    reference = sitk.ReadImage(str(path))
    (image,) = read_study(path).images
    for corner in itertools.product(*((0, size - 1) for size in reference.GetSize())):
        x, y, z = reference.TransformIndexToPhysicalPoint(corner)
        found = (image.affine @ (*corner, 1))[:3]
        np.testing.assert_allclose(found, (-x, -y, z), rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("fields", PLACES.values(), ids=PLACES.keys())
def test_nifti_lies_where_slicer_puts_it(tmp_path, fields):
    assert_lies_where_itk_says(write_nifti(tmp_path / "a.nii", **fields))


@pytest.mark.parametrize("fields", PLACES.values(), ids=PLACES.keys())
def test_nifti_2_lies_where_the_same_nifti_1_does(tmp_path, fields):
    one = read_study(write_nifti(tmp_path / "a.nii", **fields)).images[0]
    two = read_study(write_nifti(tmp_path / "b.nii", version=2, order=">", **fields)).images[0]
    np.testing.assert_allclose(one.affine, two.affine, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(one.voxels, two.voxels)


def test_picture_in_a_nifti_lies_in_slicers_axial_plane(tmp_path):
    path = write_nifti(tmp_path / "a.nii", dim={0: 2, 3: 1}, qform_code=1, quatern_d=1, **OFFSET)
    (image,) = read_study(path).images
    np.testing.assert_allclose(
        image.affine, [[-2, 0, 0, 1], [0, -3, 0, 20], [0, 0, 1, 0], [0, 0, 0, 1]], atol=1e-6
    )


def test_nifti_whose_forms_are_mirror_images_is_refused(tmp_path):
    mirrored = form(np.diag([-2.0, 3, 4]), (0, 0, 0))
    path = write_nifti(tmp_path / "a.nii", qform_code=1, sform_code=2, **mirrored)
    assert "qform and sform are mirror images" in refusal(GeometryError, path)


@pytest.mark.parametrize("size", [0, -2, np.nan, np.inf])
@pytest.mark.parametrize("code", ["qform_code", "sform_code", "slice_code"])
def test_voxels_without_a_size_are_refused(tmp_path, size, code):
    path = write_nifti(tmp_path / "a.nii", pixdim={2: size}, **{code: 1}, **form(SCALED))
    assert "spacing of voxels (pixdim) is 2 x" in refusal(GeometryError, path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_quaternion_that_is_no_number_is_refused(tmp_path, value):
    path = write_nifti(tmp_path / "a.nii", qform_code=1, quatern_b=value)
    assert "NaN or infinity" in refusal(GeometryError, path)


# What it holds


TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"} | {
    1024: "i8",
    1280: "u8",
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("code", "dtype"), TYPES.items())
@pytest.mark.parametrize("scale", [(0, 5), (1, 0), (2, -7), (0.5, 3), (np.nan, 3), (np.inf, 0)])
def test_values_are_those_of_nibabel(tmp_path, order, code, dtype, scale):
    limits = np.iinfo(dtype) if dtype[0] in "iu" else np.finfo("f4")
    voxels = ramp(*SHAPE[::-1]).astype(order + dtype)
    voxels.flat[:2] = int(limits.min) // 4, int(limits.max) // 4
    slope, intercept = scale
    fields = dict(datatype=code, bitpix=voxels.itemsize * 8, scl_slope=slope, scl_inter=intercept)
    path = write_nifti(tmp_path / "a.nii", order=order, voxels=voxels, **fields)
    found = voxels_of(path).transpose(2, 1, 0)
    expected = np.asanyarray(nibabel.load(path).dataobj)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("code", "channels"), [(128, 3), (2304, 4)])
def test_colour_becomes_luminance(tmp_path, code, channels):
    voxels = np.zeros((*SHAPE[::-1], channels), "u1")
    voxels[0, 0, 1, :3] = (255, 255, 0)
    path = write_nifti(tmp_path / "a.nii", datatype=code, voxels=voxels, scl_slope=3)
    assert voxels_of(path).ravel()[:3].tolist() == [0, 226, 0]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (1, "single bits"),
        (32, "complex numbers"),
        (1536, "128-bit floats"),
        (1792, "complex numbers"),
        (2048, "complex numbers"),
        (0, "voxels of no known kind"),
        (999, "voxels of no known kind"),
    ],
)
def test_type_that_is_not_read_is_named(tmp_path, code, found):
    path = write_nifti(tmp_path / "a.nii", datatype=code, voxels=np.zeros(32 * 60, "u1"))
    assert f"holds {found} (NIfTI data type {code})" in refusal(StudyUnreadableError, path)


def test_intercept_that_is_no_number_is_refused(tmp_path):
    refusal(IntensityError, write_nifti(tmp_path / "a.nii", scl_slope=2, scl_inter=np.nan))


def test_values_with_another_intent_are_no_hounsfield_units(tmp_path):
    voxels = np.full(SHAPE[::-1], -1000, "i2")
    voxels[1:4, 1:3, 1:] = 40
    for intent, right in ((0, True), (3, False), (1002, False)):
        path = write_nifti(tmp_path / f"{intent}.nii", voxels=voxels, intent_code=intent)
        assert read_study(path).images[0].hounsfield == right


# How it is stored


@pytest.mark.parametrize("size", [0, 8, 176, 184, 400, 5000, 300_000])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("version", KINDS)
def test_header_extension_of_any_length_is_passed_over(tmp_path, size, name, version):
    extension = (size + 8).to_bytes(4, "little") + b"\4\0\0\0" + b"x" * size
    path = write_nifti(tmp_path / name, version=version, extension=extension)
    np.testing.assert_array_equal(voxels_of(path), ramp(*SHAPE[::-1]))


@pytest.mark.parametrize(
    "extension",
    [bytes(7), b"\xff\xff\xff\x7f\4\0\0\0", b"\0\0\0\0\4\0\0\0", b"\xf0\xff\xff\xff" * 5],
    ids=["no multiple of 16", "too long", "empty", "negative"],
)
def test_damaged_header_extension_does_not_disturb(tmp_path, extension):
    path = write_nifti(tmp_path / "a.nii", extension=extension)
    np.testing.assert_array_equal(voxels_of(path), ramp(*SHAPE[::-1]))


def test_voxels_said_to_begin_at_0_begin_behind_the_header(tmp_path):
    path = write_nifti(tmp_path / "a.nii", vox_offset=0)
    np.testing.assert_array_equal(voxels_of(path), ramp(*SHAPE[::-1]))


@pytest.mark.parametrize("offset", [1, 347, -352, np.nan, np.inf, 1e30])
def test_voxels_inside_the_header_or_nowhere_are_refused(tmp_path, offset):
    path = write_nifti(tmp_path / "a.nii", vox_offset=offset)
    assert "voxels begin at byte" in refusal(StudyUnreadableError, path)


def test_voxels_beyond_the_header_are_left_alone(tmp_path):
    path = write_nifti(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes() + b"more")
    np.testing.assert_array_equal(voxels_of(path), ramp(*SHAPE[::-1]))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_voxels_fewer_than_the_header_says_are_refused(tmp_path, name):
    path = write_nifti(tmp_path / name, voxels=ramp(59))
    assert "118 bytes of voxels where the header promises 120" in refusal(
        StudyUnreadableError, path
    )


@pytest.mark.parametrize("dimension", [-1, 0, 1, 8, 30_000])
def test_impossible_number_of_axes_is_refused(tmp_path, dimension):
    path = write_nifti(tmp_path / "a.nii", dim={0: dimension})
    assert f"the header says {dimension} axes" in refusal(StudyUnreadableError, path)


@pytest.mark.parametrize("dim", [{0: 4, 4: 0}, {0: 5, 4: 1, 5: 1}, {0: 7, 4: 1, 5: 0, 6: 1, 7: 0}])
def test_axes_of_no_length_count_as_one(tmp_path, dim):
    path = write_nifti(tmp_path / "a.nii", dim=dim)
    np.testing.assert_array_equal(voxels_of(path), ramp(*SHAPE[::-1]))


@pytest.mark.parametrize("dim", [{1: 0}, {1: -3}, {2: 0}, {0: 4, 4: -1}])
def test_axes_that_hold_nothing_are_refused(tmp_path, dim):
    assert "voxels" in refusal(StudyUnreadableError, write_nifti(tmp_path / "a.nii", dim=dim))


def test_one_component_of_a_vector_is_chosen(tmp_path):
    voxels = ramp(3, *SHAPE[::-1])
    path = write_nifti(tmp_path / "a.nii", dim={0: 5, 4: 1, 5: 3}, intent_code=1007, voxels=voxels)
    refusal(StudyAmbiguousError, path)
    np.testing.assert_array_equal(voxels_of(path, volume=2), voxels[2])


# Pairs of files, and what only looks like NIfTI


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ("a.hdr", "a.img"),
        ("a.hdr", "a.img.gz"),
        ("a.hdr.gz", "a.img.gz"),
        ("A.HDR", "A.IMG"),
        ("a.nii.hdr", "a.nii.img"),
    ],
)
@pytest.mark.parametrize("version", KINDS)
@pytest.mark.parametrize("offset", [0, 16])
def test_pair_of_header_and_voxels_is_read(tmp_path, header, data, version, offset):
    voxels = bytes(offset) + ramp(*SHAPE[::-1]).tobytes()
    (tmp_path / data).write_bytes(gzip.compress(voxels) if data.endswith(".gz") else voxels)
    write_nifti(
        tmp_path / header,
        version=version,
        magic=b"ni1" if version == 1 else b"ni2",
        vox_offset=offset,
    )
    for given in (tmp_path / header, tmp_path):
        np.testing.assert_array_equal(voxels_of(given), ramp(*SHAPE[::-1]))


def test_header_without_its_voxels_says_which_file_is_missing(tmp_path):
    path = write_nifti(tmp_path / "a.hdr", magic=b"ni1")
    assert "expected 'a.img' in the same folder" in refusal(StudyUnreadableError, path)


def test_header_of_the_longest_name_is_refused_like_any_other(tmp_path):
    path = write_nifti(tmp_path / f"{'x' * 250}.hdr", magic=b"ni1")
    assert ".img' in the same folder" in refusal(StudyUnreadableError, path)


@pytest.mark.parametrize("order", "<>")
def test_analyze_is_refused_as_it_does_not_say_which_side_is_left(tmp_path, order):
    header = nibabel.AnalyzeHeader(endianness=order)
    header.set_data_shape(SHAPE)
    (tmp_path / "a.hdr").write_bytes(header.binaryblock)
    (tmp_path / "a.img").write_bytes(bytes(60 * 4))
    assert "Analyze 7.5 header, which does not say which side is left" in refusal(
        StudyUnreadableError, tmp_path / "a.hdr"
    )


def test_cifti_is_refused_by_its_name(tmp_path):
    path = write_nifti(tmp_path / "a.dconn.nii", version=2, intent_code=3001)
    assert "a CIFTI file" in refusal(StudyUnreadableError, path)
