"""NRRD by its specification: values and places beside ITK, which 3D Slicer reads with."""

import bz2
import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from radfound.exceptions import (
    GeometryError,
    StudyAmbiguousError,
    StudyError,
    StudyUnreadableError,
)
from radfound.reading import read_study

from ..miniature import ramp, refusal, voxels_of

VOXELS = ramp(4, 3, 2)
RAW = VOXELS.tobytes()
TEXT = " ".join(map(str, VOXELS.ravel())).encode()
HEX = RAW.hex().encode()


def write_nrrd(path, *lines, data=RAW, magic="NRRD0005", newline="\n", **changes):
    """Write a header of the usual fields, changed or left out (None), and further lines."""
    fields = {
        "type": "int16",
        "dimension": 3,
        "sizes": "2 3 4",
        "encoding": "raw",
        "endian": "little",
        **changes,
    }
    header = [magic, *(f"{key}: {value}" for key, value in fields.items() if value is not None)]
    path.write_bytes((newline.join([*header, *lines]) + newline * 2).encode() + data)
    return path


def assert_agrees_with_itk(path):
    reference = sitk.ReadImage(str(path))
    (image,) = read_study(path).images
    np.testing.assert_array_equal(image.voxels, sitk.GetArrayViewFromImage(reference))
    for corner in np.vstack([np.zeros(3, int), np.eye(3, dtype=int)]).tolist():
        x, y, z = reference.TransformIndexToPhysicalPoint(corner)
        np.testing.assert_allclose((image.affine @ (*corner, 1))[:3], (-x, -y, z), atol=1e-6)


DIRECTIONS = ("space directions: (1,0,0) (0,2,0) (0,.5,3)", "space origin: (5,6,7)")
SPACES = ["left-posterior-superior", "LPS", "RAS", "Right-Anterior-Superior", "LAS", "lps"]
SPACES += ["left-anterior-superior", "scanner-xyz", "3D-right-handed", "3D-left-handed"]


@pytest.mark.parametrize("space", SPACES)
def test_each_space_lies_where_slicer_puts_it(tmp_path, space):
    assert_agrees_with_itk(write_nrrd(tmp_path / "a.nrrd", f"space: {space}", *DIRECTIONS))


@pytest.mark.parametrize(
    "lines",
    [
        ("space dimension: 3", *DIRECTIONS),
        ("space: RAS", "space directions: ( 1, 0,0)  (0,2,0 ) (0,0,3)"),
        ("space: RAS", "space origin: (5,6,7)"),
        ("spacings: 1 2 3",),
        ("spacings: 1 -2 3",),
        ("spacings: 1 2 3", "axis mins: 5 6 7"),
        ("spacings: 1 2 3", "axismins: 5 6 7", "centers: node node node"),
        ("spacings: 1 2 3", "axis mins: 5 6 7", "centerings: cell node ???"),
        ("axis mins: 5 6 7", "axis maxs: 7 12 19"),
        ("axis mins: 5 6 7",),
        ("space: LPS", *DIRECTIONS, 'space units: "mm" "mm" "mm"', "kinds: space space time"),
        ("space: LPS", *DIRECTIONS, "measurement frame: (1,0,0) (0,-1,0) (0,0,1)"),
        ("# space: RAS", "space: LPS", *DIRECTIONS, "key:=value: x", "space:=RAS", "content: x"),
        ("thicknesses: 1 2 3", "old min: 0", "oldmax: 255", "number: 24"),
        ("SPACE: RAS", *DIRECTIONS),
    ],
    ids="; ".join,
)
def test_header_lies_where_slicer_puts_it(tmp_path, lines):
    assert_agrees_with_itk(write_nrrd(tmp_path / "a.nrrd", *lines))


