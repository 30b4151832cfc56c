"""Every photometric interpretation in every transfer syntax, against what was packed."""

import numpy as np
import pytest

from radfound.exceptions import StudyUnreadableError
from radfound.reading import read_study

from ..miniature import refusal, voxels_of
from ..packing import (
    LOSSLESS,
    LOSSY,
    Packing,
    jpeg,
    jpeg2000,
    jpeg_ls,
    lossless_jpeg,
    write,
    write_packed,
)

imagecodecs = pytest.importorskip(
    "imagecodecs",
    reason="imagecodecs of requirements-dev.txt is not installed; it packs the pixels",
)
LUMINANCE = np.array([0.299, 0.587, 0.114])


def named(packings):
    return [pytest.param(packing, id=packing.name) for packing in packings]


def grey_frames(bits: int, signed: bool) -> np.ndarray:
    """Two frames, smooth enough for lossy packing, from the lowest to the highest value."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    ramp = np.linspace(low, high, 16 * 24).reshape(16, 24)
    dtype = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    return np.rint([ramp, ramp[::-1]]).astype(dtype)


def shown(frames: np.ndarray, space: str, bits: int) -> np.ndarray:
    """What must be read: larger is brighter."""
    if space == "MONOCHROME2":
        return frames
    top = -1 if frames.dtype.kind == "i" else (1 << bits) - 1
    return top - frames.astype(int)


@pytest.mark.parametrize("packing", named(LOSSLESS))
@pytest.mark.parametrize("space", ["MONOCHROME1", "MONOCHROME2"])
def test_grey_of_any_depth_and_sign_is_what_was_packed(tmp_path, packing, space):
    for bits in packing.bits:
        for signed in (False, True):
            frames = grey_frames(bits, signed)
            tags = {"Modality": "MR", "PhotometricInterpretation": space}
            path = write(tmp_path / "a.dcm", frames, packing, bits, **tags)
            np.testing.assert_array_equal(
                voxels_of(path), shown(frames, space, bits), f"{bits} bits, signed: {signed}"
            )


@pytest.mark.parametrize("packing", named(LOSSY))
@pytest.mark.parametrize("space", ["MONOCHROME1", "MONOCHROME2"])
def test_lossy_grey_is_what_an_independent_decoder_finds(tmp_path, packing, space):
    for bits in packing.bits:
        frames = grey_frames(bits, False)
        tags = {"Modality": "MR", "PhotometricInterpretation": space}
        path = write(tmp_path / "a.dcm", frames, packing, bits, **tags)
        found = np.stack([packing.decode(packing.encode(frame, bits)) for frame in frames])
        np.testing.assert_allclose(voxels_of(path), shown(found, space, bits), atol=1)
        np.testing.assert_allclose(found, frames, atol=(1 << bits) / 50)


@pytest.mark.parametrize("packing", named(LOSSLESS))
def test_ct_keeps_its_hounsfield_units_whatever_it_is_packed_as(tmp_path, packing):
    stored = grey_frames(12, False)
    for space in ("MONOCHROME1", "MONOCHROME2"):
        tags = {"PhotometricInterpretation": space, "RescaleIntercept": -1024}
        path = write(tmp_path / "a.dcm", stored, packing, 12, **tags)
        (image,) = read_study(path).images
        assert image.hounsfield
        np.testing.assert_array_equal(image.voxels, stored.astype(int) - 1024)


@pytest.mark.parametrize("packing", named(LOSSLESS))
def test_indices_of_a_palette_are_looked_up_once(tmp_path, packing):
    indices = grey_frames(8, False)
    levels = np.arange(256)[::-1].astype("<u2") * 256
    tags = {"Modality": "US", "PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        table = levels.astype(">u2") if packing.number == ".2" else levels
        tags[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    path = write(tmp_path / "a.dcm", indices, packing, 8, **tags)
    np.testing.assert_array_equal(voxels_of(path), levels[indices])


# Colour


def colour_frames(dtype: str = "u1") -> np.ndarray:
    """Two smooth colour pictures."""
    rows, columns = np.mgrid[:16, :24]
    frame = np.stack([columns * 10, rows * 15, 255 - columns * 8], -1)
    return (np.stack([frame, frame[::-1]]) * (257 if dtype == "u2" else 1)).astype(dtype)


def to_ybr(rgb: np.ndarray) -> np.ndarray:
    """PS3.3 C.7.6.3.1.2: YBR_FULL."""
    matrix = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    return np.rint(rgb @ np.transpose(matrix) + [0, 128, 128]).clip(0, 255).astype(np.uint8)


def brightness(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(float) @ LUMINANCE


def colour_tags(space: str) -> dict:
    return {"Modality": "US", "SamplesPerPixel": 3, "PhotometricInterpretation": space}


@pytest.mark.parametrize("packing", named(LOSSLESS))
@pytest.mark.parametrize("space", ["RGB", "YBR_FULL"])
def test_colour_is_as_bright_as_what_was_packed(tmp_path, packing, space):
    rgb = colour_frames()
    stored = to_ybr(rgb) if space == "YBR_FULL" else rgb
    encode = packing.encode
    if encode is jpeg2000:

        def encode(frame, bits):
            return jpeg2000(frame, bits, mct=False)

    untransformed = Packing(packing.name, packing.number, encode)
    if "JP2 file" in packing.name or "HTJ2K" in packing.name or "unsigned" in packing.name:
        stored, untransformed = rgb, packing  # these encoders transform the components themselves
    path = write(tmp_path / "a.dcm", stored, untransformed, 8, **colour_tags(space))
    np.testing.assert_allclose(voxels_of(path), brightness(rgb), atol=1.5)


@pytest.mark.parametrize("packing", named(LOSSLESS))
def test_colour_of_16_bits_is_read(tmp_path, packing):
    rgb = colour_frames("u2")
    path = write(tmp_path / "a.dcm", rgb, packing, 16, **colour_tags("RGB"))
    np.testing.assert_allclose(voxels_of(path), brightness(rgb), atol=1)


@pytest.mark.parametrize("space", ["YBR_RCT", "YBR_ICT", "YBR_FULL", "RGB"])
@pytest.mark.parametrize("reversible", [True, False])
def test_jpeg_2000_that_transforms_components_is_rgb_whatever_its_label(
    tmp_path, space, reversible
):
    rgb = colour_frames()
    packed = [
        jpeg2000(frame, 8, mct=True, reversible=reversible, level=0 if reversible else 60)
        for frame in rgb
    ]
    syntax = f"1.2.840.10008.1.2.4.9{0 if reversible else 1}"
    path = write_packed(tmp_path / "a.dcm", rgb, syntax, packed, **colour_tags(space))
    np.testing.assert_allclose(voxels_of(path), brightness(rgb), atol=0.6 if reversible else 6)


@pytest.mark.parametrize("space", ["YBR_RCT", "YBR_ICT", "RGB"])
def test_jpeg_2000_that_does_not_transform_components_is_rgb(tmp_path, space):
    rgb = colour_frames()
    packed = [jpeg2000(frame, 8, mct=False) for frame in rgb]
    syntax = "1.2.840.10008.1.2.4.90"
    path = write_packed(tmp_path / "a.dcm", rgb, syntax, packed, **colour_tags(space))
    np.testing.assert_allclose(voxels_of(path), brightness(rgb), atol=0.6)


def without_segment(stream: bytes, marker: int) -> bytes:
    """Cut the first application segment of a kind out of a JPEG."""
    start = stream.index(bytes([0xFF, marker]))
    return stream[:start] + stream[start + 2 + int.from_bytes(stream[start + 2 : start + 4]) :]


def with_adobe(stream: bytes, transform: int) -> bytes:
    segment = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + bytes([transform])
    return stream[:2] + segment + stream[2:]


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
@pytest.mark.parametrize("marker", ["JFIF", "Adobe"])
def test_jpeg_that_says_that_it_is_ybr_is_ybr_whatever_its_label(
    tmp_path, label, subsampling, marker
):
    rgb = colour_frames()
    packed = [imagecodecs.jpeg_encode(frame, level=98, subsampling=subsampling) for frame in rgb]
    if marker == "Adobe":
        packed = [with_adobe(without_segment(stream, 0xE0), 1) for stream in packed]
    syntax = "1.2.840.10008.1.2.4.50"
    path = write_packed(tmp_path / "a.dcm", rgb, syntax, packed, **colour_tags(label))
    np.testing.assert_allclose(voxels_of(path), brightness(rgb), atol=6)


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL", "YBR_FULL_422"])
def test_jpeg_that_says_that_it_is_rgb_is_rgb_whatever_its_label(tmp_path, label):
    rgb = colour_frames()
    packed = [
        imagecodecs.jpeg_encode(frame, level=98, colorspace="RGB", outcolorspace="RGB")
        for frame in rgb
    ]
    assert all(b"Adobe" in stream for stream in packed)
    syntax = "1.2.840.10008.1.2.4.50"
    path = write_packed(tmp_path / "a.dcm", rgb, syntax, packed, **colour_tags(label))
    np.testing.assert_allclose(voxels_of(path), brightness(rgb), atol=6)


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL"])
def test_jpeg_that_does_not_say_what_it_is_follows_its_label(tmp_path, label):
    rgb = colour_frames()
    if label == "RGB":
        packed = [
            imagecodecs.jpeg_encode(frame, level=98, colorspace="RGB", outcolorspace="RGB")
            for frame in rgb
        ]
        packed = [without_segment(stream, 0xEE) for stream in packed]
        packed = [number_components(stream) for stream in packed]
    else:
        packed = [
            without_segment(imagecodecs.jpeg_encode(frame, level=98, subsampling="444"), 0xE0)
            for frame in rgb
        ]
    syntax = "1.2.840.10008.1.2.4.50"
    path = write_packed(tmp_path / "a.dcm", rgb, syntax, packed, **colour_tags(label))
    np.testing.assert_allclose(voxels_of(path), brightness(rgb), atol=6)


def number_components(stream: bytes) -> bytes:
    """Name the components 1, 2, 3 instead of R, G, B."""
    data = bytearray(stream)
    for marker, first, step in ((b"\xff\xc0", 10, 3), (b"\xff\xda", 5, 2)):
        at = stream.index(marker) + first
        for index in range(3):
            data[at + step * index] = index + 1
    return bytes(data)


def test_progressive_jpeg_is_read(tmp_path):
    import io

    from PIL import Image

    frame = grey_frames(8, False)[0]
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=95, progressive=True)
    path = write_packed(
        tmp_path / "a.dcm", frame, "1.2.840.10008.1.2.4.55", [stream.getvalue()], Modality="CR"
    )
    np.testing.assert_allclose(voxels_of(path)[0], np.asarray(Image.open(stream)), atol=1)


def test_jpeg_under_the_name_of_another_transfer_syntax_is_read_as_what_it_is(tmp_path):
    frame = grey_frames(8, False)[0]
    for number in (50, 70, 80, 90, 201):
        syntax = f"1.2.840.10008.1.2.4.{number}"
        path = write_packed(tmp_path / "a.dcm", frame, syntax, [jpeg(frame, 8)], Modality="CR")
        np.testing.assert_allclose(voxels_of(path)[0], frame, atol=3)


@pytest.mark.parametrize("space", ["MONOCHROME1", "MONOCHROME2"])
def test_codestream_of_fewer_bits_than_the_header_says_keeps_the_headers_range(tmp_path, space):
    frame = grey_frames(8, False)[0]
    tags = {"Modality": "CR", "PhotometricInterpretation": space}
    for number, encode in ((50, jpeg), (90, jpeg2000), (70, lossless_jpeg), (80, jpeg_ls)):
        syntax, packed = f"1.2.840.10008.1.2.4.{number}", [encode(frame, 8)]
        path = write_packed(
            tmp_path / "a.dcm", frame.astype(np.uint16), syntax, packed, BitsStored=12, **tags
        )
        np.testing.assert_allclose(voxels_of(path)[0], shown(frame, space, 12), atol=3)


def test_codestream_of_more_bits_than_the_header_makes_room_for_is_named(tmp_path):
    frame = grey_frames(12, False)[0]
    syntax, packed = "1.2.840.10008.1.2.4.51", [jpeg(frame, 12)]
    path = write_packed(tmp_path / "a.dcm", frame.astype(np.uint8), syntax, packed)
    message = refusal(StudyUnreadableError, path)
    assert "packed pixels have 12 bits a sample, but the header makes room for 8" in message


def test_values_that_lossy_packing_drove_beyond_their_range_stay_at_its_ends(tmp_path):
    frame = np.zeros((64, 64), np.uint16)
    frame[30:, 20:] = 4095
    packed = [jpeg2000(frame, 16, reversible=False, level=40)]
    assert imagecodecs.jpeg2k_decode(packed[0]).max() > 4095
    path = write_packed(
        tmp_path / "a.dcm", frame, "1.2.840.10008.1.2.4.91", packed, Modality="MR", BitsStored=12
    )
    found = imagecodecs.jpeg2k_decode(packed[0]).clip(0, 4095)
    np.testing.assert_allclose(voxels_of(path)[0].astype(int), found, atol=1)


def test_overlay_in_the_upper_bits_of_a_lossless_codestream_is_cleared(tmp_path):
    values = grey_frames(12, False)[0]
    packed = [jpeg2000(values | 0x1000, 16)]
    path = write_packed(
        tmp_path / "a.dcm", values, "1.2.840.10008.1.2.4.90", packed, Modality="CR", BitsStored=12
    )
    np.testing.assert_array_equal(voxels_of(path)[0], values)
