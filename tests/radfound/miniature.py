"""Miniature image files, written on the spot and known to the last voxel, and how to read them."""

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from radfound.reading import read_study

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def ramp(*shape: int, dtype=np.int16) -> np.ndarray:
    """Voxels that are all different."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def dicom_dataset(pixels: np.ndarray, **tags) -> Dataset:
    """A data set around pixels (H, W), (F, H, W) or, with SamplesPerPixel=3, ([F,] H, W, 3)."""
    dataset = Dataset()
    bits = pixels.dtype.itemsize * 8
    defaults = {
        "SOPClassUID": CT_STORAGE,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "Modality": "CT",
        "PatientName": "Muster^Erika",
        "PatientID": "P-4711",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    if tags.get("Modality", "CT") == "CT":
        defaults |= {"RescaleSlope": 1, "RescaleIntercept": 0}
    defaults.update(tags)
    for keyword, value in defaults.items():
        if value is not None:
            setattr(dataset, keyword, value)
    colour = dataset.SamplesPerPixel > 1
    frame = pixels.shape[: pixels.ndim - 1] if colour else pixels.shape
    dataset.Rows, dataset.Columns = frame[-2:]
    if len(frame) == 3:
        dataset.NumberOfFrames = frame[0]
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelData = pixels.tobytes()
    if pixels.nbytes % 2:
        dataset.PixelData += b"\0"
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def write_dicom(path: Path, pixels: np.ndarray, **tags) -> Path:
    """Write one file; tags by keyword, None leaves a default out."""
    pydicom.dcmwrite(path, dicom_dataset(pixels, **tags), write_like_original=False)
    return path


def items(**tags) -> Dataset:
    """A data set of nested ones: a dict stands for a sequence of one item."""
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, [items(**value)] if isinstance(value, dict) else value)
    return dataset


def write_enhanced(
    path: Path, pixels: np.ndarray, positions, groups=None, *, directions=AXIAL, shared=None, **tags
) -> Path:
    """Write an enhanced multi-frame file: a position and functional groups of its own a frame."""
    own = [
        items(PlanePositionSequence={"ImagePositionPatient": list(map(float, position))}, **group)
        for position, group in zip(positions, groups or [{}] * len(positions), strict=True)
    ]
    common = items(
        PixelMeasuresSequence={"PixelSpacing": [0.8, 0.5], "SliceThickness": 3.0},
        PlaneOrientationSequence={
            "ImageOrientationPatient": list(map(float, np.ravel(directions)))
        },
        **(shared or {}),
    )
    enhanced = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1",
        "Modality": "MR",
        "SharedFunctionalGroupsSequence": [common],
        "PerFrameFunctionalGroupsSequence": own,
    }
    return write_dicom(path, pixels, **{**enhanced, **tags})


def write_series(
    folder: Path,
    voxels: np.ndarray,
    *,
    directions=AXIAL,
    spacing_mm=(1.0, 1.0),
    origin=(0.0, 0.0, 0.0),
    step=(0.0, 0.0, 1.0),
    **tags,
) -> Path:
    """Write a slice per file, in LPS; neither names nor instance numbers follow the positions.

    `spacing_mm` is (between columns, between rows), as in an affine; DICOM has them the other way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = list(range(len(voxels)))
    random.Random(0).shuffle(names)
    for k, pixels in enumerate(voxels):
        position = np.asarray(origin) + k * np.asarray(step)
        write_dicom(
            folder / f"slice{names[k]:03d}.dcm",
            pixels,
            ImagePositionPatient=[round(float(x), 9) for x in position],
            ImageOrientationPatient=[round(float(x), 9) for x in np.ravel(directions)],
            PixelSpacing=[float(spacing_mm[1]), float(spacing_mm[0])],
            InstanceNumber=names[k] + 1,
            **tags,
        )
    return folder


def rotation(axis, degrees: float) -> np.ndarray:
    """A rotation matrix, by Rodrigues' formula."""
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def place_of(image, value) -> np.ndarray:
    """Where in RAS mm the one voxel of that value lies."""
    ((k, j, i),) = np.argwhere(image.voxels == value)
    return (image.affine @ (i, j, k, 1))[:3]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(size, bits: int, colour: int, rows: bytes, *chunks: bytes, interlace=0) -> bytes:
    """A PNG of (width, height) pixels, given its rows, each behind the number of its filter."""
    head = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlace)
    parts = [png_chunk(b"IHDR", head), *chunks, png_chunk(b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + png_chunk(b"IEND", b"")


def voxels_of(path, **choice) -> np.ndarray:
    """Read a study of one image and return its voxels."""
    (image,) = read_study(path, **choice).images
    return image.voxels


def refusal(error, path, **choice) -> str:
    """Read what cannot be read; return the message, which must name no directory."""
    with pytest.raises(error) as info:
        read_study(path, **choice)
    assert type(info.value) is error
    message = str(info.value)
    assert "/" not in message
    assert "Muster" not in message and "P-4711" not in message
    assert info.value.__cause__ is None
    return message
