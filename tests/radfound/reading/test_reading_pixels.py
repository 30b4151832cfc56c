"""DICOM pixels: how they may be stored, what is refused with which reason, and what is damaged."""

import io
import struct

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixel_data_handlers.rle_handler import rle_encode_frame

from radfound.exceptions import StudyUnreadableError
from radfound.reading import read_study

from ..miniature import dicom_dataset, ramp, refusal, voxels_of, write_dicom

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"


def save(path, dataset, *, implicit=False, little=True):
    dataset.is_implicit_VR, dataset.is_little_endian = implicit, little
    if not little:
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
    pydicom.dcmwrite(path, dataset, write_like_original=False)
    return path


def save_packed(path, pixels, syntax, data: bytes, **tags):
    dataset = dicom_dataset(pixels, **tags)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = data
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return save(path, dataset)


def picture(kind: str, frame: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, kind, **options)
    return stream.getvalue()


def jpeg2000(frame: np.ndarray) -> bytes:
    return picture("JPEG2000", frame, irreversible=False, no_jp2=True)


def frames_of_two_kinds() -> np.ndarray:
    frames = np.random.default_rng(0).integers(0, 4096, (3, 64, 48)).astype(np.uint16)
    frames[1] = 7
    return frames


# Uncompressed


@pytest.mark.parametrize("by_plane", [0, 1])
@pytest.mark.parametrize("frames", [1, 2])
def test_colour_by_pixel_and_by_plane_is_read(tmp_path, by_plane, frames):
    rgb = np.random.default_rng(0).integers(0, 256, (frames, 4, 6, 3)).astype(np.uint8)
    tags = {"Modality": "US", "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    dataset = dicom_dataset(rgb, **tags)
    dataset.PlanarConfiguration = by_plane
    if by_plane:
        dataset.PixelData = np.moveaxis(rgb, -1, 1).tobytes()
    found = voxels_of(save(tmp_path / "a.dcm", dataset))
    np.testing.assert_allclose(found, rgb @ [0.299, 0.587, 0.114], atol=0.6)


def ybr_422(luma: np.ndarray, blue: int = 128, red: int = 128) -> bytes:
    pairs = luma.reshape(-1, 2)
    halves = np.broadcast_to(np.uint8([blue, red]), pairs.shape)
    return np.hstack([pairs, halves]).tobytes()


def test_uncompressed_colour_of_halved_chroma_is_read(tmp_path):
    luma = ramp(4, 6, dtype=np.uint8) * 10
    tags = {"Modality": "US", "SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422"}
    dataset = dicom_dataset(np.zeros((4, 6, 3), np.uint8), **tags)
    dataset.PixelData = ybr_422(luma)
    np.testing.assert_array_equal(voxels_of(save(tmp_path / "a.dcm", dataset))[0], luma)


def test_colour_that_is_only_said_to_have_halved_chroma_is_read(tmp_path):
    ybr = np.dstack([ramp(4, 6, dtype=np.uint8) * 10, *np.full((2, 4, 6), 128, np.uint8)])
    tags = {"Modality": "US", "SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422"}
    path = write_dicom(tmp_path / "a.dcm", ybr, **tags)
    np.testing.assert_array_equal(voxels_of(path)[0], ybr[..., 0])


def test_partial_range_of_luma_is_stretched(tmp_path):
    luma = np.uint8([[16, 235], [125, 126]])
    tags = {"Modality": "US", "SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_PARTIAL_422"}
    dataset = dicom_dataset(np.zeros((2, 2, 3), np.uint8), **tags)
    dataset.PixelData = ybr_422(luma)
    found = voxels_of(save(tmp_path / "a.dcm", dataset))[0]
    np.testing.assert_array_equal(found, [[0, 255], [127, 128]])


def test_bytes_in_big_endian_words_are_swapped_back(tmp_path):
    stored = ramp(3, 4, dtype=np.uint8)
    dataset = dicom_dataset(stored, Modality="CR")
    dataset.PixelData = stored.view("<u2").astype(">u2").tobytes()
    dataset["PixelData"].VR = "OW"
    found = voxels_of(save(tmp_path / "a.dcm", dataset, little=False))
    np.testing.assert_array_equal(found[0], stored)


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_integers_of_each_width_are_read_in_either_order_of_bytes(tmp_path, dtype, little):
    stored = (ramp(3, 5) * 16 - (100 if dtype[0] == "i" else 0)).astype(dtype)
    dataset = dicom_dataset(stored, Modality="MR")
    if not little:
        dataset.PixelData = stored.astype(f">{dtype}").tobytes() + b"\0" * (stored.nbytes % 2)
    found = voxels_of(save(tmp_path / "a.dcm", dataset, little=little))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[0], stored)


