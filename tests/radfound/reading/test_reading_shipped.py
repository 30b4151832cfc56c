"""The files that come with pydicom: read like an independent decoder does, or refused with reason."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_pixel_data_frame
from pydicom.pixel_data_handlers.util import apply_color_lut, convert_color_space

from radfound.exceptions import RadFoundError
from radfound.reading import read_study
from radfound.reading.files import Source, kind_of

imagecodecs = pytest.importorskip(
    "imagecodecs",
    reason="imagecodecs of requirements-dev.txt is not installed; it unpacks the pixels",
)

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
NO_PICTURE = "without a picture"
NO_SIZE = "names no rows and columns; it is truncated, or the file holds no image"
REFUSED = {
    "JPEG2000-embedded-sequence-delimiter.dcm": "holds damaged pixels",
    "MR_truncated.dcm": "is truncated: 8,130 bytes of pixels where 8,192 are needed",
    **dict.fromkeys(("liver_1frame.dcm", "liver_expb_1frame.dcm"), NO_PICTURE),
    **dict.fromkeys(("reportsi.dcm", "reportsi_with_empty_number_tags.dcm"), NO_PICTURE),
    **dict.fromkeys(("rtplan.dcm", "rtplan_truncated.dcm", "rtstruct.dcm"), NO_PICTURE),
    **dict.fromkeys(("test-SR.dcm", "waveform_ecg.dcm", "badVR.dcm"), NO_PICTURE),
    **{
        f"rtdose{kind}.dcm": NO_PICTURE
        for kind in ("", "_1frame", "_expb", "_expb_1frame", "_rle", "_rle_1frame")
    },
    "ExplVR_LitEndNoMeta.dcm": NO_PICTURE,
    **dict.fromkeys(("UN_sequence.dcm", "priv_SQ.dcm", "nested_priv_SQ.dcm"), NO_SIZE),
    **dict.fromkeys(("empty_charset_LEI.dcm", "meta_missing_tsyntax.dcm"), NO_SIZE),
    "no_meta_group_length.dcm": NO_SIZE,
}
RGB_WITHOUT_SAYING_SO = {"SC_jpeg_no_color_transform.dcm", "SC_rgb_jpeg.dcm"}
JPEG_THAT_LIBJPEG_REFUSES = "JPEG-lossy.dcm"  # JPGExtended.dcm is the same picture, repaired
JPEG = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70)}
JPEG_2000 = {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}
JPEG_LS = {"1.2.840.10008.1.2.4.80"}


def shipped() -> list[Path]:
    found = [path for path in sorted(FOLDER.rglob("*")) if path.is_file()]
    return [path for path in found if kind_of(Source.of(path)) == "dicom"]


def reason_to_refuse(path: Path) -> str | None:
    if path.name.startswith("DICOMDIR"):
        return NO_PICTURE
    return NO_SIZE if "TINY_ALPHA" in path.parts else REFUSED.get(path.name)


def test_what_cannot_be_read_is_refused_with_the_true_reason():
    for path in shipped():
        reason = reason_to_refuse(path)
        if reason is not None:
            with pytest.raises(RadFoundError, match=reason.replace("(", r"\(")):
                read_study(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_can_be_read_is_read_like_an_independent_decoder_does():
    read = [path for path in shipped() if reason_to_refuse(path) is None]
    assert len(read) >= 70
    for path in read:
        (image,) = read_study(path).images
        np.testing.assert_allclose(image.voxels, expected(path), atol=1.01, err_msg=path.name)


def expected(path: Path) -> np.ndarray:
    """Grey values by pydicom's own decoders and by libjpeg-turbo, OpenJPEG and CharLS."""
    if path.name == JPEG_THAT_LIBJPEG_REFUSES:
        path = path.with_name("JPGExtended.dcm")
    dataset = pydicom.dcmread(path, force=True)
    decode = decoder(path, str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "")))
    space = str(dataset.PhotometricInterpretation)
    if decode:
        count = int(dataset.get("NumberOfFrames") or 1)
        packed = generate_pixel_data_frame(dataset.PixelData, count)
        pixels = np.stack([decode(frame) for frame in packed])
    else:
        pixels = dataset.pixel_array
        if space == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, dataset)
        elif space.startswith("YBR"):
            pixels = convert_color_space(pixels, space, "RGB")
    frames = (int(dataset.get("NumberOfFrames") or 1), dataset.Rows, dataset.Columns)
    if pixels.size > np.prod(frames):
        return (pixels[..., :3] @ [0.299, 0.587, 0.114]).reshape(frames)
    grey = pixels.reshape(frames).astype(float)
    if dataset.PixelRepresentation and pixels.dtype.kind == "u":
        grey[grey >= 1 << dataset.BitsStored - 1] -= 1 << dataset.BitsStored
    if space == "MONOCHROME1":
        grey = (1 << dataset.BitsStored) - 1 - grey
    return grey * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))


def decoder(path: Path, syntax: str):
    if path.name in RGB_WITHOUT_SAYING_SO:
        return lambda data: imagecodecs.jpeg_decode(data, colorspace="RGB", outcolorspace="RGB")
    for syntaxes, decode in (
        (JPEG, imagecodecs.jpeg_decode),
        (JPEG_2000, imagecodecs.jpeg2k_decode),
        (JPEG_LS, imagecodecs.jpegls_decode),
    ):
        if syntax in syntaxes:
            return decode
    return None