AXES = {"none": "list", "(1,0,0)": "domain", "(0,2,0)": "domain", "(0,0,3)": "domain"}


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("none", ["none", "(nan,nan,nan)"])
def test_axis_that_is_no_direction_may_be_anywhere(tmp_path, place, none):
    vectors, sizes = ["(1,0,0)", "(0,2,0)", "(0,0,3)"], ["2", "3", "4"]
    kinds = ["domain"] * 3
    for words, extra in ((vectors, none), (sizes, "2"), (kinds, "list")):
        words.insert(place, extra)
    path = write_nrrd(
        tmp_path / "a.nrrd",
        "space: LPS",
        f"space directions: {' '.join(vectors)}",
        f"kinds: {' '.join(kinds)}",
        dimension=4,
        sizes=" ".join(sizes),
        data=ramp(48).tobytes(),
    )
    assert "2 volumes" in refusal(StudyAmbiguousError, path)
    stored = np.moveaxis(ramp(48).reshape([int(size) for size in sizes[::-1]]), 3 - place, 0)
    (image,) = read_study(path, volume=1).images
    np.testing.assert_array_equal(image.voxels, stored[1])
    np.testing.assert_allclose(image.affine, np.diag([-1, -2, 3, 1]))


@pytest.mark.parametrize("kind", ["RGB-color", "3-color", "vector", "3-gradient", "list"])
def test_colour_becomes_grey_and_other_vectors_are_asked_for(tmp_path, kind):
    path = write_nrrd(
        tmp_path / "a.nrrd",
        f"kinds: {kind} domain domain domain",
        type="uchar",
        dimension=4,
        sizes="3 2 2 1",
        data=bytes([255, 255, 0] + [0] * 9),
    )
    if "color" in kind:
        assert voxels_of(path).ravel().tolist() == [226, 0, 0, 0]
    else:
        assert "3 volumes" in refusal(StudyAmbiguousError, path)
        assert voxels_of(path, volume=2).ravel().tolist() == [0, 0, 0, 0]


def test_slice_with_directions_lies_in_space(tmp_path):
    path = write_nrrd(
        tmp_path / "a.nrrd",
        "space: LPS",
        "space directions: (2,0,0) (0,0,3)",
        "space origin: (5,6,7)",
        dimension=2,
        sizes="4 6",
    )
    expected = [[-2, 0, 0, -5], [0, 0, 1, -6], [0, 3, 0, 7], [0, 0, 0, 1]]
    np.testing.assert_allclose(read_study(path).images[0].affine, expected)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (("space: nonsense", *DIRECTIONS), "space 'nonsense'"),
        (("space: RAS", "spacings: 1 2 3"), "spacings beside a space"),
        (("space: RAS", "space directions: (1,0) (0,2) (1,3)"), "vectors of another length"),
        (("space: RAST", *DIRECTIONS), "vectors of another length"),
        (("space dimension: 2", *DIRECTIONS), "vectors of another length"),
        (("spacings: 1 2",), "cannot be understood (spacings)"),
        (("spacings: 1 nan 3",), "NaN or infinity"),
        (("space: LPS", "space directions: (1,0,0) (0,x,0) (0,0,3)"), "could not convert"),
    ],
)
def test_place_that_cannot_be_understood_is_refused(tmp_path, lines, found):
    path = write_nrrd(tmp_path / "a.nrrd", *lines)
    error = StudyUnreadableError if "convert" in found else GeometryError
    assert found in refusal(error, path)


# How it is stored


@pytest.mark.parametrize("magic", [*(f"NRRD000{version}" for version in range(1, 6)), "NRRD00.01"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_each_version_is_read(tmp_path, magic, newline):
    assert_agrees_with_itk(write_nrrd(tmp_path / "a.nrrd", magic=magic, newline=newline))


def test_unknown_version_is_refused(tmp_path):
    path = write_nrrd(tmp_path / "a.nrrd", magic="NRRD0006")
    assert "NRRD of an unknown version; expected 1 to 5" in refusal(StudyUnreadableError, path)


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("raw", RAW),
        ("gzip", gzip.compress(RAW)),
        ("gz", gzip.compress(RAW[:9]) + gzip.compress(RAW[9:])),
        ("bzip2", bz2.compress(RAW)),
        ("bz2", bz2.compress(RAW[:9]) + bz2.compress(RAW[9:])),
        ("ascii", TEXT),
        ("text", TEXT.replace(b" ", b"\r\n")),
        ("txt", TEXT.replace(b" ", b", ") + b"\n"),
        ("hex", HEX),
        ("hex", HEX.upper()[:40] + b"\n " + HEX[40:]),
    ],
)
def test_each_encoding_is_read(tmp_path, encoding, data):
    path = write_nrrd(tmp_path / "a.nrrd", encoding=encoding, data=data)
    np.testing.assert_array_equal(voxels_of(path), VOXELS)