@pytest.mark.parametrize(("keyword", "dtype"), [("Float", "f4"), ("DoubleFloat", "f8")])
@pytest.mark.parametrize("space", ["MONOCHROME1", "MONOCHROME2"])
def test_float_pixels_are_read(tmp_path, keyword, dtype, space):
    stored = np.linspace(-1, 1, 12).reshape(3, 4).astype(dtype)
    dataset = dicom_dataset(ramp(3, 4), Modality="OT", PhotometricInterpretation=space)
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.BitsAllocated = 8 * stored.itemsize
    setattr(dataset, f"{keyword}PixelData", stored.tobytes())
    found = voxels_of(save(tmp_path / "a.dcm", dataset))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], -stored if space == "MONOCHROME1" else stored)


def test_float_padding_becomes_the_darkest_value(tmp_path):
    stored = np.float32([[-1e30, 0.5], [2, 3]])
    dataset = dicom_dataset(ramp(2, 2), Modality="OT", FloatPixelPaddingValue=-1e30)
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.BitsAllocated, dataset.FloatPixelData = 32, stored.tobytes()
    found = voxels_of(save(tmp_path / "a.dcm", dataset))
    np.testing.assert_array_equal(found[0], [[0.5, 0.5], [2, 3]])


def test_single_bits_are_read_across_the_ends_of_rows_and_frames(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2, (3, 5, 7)).astype(np.uint8)
    dataset = dicom_dataset(bits, Modality="OT", BitsAllocated=1, BitsStored=1)
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    np.testing.assert_array_equal(voxels_of(save(tmp_path / "a.dcm", dataset)), bits)


def test_cells_of_12_bits_are_read(tmp_path):
    stored = np.random.default_rng(0).integers(0, 4096, (5, 7)).astype(np.uint16)
    dataset = dicom_dataset(stored, Modality="CR", BitsAllocated=12, BitsStored=12)
    bits = np.unpackbits(stored.view(np.uint8).reshape(-1, 2), axis=1, bitorder="little")[:, :12]
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    np.testing.assert_array_equal(voxels_of(save(tmp_path / "a.dcm", dataset))[0], stored)


@pytest.mark.parametrize("signed", [False, True])
def test_values_in_the_upper_bits_of_a_cell_are_moved_down(tmp_path, signed):
    values = np.array([[-5, 0, 7], [-2048, 2047, 1]]) + (0 if signed else 2048)
    overlay = 0b1010
    stored = (values << 4 | overlay).astype(np.int16 if signed else np.uint16)
    dataset = dicom_dataset(stored, Modality="CR", BitsStored=12)
    dataset.HighBit = 15
    np.testing.assert_array_equal(voxels_of(save(tmp_path / "a.dcm", dataset))[0], values)


def test_overlays_in_signed_pixels_do_not_touch_the_sign(tmp_path):
    stored = np.array([[0x0FFF, 0x1005, 0x2800]], np.int16)
    path = write_dicom(tmp_path / "a.dcm", stored, Modality="MR", BitsStored=12)
    np.testing.assert_array_equal(voxels_of(path)[0], [[-1, 5, -2048]])


def test_bytes_behind_the_last_pixel_are_passed_over(tmp_path):
    dataset = dicom_dataset(ramp(4, 4), Modality="MR")
    dataset.PixelData += bytes(128)
    np.testing.assert_array_equal(voxels_of(save(tmp_path / "a.dcm", dataset))[0], ramp(4, 4))


# Fragments


