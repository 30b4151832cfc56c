"""PNG and JPEG: pictures whose pixels have no size in mm."""

from __future__ import annotations

import numpy as np

from radfound.exceptions import StudyTooLargeError, StudyUnreadableError
from radfound.reading.files import Source, check_size
from radfound.reading.geometry import flat_affine
from radfound.reading.values import luminance
from radfound.study import StudyImage

_COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}


def read_picture(source: Source) -> StudyImage:
    """Read an 8 or 16 bit picture; colour becomes luminance, transparency is left out.

    A JPEG that says how it is to be turned is turned, as viewers do.

    Raises
    ------
    StudyUnreadableError, StudyTooLargeError
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(source.path, formats=("PNG", "JPEG")) as picture:
            check_size(source.name, picture.size)
            pixels = _pixels(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError:
        raise StudyTooLargeError(
            f"{source.name}: more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; "
            "expected a radiological image; crop or resample it"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError):
        raise StudyUnreadableError(
            f"{source.name}: the picture is truncated or damaged; "
            "expected a whole PNG or JPEG; copy or export it again"
        ) from None
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
