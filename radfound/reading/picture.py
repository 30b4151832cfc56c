"""Load PNG and JPEG pictures, whose pixels have no size in mm."""

from __future__ import annotations

import math
from typing import BinaryIO

import numpy as np

from radfound.exceptions import RadFoundError, StudyTooLargeError, StudyUnreadableError
from radfound.reading.bounds import check_unpacked
from radfound.reading.files import Source, check_size
from radfound.reading.geometry import flat_affine
from radfound.reading.values import luminance
from radfound.study.study import StudyImage

_COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
# JPEG markers that start a frame, and the names of the unsupported ones.
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_OTHER_JPEGS = {0xC3: "lossless", 0xF7: "JPEG-LS"} | dict.fromkeys(
    (*range(0xC5, 0xC8), *range(0xC9, 0xD0)), "hierarchical or arithmetic"
)


def read_picture(source: Source) -> StudyImage:
    """Load an 8 or 16 bit picture; colour becomes luminance, transparency is dropped.

    The EXIF orientation is applied, as viewers do; of an animation the first picture is loaded.

    Raises
    ------
    StudyUnreadableError, StudyTooLargeError
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(source.path, formats=("PNG", "JPEG")) as picture:
            check_size(source.name, picture.size)
            deep = 2 if picture.mode.startswith("I") else 1
            unpacked = math.prod(picture.size) * len(picture.getbands()) * deep
            check_unpacked(source.name, source.path.stat().st_size, unpacked)
            pixels = _pixels(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError:
        raise StudyTooLargeError(
            f"{source.name}: more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; "
            "expected a radiological image; crop or resample it"
        ) from None
    except RadFoundError:
        raise
    except Exception:  # PIL raises errors of many types for damaged files
        raise StudyUnreadableError(f"{source.name}: {_flaw(source)}") from None
    return StudyImage(
        voxels=pixels[np.newaxis],
        affine=flat_affine(),
        calibrated=False,
        source=source.name,
    )


def _pixels(picture) -> np.ndarray:
    """Return grey values, shape (H, W), uint8 or uint16."""
    if picture.mode in _COLOUR_MODES:
        return luminance(np.asarray(picture.convert("RGB")))
    if picture.mode.startswith("I"):
        return np.asarray(picture).astype(np.uint16)
    return np.array(picture.convert("L"))


def _flaw(source: Source) -> str:
    """Return the reason why a picture cannot be decoded: an unsupported kind of JPEG, or damage."""
    with open(source.path, "rb") as file:
        kind = _rare_jpeg(file)
    if kind:
        return f"a JPEG of {kind}, which is not supported; save it as a PNG"
    return (
        "the picture is truncated or damaged; expected a whole PNG or JPEG; copy or export it again"
    )


def _rare_jpeg(file: BinaryIO) -> str | None:
    """Return the property of a JPEG's frame header that PIL does not support, or None."""
    if file.read(2) != b"\xff\xd8":
        return None
    while (start := file.read(4)) and len(start) == 4 and start[0] == 0xFF:
        length = int.from_bytes(start[2:], "big")
        if start[1] in _FRAME_MARKERS:
            bits = (file.read(1) or b"\x08")[0]
            if start[1] in _OTHER_JPEGS:
                return f"the {_OTHER_JPEGS[start[1]]} kind"
            return f"{bits} bits" if bits != 8 else None
        file.seek(max(0, length - 2), 1)
    return None