def in_pieces(stream: bytes, pieces: int) -> list[bytes]:
    size = -(-len(stream) // pieces // 2) * 2
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def items(fragments, table: bytes = b"") -> bytes:
    parts = [table, *(part + b"\0" * (len(part) % 2) for part in fragments)]
    return b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", len(part)) + part for part in parts)


@pytest.mark.parametrize("pieces", [1, 2, 5])
@pytest.mark.parametrize("has_table", [True, False])
@pytest.mark.parametrize("syntax", [JPEG_2000, RLE])
def test_frames_in_several_fragments_are_joined(tmp_path, syntax, has_table, pieces):
    frames = frames_of_two_kinds()
    encode = jpeg2000 if syntax == JPEG_2000 else rle_encode_frame
    packed = [encode(frame) for frame in frames]
    table = b""
    if has_table:
        lengths = [len(items(in_pieces(stream, pieces))) - 8 for stream in packed]
        table = struct.pack("<3L", *np.cumsum([0, *lengths[:-1]]))
    data = items([part for stream in packed for part in in_pieces(stream, pieces)], table)
    path = save_packed(tmp_path / "a.dcm", frames, syntax, data, Modality="MR")
    np.testing.assert_array_equal(voxels_of(path), frames)


@pytest.mark.parametrize("fragments", [1, 3])
def test_one_frame_in_any_number_of_fragments_is_read(tmp_path, fragments):
    frame = frames_of_two_kinds()[0]
    for syntax, encode in ((JPEG_2000, jpeg2000), (RLE, rle_encode_frame)):
        data = encapsulate([encode(frame)], fragments_per_frame=fragments, has_bot=False)
        path = save_packed(tmp_path / "a.dcm", frame, syntax, data, Modality="MR")
        np.testing.assert_array_equal(voxels_of(path)[0], frame)


def test_wrong_table_of_offsets_does_no_harm(tmp_path):
    frames = frames_of_two_kinds()
    pieces = [part for frame in frames for part in in_pieces(jpeg2000(frame), 2)]
    data = items(pieces, struct.pack("<3L", 8, 8, 0xFFFFFFFF))
    path = save_packed(tmp_path / "a.dcm", frames, JPEG_2000, data, Modality="MR")
    np.testing.assert_array_equal(voxels_of(path), frames)


def test_extended_table_of_offsets_is_not_needed(tmp_path):
    frames = frames_of_two_kinds()
    data, offsets, lengths = encapsulate_extended([jpeg2000(frame) for frame in frames])
    tables = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    path = save_packed(tmp_path / "a.dcm", frames, JPEG_2000, data, Modality="MR", **tables)
    np.testing.assert_array_equal(voxels_of(path), frames)


def test_empty_fragments_are_passed_over(tmp_path):
    frames = frames_of_two_kinds()
    data = items([part for frame in frames for part in (jpeg2000(frame), b"")])
    path = save_packed(tmp_path / "a.dcm", frames, JPEG_2000, data, Modality="MR")
    np.testing.assert_array_equal(voxels_of(path), frames)


def test_fewer_frames_than_the_header_says_are_called_truncated(tmp_path):
    frames = frames_of_two_kinds()
    data = items([jpeg2000(frame) for frame in frames[:2]])
    path = save_packed(tmp_path / "a.dcm", frames, JPEG_2000, data, Modality="MR")
    assert "2 packed frame(s) where 3 are needed" in refusal(StudyUnreadableError, path)


@pytest.mark.parametrize("pieces", [1, 2])
def test_uncompressed_frames_in_fragments_are_read(tmp_path, pieces):
    frames = ramp(3, 5, 5, dtype=np.uint8)
    data = items([part for frame in frames for part in in_pieces(frame.tobytes(), pieces)])
    path = save_packed(tmp_path / "a.dcm", frames, "1.2.840.10008.1.2.1.98", data, Modality="MR")
    np.testing.assert_array_equal(voxels_of(path), frames)


def test_more_frames_than_the_header_says_are_passed_over(tmp_path):
    frames = frames_of_two_kinds()
    data = items([jpeg2000(frame) for frame in frames])
    path = save_packed(tmp_path / "a.dcm", frames[0], JPEG_2000, data, Modality="MR")
    np.testing.assert_array_equal(voxels_of(path), frames[:1])


# Damaged


@pytest.mark.parametrize("kind", ["JPEG", "JPEG 2000", "RLE"])
def test_half_a_codestream_is_called_damaged(tmp_path, kind):
    frame = frames_of_two_kinds()[0]
    if kind == "JPEG":
        frame = (frame >> 4).astype(np.uint8)
        syntax, packed = JPEG_BASELINE, picture("JPEG", frame)
    elif kind == "RLE":
        syntax, packed = RLE, rle_encode_frame(frame)
    else:
        syntax, packed = JPEG_2000, jpeg2000(frame)
    data = items([packed[: len(packed) // 2]])
    path = save_packed(tmp_path / "a.dcm", frame, syntax, data, Modality="MR")
    message = refusal(StudyUnreadableError, path)
    assert "holds damaged pixels" in message and "copy the file again" in message


def test_noise_in_place_of_a_codestream_is_called_damaged(tmp_path):
    noise = bytes(np.random.default_rng(0).integers(0, 256, 999, dtype=np.uint8))
    for syntax in (JPEG_BASELINE, JPEG_2000, RLE):
        path = save_packed(tmp_path / "a.dcm", ramp(8, 8), syntax, items([noise]))
        assert "holds damaged pixels" in refusal(StudyUnreadableError, path)


# Whole, and refused with the true reason


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("94", "left on a server (JPIP)"),
        ("95", "left on a server (JPIP)"),
        ("100", "packed as video"),
        ("102", "packed as video"),
        ("107", "packed as video"),
    ],
)
def test_pixels_that_are_no_still_frames_are_named(tmp_path, number, reason):
    syntax = f"1.2.840.10008.1.2.4.{number}"
    path = save_packed(tmp_path / "a.dcm", ramp(8, 8), syntax, items([bytes(64)]))
    message = refusal(StudyUnreadableError, path)
    assert reason in message and "not supported; expected uncompressed pixels, RLE, JPEG" in message
    assert "damaged" not in message and "copy" not in message


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        ("1.2.840.10008.1.2.4.110", "packed as JPEG XL"),
        ("1.2.840.10008.1.2.4.205", "left on a server (JPIP)"),
        ("1.2.840.113619.5.200000", "transfer syntax 1.2.840.113619.5.200000 is not supported"),
    ],
)
def test_transfer_syntax_that_pydicom_does_not_know_is_named(tmp_path, syntax, reason):
    known = "1.2.840.10008.1.2.4.100"
    path = save_packed(tmp_path / "a.dcm", ramp(8, 8), known, items([bytes(64)]))
    path.write_bytes(path.read_bytes().replace(known.encode(), syntax.encode()))
    assert reason in refusal(StudyUnreadableError, path)