@pytest.mark.parametrize(
    ("encoding", "data", "found"),
    [
        ("ascii", b"1 2 3", "in which 3 numbers can be read; expected 24"),
        ("ascii", TEXT.replace(b"11", b"x"), "in which 11 numbers"),
        ("ascii", TEXT.replace(b"11", b"99999"), "of type int16"),
        ("hex", HEX[:-2], "47 bytes of voxels where the header promises 48"),
        ("hex", HEX.replace(b"0", b"g"), "no hexadecimal digits"),
        ("lzma", RAW, "NRRD encoding lzma; expected raw, gzip"),
        (None, RAW, "NRRD encoding missing"),
    ],
)
def test_encoding_that_cannot_be_read_is_refused(tmp_path, encoding, data, found):
    path = write_nrrd(tmp_path / "a.nrrd", encoding=encoding, data=data)
    assert found in refusal(StudyUnreadableError, path)


@pytest.mark.parametrize(
    ("skips", "encoding", "data"),
    [
        (("line skip: 2", "byte skip: 3"), "raw", b"one\ntwo\nxyz" + RAW),
        (("byte skip: -1",), "raw", b"junk" + RAW),
        (("byte skip: -4",), "raw", b"junk" + RAW + b"end"),
        (("line skip: 1",), "gzip", b"one\n" + gzip.compress(RAW)),
        (("byte skip: 4",), "gzip", gzip.compress(b"junk" + RAW)),
        (("byte skip: -1",), "gzip", gzip.compress(b"junk" + RAW)),
        (("byte skip: -4",), "bzip2", bz2.compress(b"junk" + RAW + b"end")),
        (("line skip: 1",), "ascii", b"one\n" + TEXT),
        (("byte skip: 4",), "hex", b"junk" + HEX),
    ],
)
def test_skips_lead_to_the_voxels(tmp_path, skips, encoding, data):
    path = write_nrrd(tmp_path / "a.nrrd", *skips, encoding=encoding, data=data)
    np.testing.assert_array_equal(voxels_of(path), VOXELS)


@pytest.mark.parametrize("skip", ["9" * 30, "x", "-9"])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "ascii", "hex"])
def test_skip_beyond_the_data_is_refused(tmp_path, skip, encoding):
    data = {"gzip": gzip.compress(RAW), "ascii": TEXT[:40], "hex": HEX[:40]}.get(encoding, RAW)
    path = write_nrrd(tmp_path / "a.nrrd", f"byte skip: {skip}", encoding=encoding, data=data)
    with pytest.raises(StudyError):
        read_study(path)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "hex"])
def test_big_endian_is_read(tmp_path, encoding):
    data = VOXELS.astype(">i2").tobytes()
    data = {"raw": data, "gzip": gzip.compress(data), "hex": data.hex().encode()}[encoding]
    path = write_nrrd(tmp_path / "a.nrrd", encoding=encoding, endian="big", data=data)
    np.testing.assert_array_equal(voxels_of(path), VOXELS)


@pytest.mark.parametrize("endian", [None, "middle"])
def test_byte_order_is_needed_where_there_is_one(tmp_path, endian):
    path = write_nrrd(tmp_path / "a.nrrd", endian=endian)
    assert "expected little or big" in refusal(StudyUnreadableError, path)
    write_nrrd(path, endian=endian, encoding="ascii", data=TEXT)
    np.testing.assert_array_equal(voxels_of(path), VOXELS)
    write_nrrd(path, endian=endian, type="uchar", data=bytes(24))
    assert not voxels_of(path).any()


NAMES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t, SHORT",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}


@pytest.mark.parametrize("dtype", NAMES)
def test_each_name_of_a_type_is_known(tmp_path, dtype):
    for name in NAMES[dtype].split(", "):
        path = write_nrrd(tmp_path / "a.nrrd", type=name, data=VOXELS.astype(dtype).tobytes())
        np.testing.assert_array_equal(voxels_of(path), VOXELS)


