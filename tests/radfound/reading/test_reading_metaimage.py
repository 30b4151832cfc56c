"""MetaImage by its specification: values and places beside ITK, which 3D Slicer reads with."""

import gzip
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from radfound.exceptions import (
    GeometryError,
    StudyAmbiguousError,
    StudyTooLargeError,
    StudyUnreadableError,
)
from radfound.reading import read_study

from ..miniature import ramp, refusal, voxels_of

VOXELS = ramp(4, 3, 2)
RAW = VOXELS.tobytes()
BIG = VOXELS.astype(">i2").tobytes()


def write_metaimage(path, *lines, data=RAW, newline="\n", **changes):
    """Write a header of the usual fields, changed or left out (None), and further lines."""
    fields = {
        "ObjectType": "Image",
        "NDims": 3,
        "DimSize": "2 3 4",
        "ElementType": "MET_SHORT",
        **changes,
    }
    place = fields.pop("ElementDataFile", "LOCAL")
    header = [f"{key} = {value}" for key, value in fields.items() if value is not None]
    text = newline.join([*header, *lines, f"ElementDataFile = {place}"]) + newline
    path.write_bytes(text.encode() + (data if place.upper() == "LOCAL" else b""))
    return path


def assert_agrees_with_itk(path):
    reference = sitk.ReadImage(str(path))
    (image,) = read_study(path).images
    np.testing.assert_array_equal(image.voxels, sitk.GetArrayViewFromImage(reference))
    for corner in np.vstack([np.zeros(3, int), np.eye(3, dtype=int)]).tolist():
        x, y, z = reference.TransformIndexToPhysicalPoint(corner)
        np.testing.assert_allclose((image.affine @ (*corner, 1))[:3], (-x, -y, z), atol=1e-6)


PLACE = {
    "TransformMatrix": "0 1 0 -1 0 0 0 0 1",
    "ElementSpacing": "1 2 3",
    "Offset": "5 6 7",
}


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"TransformMatrix": "Rotation"},
        {"TransformMatrix": "Orientation"},
        {"Offset": "Position"},
        {"Offset": "Origin"},
        {"ElementSpacing": "ElementSize"},
    ],
    ids=str,
)
def test_each_name_of_the_place_is_known(tmp_path, names):
    fields = {names.get(key, key): value for key, value in PLACE.items()}
    assert_agrees_with_itk(write_metaimage(tmp_path / "a.mha", **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {**PLACE, "ElementSize": "4 5 6"},
        {"ElementSize": "4 5 6", **PLACE},
        {**PLACE, "CenterOfRotation": "1 2 3", "AnatomicalOrientation": "RAI"},
        {**PLACE, "AnatomicalOrientation": "LPS"},
        {**PLACE, "ElementSpacing": "-1 2 3"},
        {**PLACE, "TransformMatrix": "2 0 0 0 2 0 0 0 2"},
        {**PLACE, "DistanceUnits": "um"},
        {"ElementToIntensityFunctionSlope": 2, "ElementToIntensityFunctionOffset": 5},
        {"ElementMin": 0, "ElementMax": 5},
    ],
    ids=str,
)
def test_header_is_understood_as_itk_does(tmp_path, fields):
    assert_agrees_with_itk(write_metaimage(tmp_path / "a.mha", **fields))


@pytest.mark.parametrize(
    "value", ["0 0 0 0 0 0 0 0 0", "1 0 0 0 1 0", "1 0 0 0 1 0 0 0 x", "nan 0 0 0 1 0 0 0 1"]
)
def test_place_that_is_none_is_refused(tmp_path, value):
    refusal(GeometryError, write_metaimage(tmp_path / "a.mha", TransformMatrix=value))


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ({"BinaryDataByteOrderMSB": "True"}, BIG),
        ({"ElementByteOrderMSB": "True"}, BIG),
        ({"BinaryDataByteOrderMSB": "T"}, BIG),
        ({"BinaryDataByteOrderMSB": "1"}, BIG),
        ({"BinaryDataByteOrderMSB": "False"}, RAW),
        ({"ElementByteOrderMSB": "True", "BinaryDataByteOrderMSB": "False"}, RAW),
        ({"CompressedData": "True"}, zlib.compress(RAW)),
        ({"CompressedData": "True", "CompressedDataSize": 5}, zlib.compress(RAW)),
        ({"CompressedData": "True"}, gzip.compress(RAW)),
        ({"BinaryData": "False"}, " ".join(map(str, VOXELS.ravel())).encode()),
        ({"BinaryData": "True"}, RAW + b"more"),
        ({"HeaderSize": -1}, b"junk" + RAW),
    ],
    ids=str,
)
def test_voxels_are_read_however_they_are_stored(tmp_path, fields, data):
    path = write_metaimage(tmp_path / "a.mha", data=data, **fields)
    np.testing.assert_array_equal(voxels_of(path), VOXELS)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("first", ["Comment = a: b = c", "BinaryData = True", "Name = x", "ID = 1"])