def test_arithmetic_coded_jpeg_is_named(tmp_path):
    frame = ramp(8, 8, dtype=np.uint8)
    stream = picture("JPEG", frame).replace(b"\xff\xc0", b"\xff\xc9")
    path = save_packed(tmp_path / "a.dcm", frame, JPEG_BASELINE, items([stream]))
    assert "arithmetic-coded JPEG (SOF9)" in refusal(StudyUnreadableError, path)


def test_jpeg_2000_of_more_than_16_bits_is_named(tmp_path):
    stream = bytearray(jpeg2000(ramp(8, 8, dtype=np.uint16)))
    stream[42] = 19
    path = save_packed(tmp_path / "a.dcm", ramp(8, 8, dtype=np.uint32), JPEG_2000, items([stream]))
    assert "packed with 20 bits a sample" in refusal(StudyUnreadableError, path)


def test_size_that_differs_from_the_header_is_named(tmp_path):
    stream = jpeg2000(ramp(8, 8, dtype=np.uint16))
    path = save_packed(tmp_path / "a.dcm", ramp(8, 6, dtype=np.uint16), JPEG_2000, items([stream]))
    message = refusal(StudyUnreadableError, path)
    assert "8 x 8 of 1 sample(s), but the header says 6 x 8 of 1" in message


def test_colour_in_a_file_that_says_grey_is_named(tmp_path):
    frame = np.zeros((8, 8, 3), np.uint8)
    data = items([picture("JPEG", frame)])
    path = save_packed(tmp_path / "a.dcm", frame[..., 0], JPEG_BASELINE, data)
    assert "8 x 8 of 3 sample(s), but the header says 8 x 8 of 1" in refusal(
        StudyUnreadableError, path
    )


@pytest.mark.parametrize("space", ["HSV", "ARGB", "CMYK", "XYB"])
def test_unusual_colours_are_named(tmp_path, space):
    tags = {"Modality": "OT", "SamplesPerPixel": 3, "PhotometricInterpretation": space}
    path = write_dicom(tmp_path / "a.dcm", np.zeros((4, 4, 3), np.uint8), **tags)
    assert f"colour is stored as '{space}', which is not supported" in refusal(
        StudyUnreadableError, path
    )