@pytest.mark.parametrize("name", ["block", "long", "half", None])
def test_other_type_is_named(tmp_path, name):
    path = write_nrrd(tmp_path / "a.nrrd", "block size: 2", type=name)
    assert f"NRRD type {name or 'missing'!r}" in refusal(StudyUnreadableError, path)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"dimension": 2}, "garbles dimension"),
        ({"dimension": None}, "garbles 'dimension'"),
        ({"sizes": None}, "garbles 'sizes'"),
        ({"sizes": "2 3 x"}, "garbles invalid literal"),
        ({"sizes": "2 -3 4"}, "2 x -3 x 4 voxels"),
        ({"Type": "float"}, "says 'type' twice"),
    ],
)
def test_header_that_contradicts_itself_is_refused(tmp_path, changes, found):
    path = write_nrrd(tmp_path / "a.nrrd", **changes)
    assert found in refusal(StudyUnreadableError, path)


# In other files


def write_parts(folder, count, pack=bytes):
    size = len(RAW) // count
    for part in range(count):
        content = pack(RAW[part * size : (part + 1) * size])
        (folder / f"s{part:02}.raw").write_bytes(content)
    return [f"s{part:02}.raw" for part in range(count)]


@pytest.mark.parametrize("key", ["data file", "datafile", "Data File"])
def test_voxels_beside_the_header_are_read(tmp_path, key):
    write_parts(tmp_path, 1)
    path = write_nrrd(tmp_path / "a.nhdr", f"{key}: ./s00.raw", data=b"")
    assert_agrees_with_itk(path)


@pytest.mark.parametrize("count", [2, 4, 12])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_listed_files_are_read_in_their_order(tmp_path, count, encoding):
    names = write_parts(tmp_path, count, gzip.compress if encoding == "gzip" else bytes)
    path = tmp_path / "a.nhdr"
    write_nrrd(path, "data file: LIST", *names, encoding=encoding, data=b"")
    np.testing.assert_array_equal(voxels_of(path), VOXELS)


@pytest.mark.parametrize(
    ("pattern", "order"),
    [("s%02d.raw 0 3 1", 1), ("s%02d.raw 3 0 -1", -1), ("s0%i.raw 0 3 1 2", 1)],
)
def test_numbered_files_are_read_in_their_order(tmp_path, pattern, order):
    write_parts(tmp_path, 4)
    path = write_nrrd(tmp_path / "a.nhdr", f"data file: {pattern}", data=b"")
    np.testing.assert_array_equal(voxels_of(path), VOXELS[::order])


def test_each_file_is_skipped_into(tmp_path):
    names = write_parts(tmp_path, 4, lambda part: b"head" + part)
    path = write_nrrd(tmp_path / "a.nhdr", "byte skip: -1", "data file: LIST", *names, data=b"")
    np.testing.assert_array_equal(voxels_of(path), VOXELS)


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("s%d.raw 0 99999999 1", "for at most 50,000 files"),
        ("s%d.raw 0 3 0", "expected a pattern"),
        ("s%d.raw x 3 1", "expected a pattern"),
        ("s%s.raw 0 3 1", "expected a pattern"),
        ("s%d%d.raw 0 3 1", "expected a pattern"),
        ("s%0999999999d.raw 0 3 1", "expected a pattern"),
        ("s%d.raw 0 4 1", "48 bytes of voxels in 5 files"),
        ("LIST", "in 0 files"),
        ("LIST\ns00.raw\ns09.raw", "expected 's09.raw' in the same folder"),
        ("LIST\ns00.raw\n/etc/passwd", "said to be elsewhere"),
    ],
)
def test_files_that_are_not_all_there_are_refused(tmp_path, place, found):
    write_parts(tmp_path, 2)
    path = write_nrrd(tmp_path / "a.nhdr", f"data file: {place}", data=b"")
    assert found in refusal(StudyUnreadableError, path)


# What it says of its values


@pytest.mark.parametrize(
    ("pair", "modality", "hounsfield"),
    [
        ("modality:=MR", "MR", False),
        ("modality:=DWMRI", "MR", False),
        ("DICOM_0008_0060_Modality:=CT", "CT", True),
        ("nothing:=MR", None, True),
    ],
)
def test_modality_in_the_header_counts(tmp_path, pair, modality, hounsfield):
    values = np.where(VOXELS % 3, 40, -1000).astype(np.int16)
    (image,) = read_study(write_nrrd(tmp_path / "a.nrrd", pair, data=values.tobytes())).images
    assert (image.modality, image.hounsfield) == (modality, hounsfield)