def test_header_may_begin_with_any_field(tmp_path, newline, first):
    path = tmp_path / "a.mha"
    write_metaimage(path, newline=newline)
    path.write_bytes(f"{first}{newline}".encode() + path.read_bytes())
    np.testing.assert_array_equal(voxels_of(path), VOXELS)


TYPES = {
    "CHAR": "i1",
    "UCHAR": "u1",
    "SHORT": "i2",
    "USHORT": "u2",
    "INT": "i4",
    "UINT": "u4",
    "LONG": "i4",
    "ULONG": "u4",
    "LONG_LONG": "i8",
    "ULONG_LONG": "u8",
    "FLOAT": "f4",
    "DOUBLE": "f8",
}


@pytest.mark.parametrize("name", TYPES)
def test_each_type_is_the_one_that_itk_reads(tmp_path, name):
    data = VOXELS.astype(TYPES[name]).tobytes()
    assert_agrees_with_itk(
        write_metaimage(tmp_path / "a.mha", ElementType=f"MET_{name}", data=data)
    )


@pytest.mark.parametrize("suffix", ["", "_ARRAY"])
def test_channels_are_asked_for(tmp_path, suffix):
    path = write_metaimage(
        tmp_path / "a.mha",
        ElementNumberOfChannels=3,
        DimSize="2 2 2",
        ElementType=f"MET_SHORT{suffix}",
    )
    assert "3 volumes" in refusal(StudyAmbiguousError, path)
    np.testing.assert_array_equal(voxels_of(path, volume=1).ravel(), range(1, 24, 3))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"ObjectType": "Mesh"}, "ObjectType Mesh"),
        ({"NDims": 2}, "garbles NDims"),
        ({"NDims": 1, "DimSize": 24}, "garbles NDims"),
        ({"DimSize": None}, "garbles 'DimSize'"),
        ({"ElementType": "MET_STRING"}, "garbles 'MET_STRING'"),
        ({"ElementType": "MET_OTHER"}, "garbles 'MET_OTHER'"),
        ({"ElementNumberOfChannels": 0}, "garbles NDims"),
        ({"HeaderSize": 8}, "HeaderSize 8 and voxels in the same file"),
        ({"BinaryData": "False"}, "can be read; expected 24"),
    ],
    ids=str,
)
def test_header_that_cannot_be_understood_is_refused(tmp_path, changes, found):
    assert found in refusal(StudyUnreadableError, write_metaimage(tmp_path / "a.mha", **changes))


def test_many_channels_of_a_small_file_are_refused(tmp_path):
    path = write_metaimage(tmp_path / "a.mha", DimSize="2 3 4", ElementNumberOfChannels=10**9)
    refusal(StudyTooLargeError, path)


# In other files


def write_parts(folder, pack=bytes):
    for part in range(4):
        (folder / f"s{part:02}.raw").write_bytes(pack(RAW[part * 12 : part * 12 + 12]))
    return "\n".join(f"s{part:02}.raw" for part in range(4))


@pytest.mark.parametrize(
    ("header_size", "data"), [(0, RAW), (4, b"head" + RAW), (-1, b"head" + RAW)]
)
def test_header_of_the_voxel_file_is_skipped(tmp_path, header_size, data):
    (tmp_path / "a.raw").write_bytes(data)
    path = tmp_path / "a.mhd"
    write_metaimage(path, HeaderSize=header_size, ElementDataFile="a.raw")
    assert_agrees_with_itk(path)


@pytest.mark.parametrize("place", ["LIST", "LIST 2", "s%02d.raw 0 3 1"])
@pytest.mark.parametrize("packed", [False, True])
def test_slices_in_a_file_each_are_read(tmp_path, place, packed):
    names = write_parts(tmp_path, zlib.compress if packed else bytes)
    path = tmp_path / "a.mhd"
    write_metaimage(path, CompressedData=packed, ElementDataFile=place)
    path.write_text(path.read_text() + names)
    np.testing.assert_array_equal(voxels_of(path), VOXELS)


def test_missing_slice_of_a_list_is_refused(tmp_path):
    names = write_parts(tmp_path).splitlines()
    path = write_metaimage(tmp_path / "a.mhd", ElementDataFile="LIST")
    path.write_text(path.read_text() + "\n".join(names[:3]))
    assert "s00.raw: the file is truncated" in refusal(StudyUnreadableError, path)


@pytest.mark.parametrize(
    ("said", "modality", "hounsfield"),
    [
        ("MET_MOD_MR", "MR", False),
        ("MET_MOD_CT", "CT", True),
        ("MET_MOD_NM", "NM", False),
        ("MET_MOD_UNKNOWN", None, True),
        ("MET_MOD_OTHER", None, True),
    ],
)
def test_modality_in_the_header_counts(tmp_path, said, modality, hounsfield):
    values = np.where(VOXELS % 3, 40, -1000).astype(np.int16)
    path = write_metaimage(tmp_path / "a.mha", Modality=said, data=values.tobytes())
    (image,) = read_study(path).images
    assert (image.modality, image.hounsfield) == (modality, hounsfield)