def test_samples_that_contradict_the_colour_are_named(tmp_path):
    tags = {"Modality": "OT", "PhotometricInterpretation": "RGB"}
    path = write_dicom(tmp_path / "a.dcm", ramp(4, 4), **tags)
    assert "the header says RGB and 1 sample(s) a pixel" in refusal(StudyUnreadableError, path)


def test_file_without_pixels_says_so(tmp_path):
    dataset = dicom_dataset(ramp(4, 4))
    del dataset.PixelData
    message = refusal(StudyUnreadableError, save(tmp_path / "a.dcm", dataset))
    assert "holds no pixel data" in message and "damaged" not in message


def test_unpacked_pixels_under_a_packed_transfer_syntax_are_named(tmp_path):
    dataset = dicom_dataset(ramp(4, 4))
    path = save(tmp_path / "a.dcm", dataset)
    content = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0", 1)
    path.write_bytes(content)
    assert "the pixels lie in no fragments" in refusal(StudyUnreadableError, path)


# Modality LUT


def lut_item(values, first=0, bits=16, vr="OW", dtype="<u2") -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "SS" if first < 0 else "US", [len(values) % 65536, first, bits])
    item.ModalityLUTType = "US"
    data = np.asarray(values).astype(dtype)
    item.add_new(0x00283006, vr, data.tobytes() if vr == "OW" else data.tolist())
    return item


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("vr", ["OW", "US"])
def test_modality_lut_of_any_depth_is_applied(tmp_path, bits, vr):
    table = np.arange(1 << bits)[::-1]
    dataset = dicom_dataset(ramp(4, 4, dtype=np.uint16), Modality="CR")
    dataset.ModalityLUTSequence = [lut_item(table, bits=bits, vr=vr)]
    np.testing.assert_array_equal(
        voxels_of(save(tmp_path / "a.dcm", dataset))[0], table[ramp(4, 4)]
    )


def test_modality_lut_of_65536_entries_is_applied(tmp_path):
    stored = np.uint16([[0, 1, 40_000, 65_535]])
    dataset = dicom_dataset(stored, Modality="CR")
    dataset.ModalityLUTSequence = [lut_item(np.arange(65_536)[::-1])]
    found = voxels_of(save(tmp_path / "a.dcm", dataset))[0]
    np.testing.assert_array_equal(found, 65_535 - stored.astype(int))


def test_modality_lut_of_bytes_is_applied(tmp_path):
    dataset = dicom_dataset(ramp(2, 2, dtype=np.uint8), Modality="CR")
    dataset.ModalityLUTSequence = [lut_item([9, 7, 5, 3], bits=8, dtype="u1")]
    np.testing.assert_array_equal(voxels_of(save(tmp_path / "a.dcm", dataset))[0], [[9, 7], [5, 3]])


@pytest.mark.parametrize("first", [-2, 1])
def test_values_beyond_a_modality_lut_have_its_ends(tmp_path, first):
    stored = np.int16([[-5, -2, -1, 0, 1, 2, 3, 9]])
    dataset = dicom_dataset(stored, Modality="CR")
    dataset.ModalityLUTSequence = [lut_item([100, 200, 300], first=first)]
    expected = np.array([100, 200, 300])[np.clip(stored.astype(int) - first, 0, 2)]
    np.testing.assert_array_equal(voxels_of(save(tmp_path / "a.dcm", dataset)), [expected])


def test_modality_lut_in_big_endian_is_applied(tmp_path):
    dataset = dicom_dataset(ramp(2, 2, dtype=np.uint16), Modality="CR")
    dataset.PixelData = ramp(2, 2, dtype=">u2").tobytes()
    dataset.ModalityLUTSequence = [lut_item([900, 700, 500, 300], dtype=">u2")]
    found = voxels_of(save(tmp_path / "a.dcm", dataset, little=False))
    np.testing.assert_array_equal(found, [[[900, 700], [500, 300]]])


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_look_up_tables_without_explicit_types_are_applied(tmp_path, dtype):
    grey = dicom_dataset(ramp(2, 2, dtype=dtype), Modality="CR")
    grey.ModalityLUTSequence = [lut_item([900, 700, 500, 300])]
    table = np.array([900, 700, 500, 300], "<u2").tobytes()
    palette = palette_dataset(ramp(2, 2, dtype=dtype), table, [4, 0, 16])
    for dataset in (grey, palette):
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
        found = voxels_of(save(tmp_path / "a.dcm", dataset, implicit=True))
        np.testing.assert_array_equal(found, [[[900, 700], [500, 300]]])


