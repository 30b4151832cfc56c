"""DICOM files in every transfer syntax, packed by encoders that the reader does not use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixel_data_handlers.rle_handler import rle_encode_frame
from pydicom.uid import UID

from .miniature import dicom_dataset

imagecodecs = pytest.importorskip(
    "imagecodecs",
    reason="imagecodecs of requirements-dev.txt is not installed; it packs the pixels",
)

_SAME_LENGTH = UID("1.2.840.10008.1.2.4.100")  # in place of those that pydicom does not know yet
BIG_ENDIAN = "1.2.840.10008.1.2.2"


def plain(frame: np.ndarray, bits: int) -> bytes:
    return frame.tobytes() + b"\0" * (frame.nbytes % 2)


def rle(frame: np.ndarray, bits: int) -> bytes:
    return rle_encode_frame(frame)


def lossless_jpeg(frame: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpeg_encode(unsigned(frame, bits), lossless=True, bitspersample=bits)


def jpeg(frame: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpeg_encode(frame, level=95, bitspersample=bits)


def jpeg_ls(frame: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpegls_encode(unsigned(frame, bits))


def near_lossless(frame: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpegls_encode(frame, level=2)


def jpeg2000(frame: np.ndarray, bits: int, **options) -> bytes:
    options = {"level": 0, "reversible": True, "codecformat": "J2K", **options}
    return imagecodecs.jpeg2k_encode(frame, bitspersample=bits, **options)


def unsigned_jpeg2000(frame: np.ndarray, bits: int) -> bytes:
    return jpeg2000(unsigned(frame, bits), bits)


def boxed_jpeg2000(frame: np.ndarray, bits: int) -> bytes:
    return jpeg2000(frame, bits, codecformat="JP2")


def lossy_jpeg2000(frame: np.ndarray, bits: int) -> bytes:
    return jpeg2000(frame, bits, reversible=False, level=60)


def htj2k(frame: np.ndarray, bits: int) -> bytes:
    return imagecodecs.htj2k_encode(unsigned(frame, bits))


def unsigned(frame: np.ndarray, bits: int) -> np.ndarray:
    """The stored bits as they lie in the file, negative numbers as two's complement."""
    return (frame & ((1 << bits) - 1)).astype(f"u{frame.dtype.itemsize}")


@dataclass(frozen=True)
class Packing:
    """A transfer syntax and an encoder; `decode` is an independent decoder where it loses."""

    name: str
    number: str
    encode: Callable[[np.ndarray, int], bytes]
    decode: Callable | None = None
    bits: Sequence[int] = (6, 7, 8, 10, 12, 16)
    is_signed: bool = True

    @property
    def syntax(self) -> str:
        return f"1.2.840.10008.1.2{self.number}"


NATIVE = [
    Packing("implicit", "", plain),
    Packing("explicit", ".1", plain),
    Packing("deflated", ".1.99", plain),
    Packing("big endian", ".2", plain),
]
LOSSLESS = [
    *NATIVE,
    Packing("encapsulated uncompressed", ".1.98", plain),
    Packing("RLE", ".5", rle),
    Packing("JPEG lossless 14", ".4.57", lossless_jpeg),
    Packing("JPEG lossless 14 SV1", ".4.70", lossless_jpeg),
    Packing("JPEG-LS", ".4.80", jpeg_ls),
    Packing("JPEG 2000 lossless", ".4.90", jpeg2000),
    Packing("JPEG 2000 lossless, unsigned codestream", ".4.90", unsigned_jpeg2000),
    Packing("JPEG 2000 lossless, in a JP2 file", ".4.90", boxed_jpeg2000),
    Packing("JPEG 2000", ".4.91", jpeg2000),
    Packing("HTJ2K lossless", ".4.201", htj2k),
    Packing("HTJ2K lossless RPCL", ".4.202", htj2k),
    Packing("HTJ2K", ".4.203", htj2k),
]
LOSSY = [
    Packing("JPEG baseline", ".4.50", jpeg, imagecodecs.jpeg_decode, (8,), False),
    Packing("JPEG extended, 8 bits", ".4.51", jpeg, imagecodecs.jpeg_decode, (8,), False),
    Packing("JPEG extended, 12 bits", ".4.51", jpeg, imagecodecs.jpeg_decode, (12,), False),
    Packing(
        "JPEG-LS near-lossless", ".4.81", near_lossless, imagecodecs.jpegls_decode, (8, 16), False
    ),
    Packing("JPEG 2000 lossy", ".4.91", lossy_jpeg2000, imagecodecs.jpeg2k_decode, (8, 16)),
]


def write_packed(
    path: Path, frames: np.ndarray, syntax: str, packed: Sequence[bytes], **tags
) -> Path:
    """Write packed frames; `frames` gives their shape and type, which `tags` can contradict."""
    dataset = dicom_dataset(frames, **tags)
    known = UID(syntax) if UID(syntax).is_transfer_syntax else _SAME_LENGTH
    dataset.file_meta.TransferSyntaxUID = known
    if syntax not in {packing.syntax for packing in NATIVE}:
        dataset.PixelData = encapsulate(list(packed))
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.PixelData = b"".join(packed)
    dataset.is_implicit_VR = syntax == "1.2.840.10008.1.2"
    dataset.is_little_endian = syntax != BIG_ENDIAN
    pydicom.dcmwrite(path, dataset, write_like_original=False)
    path.write_bytes(path.read_bytes().replace(known.encode(), syntax.encode(), 1))
    return path


def write(path: Path, frames: np.ndarray, packing: Packing, bits: int, **tags) -> Path:
    """Write frames (F, H, W) or, with SamplesPerPixel=3, (F, H, W, 3) through an encoder."""
    stored = frames.astype(frames.dtype.newbyteorder(">")) if packing.number == ".2" else frames
    packed = [packing.encode(frame, bits) for frame in stored]
    return write_packed(path, frames, packing.syntax, packed, BitsStored=bits, **tags)
