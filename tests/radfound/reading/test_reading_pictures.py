"""PNG and JPEG of every kind that their standards allow."""

import contextlib
import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from radfound.exceptions import StudyTooLargeError, StudyUnreadableError

from ..miniature import png_bytes, png_chunk, ramp, refusal, voxels_of

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
COLOURS = bytes([10] * 3 + [200] * 3 + [100] * 3)


def write_png(path, bits, colour, row, *chunks, size=(4, 1)):
    """Write a picture of one row of pixels, or of a size that its data need not have."""
    path.write_bytes(png_bytes(size, bits, colour, b"\0" + row, *chunks))
    return path


@pytest.mark.parametrize(
    ("bits", "colour", "row", "expected"),
    [
        (1, GREY, b"\x50", [0, 255, 0, 255]),
        (2, GREY, b"\x1b", [0, 85, 170, 255]),
        (4, GREY, b"\x12\x3f", [17, 34, 51, 255]),
        (8, GREY, b"\1\2\3\4", [1, 2, 3, 4]),
        (16, GREY, b"\1\0\2\0\3\0\xff\xff", [256, 512, 768, 65535]),
        (8, RGB, b"\1\1\1\2\2\2\3\3\3\xff\xff\0", [1, 2, 3, 226]),
        (16, RGB, b"\x10\1" * 3 + b"\x20\2" * 3 + b"\x30\3" * 3 + b"\xff" * 6, [16, 32, 48, 255]),
        (8, GREY_ALPHA, b"\x10\xff\x20\0\x30\x80\x40\xff", [16, 32, 48, 64]),
        (16, GREY_ALPHA, b"\x10\1\xff\xff\x20\2\0\0\x30\3\0\0\x40\4\0\0", [16, 32, 48, 64]),
        (8, RGB_ALPHA, b"\1\1\1\0\2\2\2\xff\3\3\3\0\xff\xff\0\0", [1, 2, 3, 226]),
    ],
)
def test_png_of_each_kind_and_depth_becomes_grey(tmp_path, bits, colour, row, expected):
    path = write_png(tmp_path / "a.png", bits, colour, row)
    voxels = voxels_of(path)
    assert voxels.ravel().tolist() == expected
    assert voxels.dtype == (np.uint16 if (bits, colour) == (16, GREY) else np.uint8)


@pytest.mark.parametrize(
    "further",
    [
        png_chunk(b"gAMA", struct.pack(">I", 100_000)),
        png_chunk(b"tRNS", b"\0\2"),
        png_chunk(b"acTL", struct.pack(">II", 2, 0)),
        png_chunk(b"pHYs", struct.pack(">IIB", 1, 2, 1)),
        png_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile")),
    ],
    ids=["gamma", "transparency", "animation", "size", "profile"],
)
def test_what_else_a_png_holds_does_not_change_its_values(tmp_path, further):
    path = write_png(tmp_path / "a.png", 8, GREY, b"\1\2\3\4", further)
    assert voxels_of(path).ravel().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("bits", "row"), [(1, b"\x50"), (2, b"\x11"), (4, b"\1\1"), (8, b"\0\1\0\1")]
)
@pytest.mark.parametrize("transparent", [b"", png_chunk(b"tRNS", b"\0\x80")])
def test_palette_is_applied_whatever_is_transparent(tmp_path, bits, row, transparent):
    path = write_png(
        tmp_path / "a.png", bits, PALETTE, row, png_chunk(b"PLTE", COLOURS), transparent
    )
    assert voxels_of(path).ravel().tolist() == [10, 200, 10, 200]


def test_interlaced_png_is_read(tmp_path):
    pixels = ramp(9, 11, dtype=np.uint8)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
    rows = b"".join(
        b"\0" + row.tobytes()
        for top, left, down, across in [*passes, (1, 0, 2, 1)]
        for row in pixels[top::down, left::across]
    )
    (tmp_path / "a.png").write_bytes(png_bytes((11, 9), 8, GREY, rows, interlace=1))
    np.testing.assert_array_equal(voxels_of(tmp_path / "a.png")[0], pixels)