def test_modality_lut_and_rescale_are_never_both_applied(tmp_path):
    for modality, expected in (("DX", [[9, 7], [5, 3]]), ("CT", [[-1000, -999], [-998, -997]])):
        dataset = dicom_dataset(ramp(2, 2, dtype=np.uint16), Modality=modality)
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1000
        dataset.ModalityLUTSequence = [lut_item([9, 7, 5, 3])]
        np.testing.assert_array_equal(voxels_of(save(tmp_path / "a.dcm", dataset))[0], expected)


@pytest.mark.parametrize(("number", "applies"), [("12.1", False), ("12.2", False), ("1", True)])
def test_modality_lut_of_fluoroscopy_is_no_part_of_its_display(tmp_path, number, applies):
    dataset = dicom_dataset(ramp(2, 2, dtype=np.uint16), Modality="XA")
    dataset.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{number}"
    dataset.ModalityLUTSequence = [lut_item([9, 7, 5, 3])]
    expected = [[9, 7], [5, 3]] if applies else [[0, 1], [2, 3]]
    np.testing.assert_array_equal(voxels_of(save(tmp_path / "a.dcm", dataset))[0], expected)


@pytest.mark.parametrize("missing", ["LUTDescriptor", "LUTData", "both"])
def test_empty_modality_lut_leaves_the_pixels_as_they_are(tmp_path, missing):
    item = lut_item([9, 7, 5, 3])
    for keyword in ("LUTDescriptor", "LUTData") if missing == "both" else (missing,):
        item[keyword].value = None
    dataset = dicom_dataset(ramp(2, 2, dtype=np.uint16), Modality="CR")
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 5
    dataset.ModalityLUTSequence = [item]
    np.testing.assert_array_equal(voxels_of(save(tmp_path / "a.dcm", dataset))[0], ramp(2, 2) + 5)


def test_modality_lut_with_missing_entries_is_named(tmp_path):
    item = lut_item([9, 7, 5, 3])
    item.LUTDescriptor = [8, 0, 16]
    dataset = dicom_dataset(ramp(2, 2, dtype=np.uint16), Modality="CR")
    dataset.ModalityLUTSequence = [item]
    message = refusal(StudyUnreadableError, save(tmp_path / "a.dcm", dataset))
    assert "the Modality LUT has" in message and "where its descriptor says 8" in message


def test_modality_lut_of_an_inverted_radiograph_comes_before_the_inversion(tmp_path):
    dataset = dicom_dataset(
        ramp(2, 2, dtype=np.uint16), Modality="CR", PhotometricInterpretation="MONOCHROME1"
    )
    dataset.ModalityLUTSequence = [lut_item([0, 10, 30, 20])]
    found = voxels_of(save(tmp_path / "a.dcm", dataset)).astype(int).ravel()
    assert list(np.argsort(found)) == [2, 3, 1, 0]


def test_rescale_is_not_applied_to_colour(tmp_path):
    rgb = np.full((2, 2, 3), 100, np.uint8)
    tags = {"Modality": "US", "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    path = write_dicom(tmp_path / "a.dcm", rgb, RescaleSlope=2, RescaleIntercept=-9, **tags)
    np.testing.assert_array_equal(voxels_of(path), np.full((1, 2, 2), 100))


def test_window_in_the_header_changes_no_values(tmp_path):
    dataset = dicom_dataset(ramp(4, 4), Modality="DX")
    dataset.WindowCenter, dataset.WindowWidth = 5, 2
    dataset.VOILUTSequence = [lut_item([9, 7, 5, 3])]
    np.testing.assert_array_equal(voxels_of(save(tmp_path / "a.dcm", dataset))[0], ramp(4, 4))


# Palettes


def palette_dataset(indices, table: bytes, descriptor, *, segmented=False) -> Dataset:
    dataset = dicom_dataset(indices, Modality="US", PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        stem = f"{colour}PaletteColorLookupTable"
        dataset.add_new(f"{stem}Descriptor", "SS" if descriptor[1] < 0 else "US", descriptor)
        dataset.add_new(f"{'Segmented' * segmented}{stem}Data", "OW", table)
    return dataset


@pytest.mark.parametrize(
    ("table", "bits", "expected"),
    [
        (np.uint8([40, 30, 20, 10]).tobytes(), 8, [40, 30, 20, 10]),
        (np.uint8([40, 30, 20, 0]).tobytes(), 8, [40, 30, 20, 0]),
        (np.array([40, 30, 20, 10], "<u2").tobytes(), 8, [40, 30, 20, 10]),
        (np.array([40, 30, 20, 10], "<u2").tobytes(), 16, [40, 30, 20, 10]),
        ((np.array([40, 30, 20, 10], "<u2") << 8).tobytes(), 8, [40, 30, 20, 10]),
        ((np.array([40, 30, 20, 10], "<u2") << 8).tobytes(), 16, [10240, 7680, 5120, 2560]),
    ],
)
def test_entries_of_a_palette_are_read_in_each_way_of_storing_them(tmp_path, table, bits, expected):
    dataset = palette_dataset(ramp(2, 2, dtype=np.uint8), table, [4, 0, bits])
    found = voxels_of(save(tmp_path / "a.dcm", dataset))
    np.testing.assert_array_equal(found.ravel(), expected)


def test_palette_of_an_odd_number_of_bytes_is_read(tmp_path):
    dataset = palette_dataset(np.uint8([[0, 1, 2, 9]]), bytes([40, 30, 20, 0]), [3, 0, 8])
    found = voxels_of(save(tmp_path / "a.dcm", dataset))
    np.testing.assert_array_equal(found.ravel(), [40, 30, 20, 20])


def test_palette_of_bytes_with_more_than_256_entries_is_read(tmp_path):
    table = (np.arange(1024) // 4).astype(np.uint8)
    indices = np.uint16([[0, 300, 700, 1023]])
    dataset = palette_dataset(indices, table.tobytes(), [1024, 0, 8])
    found = voxels_of(save(tmp_path / "a.dcm", dataset))
    np.testing.assert_array_equal(found, [table[indices]])


@pytest.mark.parametrize("first", [-2, 1])
def test_indices_beyond_a_palette_have_its_ends(tmp_path, first):
    table = np.array([100, 200, 300], "<u2")
    indices = np.int16([[-5, -2, -1, 0, 1, 2, 3, 9]])
    dataset = palette_dataset(indices, table.tobytes(), [3, first, 16])
    found = voxels_of(save(tmp_path / "a.dcm", dataset))
    np.testing.assert_array_equal(found, [table[np.clip(indices.astype(int) - first, 0, 2)]])


def test_palette_of_bytes_in_big_endian_words_is_read(tmp_path):
    table = np.uint8([40, 30, 20, 10]).view("<u2").astype(">u2").tobytes()
    dataset = palette_dataset(ramp(2, 2, dtype=np.uint8), table, [4, 0, 8])
    found = voxels_of(save(tmp_path / "a.dcm", dataset, little=False))
    np.testing.assert_array_equal(found.ravel(), [40, 30, 20, 10])


SEGMENTS_OF_16_BITS = np.array(
    [
        *(0, 2, 0, 1000),  # discrete: 0, 1000
        *(1, 4, 5000),  # a line: 2000, 3000, 4000, 5000
        *(0, 2, 7, 9),
        *(2, 2, 0, 0),  # the first two segments again
    ],
    "<u2",
)
EXPANDED = [0, 1000, 2000, 3000, 4000, 5000, 7, 9, 0, 1000, 2000, 3000, 4000, 5000]


@pytest.mark.parametrize("little", [True, False])
def test_segmented_palette_is_expanded(tmp_path, little):
    table = SEGMENTS_OF_16_BITS.astype("<u2" if little else ">u2").tobytes()
    indices = ramp(1, 14, dtype=np.uint8)
    dataset = palette_dataset(indices, table, [14, 0, 16], segmented=True)
    found = voxels_of(save(tmp_path / "a.dcm", dataset, little=little))
    np.testing.assert_array_equal(found.ravel(), EXPANDED)


def test_segmented_palette_of_bytes_is_expanded(tmp_path):
    segments = bytes([0, 2, 0, 10, 1, 4, 50, 0, 0, 2, 1, 0, 0, 0, 0, 0])
    indices = ramp(1, 8, dtype=np.uint8)
    dataset = palette_dataset(indices, segments, [8, 0, 8], segmented=True)
    found = voxels_of(save(tmp_path / "a.dcm", dataset))
    np.testing.assert_array_equal(found.ravel(), [0, 10, 20, 30, 40, 50, 0, 10])


def test_palette_that_is_missing_or_too_short_is_named(tmp_path):
    short = palette_dataset(ramp(2, 2, dtype=np.uint8), bytes(2), [4, 0, 8])
    missing = palette_dataset(ramp(2, 2, dtype=np.uint8), bytes(4), [4, 0, 8])
    del missing.GreenPaletteColorLookupTableData
    for dataset in (short, missing):
        message = refusal(StudyUnreadableError, save(tmp_path / "a.dcm", dataset))
        assert "the palette is missing or incomplete" in message and "damaged" not in message


# Hounsfield units

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def unit_of(path) -> bool:
    return read_study(path).images[0].hounsfield


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, True),
        ({"RescaleType": "HU"}, True),
        ({"RescaleType": "US"}, False),
        ({"RescaleType": "OD"}, False),
        ({"RescaleType": "HU_MOD"}, False),
        ({"RescaleType": "MGML"}, False),
        ({"RescaleType": "Z_EFF"}, False),
        ({"RescaleSlope": None, "RescaleIntercept": None}, False),
        ({"RescaleIntercept": None}, False),
        ({"RescaleSlope": None, "RescaleIntercept": None, "RescaleType": "HU"}, False),
        ({"SOPClassUID": SECONDARY_CAPTURE}, False),
        ({"SOPClassUID": f"{SECONDARY_CAPTURE}.3"}, False),
        ({"SOPClassUID": SECONDARY_CAPTURE, "RescaleType": "HU"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"}, False),
        ({"MultienergyCTAcquisition": "YES"}, False),
        ({"MultienergyCTAcquisition": "YES", "RescaleType": "HU"}, True),
        ({"MultienergyCTAcquisition": "NO"}, True),
        ({"BitsStored": 8}, False),
        ({"BitsStored": 12}, True),
        ({"Modality": "MR"}, False),
        ({"Modality": "PT", "RescaleType": "HU"}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, True),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MPR"]}, True),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "SCOUT"]}, False),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, False),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "TMAX"]}, False),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CBV"]}, False),
        ({"ImageType": ["DERIVED", "PRIMARY", "PERFUSION", "NONE"]}, False),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"]}, False),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "DOSE_INFO"]}, False),
        ({"ImageType": ["DERIVED", "PRIMARY", "VOLUME", "SUBTRACTION"]}, False),
    ],
)
def test_hounsfield_units_are_claimed_only_where_the_header_says_so(tmp_path, tags, expected):
    path = write_dicom(tmp_path / "a.dcm", ramp(2, 2, dtype=np.uint16), **tags)
    assert unit_of(path) == expected