def test_of_an_animation_the_first_picture_is_read(tmp_path):
    first, second = (Image.new("L", (4, 3), value) for value in (7, 200))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    assert (voxels_of(tmp_path / "a.png") == 7).all()


@pytest.mark.parametrize("ink", [(0, 0, 0, 0), (0, 0, 0, 100), (0, 0, 0, 255), (90, 90, 90, 40)])
@pytest.mark.parametrize("is_adobe", [True, False])
def test_cmyk_jpeg_has_the_brightness_that_itk_reads(tmp_path, ink, is_adobe):
    path = tmp_path / "a.jpg"
    Image.new("CMYK", (16, 16), ink).save(path, quality=95)
    if not is_adobe:
        raw = path.read_bytes()
        at = raw.index(b"Adobe") - 4
        path.write_bytes(raw[:at] + raw[at + 2 + int.from_bytes(raw[at + 2 : at + 4], "big") :])
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[..., 0]
    np.testing.assert_allclose(voxels_of(path)[0], expected, atol=2)


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_rows": 1}, {}])
def test_jpeg_of_each_usual_kind_is_read(tmp_path, options):
    Image.new("L", (40, 40), 99).save(tmp_path / "a.jpg", **options)
    np.testing.assert_allclose(voxels_of(tmp_path / "a.jpg"), 99, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_turned_as_viewers_turn_it(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((32, 16), np.uint8)
    pixels[:8, :8] = 250
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    top_left = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1)}
    corner = {**top_left, 7: (-1, -1), 8: (-1, 0)}[orientation]
    voxels = voxels_of(tmp_path / "a.jpg")[0]
    assert voxels.shape == ((32, 16) if orientation < 5 else (16, 32))
    assert voxels[corner] > 240


@pytest.mark.parametrize(
    ("marker", "bits", "found"),
    [
        (0xC0, 12, "a JPEG of 12 bits, which is not supported"),
        (0xC3, 8, "a JPEG of the lossless kind"),
        (0xC5, 8, "a JPEG of the hierarchical or arithmetic kind"),
        (0xF7, 8, "a JPEG of the JPEG-LS kind"),
        (0xC0, 8, None),
    ],
)
def test_jpeg_that_is_not_read_is_named(tmp_path, marker, bits, found):
    path = tmp_path / "a.jpg"
    Image.new("L", (16, 16), 99).save(path)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"\xff\xc0")
    raw[at + 1], raw[at + 4] = marker, bits
    path.write_bytes(raw)
    if found:
        assert found in refusal(StudyUnreadableError, path)
    else:
        assert voxels_of(path).shape == (1, 16, 16)


@pytest.mark.parametrize(("bits", "colour"), [(3, GREY), (16, PALETTE), (8, 5)])
def test_png_of_an_impossible_kind_is_refused(tmp_path, bits, colour):
    path = write_png(tmp_path / "a.png", bits, colour, b"\1\2\3\4")
    assert "truncated or damaged" in refusal(StudyUnreadableError, path)


@pytest.mark.parametrize("kind", [b"pHYs", b"gAMA", b"tRNS", b"iCCP", b"sRGB", b"cHRM", b"eXIf"])
@pytest.mark.parametrize("colour", [GREY, RGB, PALETTE])
def test_empty_chunk_is_passed_over_or_refused(tmp_path, kind, colour):
    chunks = png_chunk(b"PLTE", COLOURS), png_chunk(kind, b"")
    path = write_png(tmp_path / "a.png", 8, colour, bytes(12), *chunks)
    with contextlib.suppress(StudyUnreadableError):
        assert voxels_of(path).shape == (1, 1, 4)


def test_small_picture_of_many_pixels_is_refused_before_it_is_unpacked(tmp_path):
    path = write_png(tmp_path / "a.png", 8, GREY, b"", size=(12_000, 12_000))
    assert "unpacks to 137 MiB" in refusal(StudyTooLargeError, path)