def group(slope=1, kind=None, frame_type=None) -> Dataset:
    rescale, item = Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = slope, -1000
    if kind:
        rescale.RescaleType = kind
    item.PixelValueTransformationSequence = [rescale]
    if frame_type:
        named = Dataset()
        named.FrameType = frame_type
        item.CTImageFrameTypeSequence = [named]
    return item


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([group(kind="HU"), group(kind="HU")], True),
        ([group(kind="HU"), group(kind="US")], False),
        ([group(frame_type=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])] * 2, True),
        ([group(frame_type=["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"])] * 2, False),
        ([group(frame_type=["DERIVED", "PRIMARY", "VOLUME", "DIVISION"])] * 2, False),
        ([Dataset(), Dataset()], False),
    ],
)
def test_hounsfield_units_of_an_enhanced_ct_stand_in_its_functional_groups(
    tmp_path, groups, expected
):
    dataset = dicom_dataset(
        ramp(2, 3, 3, dtype=np.uint16), RescaleSlope=None, RescaleIntercept=None
    )
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.PerFrameFunctionalGroupsSequence = groups
    assert unit_of(save(tmp_path / "a.dcm", dataset)) == expected


def test_another_unit_in_a_real_world_mapping_is_believed(tmp_path):
    for unit, expected in (("[hnsf'U]", True), ("mg/cm3", False)):
        code, mapping = Dataset(), Dataset()
        code.CodeValue = unit
        mapping.MeasurementUnitsCodeSequence = [code]
        tags = {"RealWorldValueMappingSequence": [mapping]}
        path = write_dicom(tmp_path / "a.dcm", ramp(2, 2, dtype=np.uint16), **tags)
        assert unit_of(path) == expected
