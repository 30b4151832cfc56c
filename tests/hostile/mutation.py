"""Broken files: small valid ones of each format with seeded changes, and who reads them."""

from __future__ import annotations

import io
import random
import resource
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import SimpleITK as sitk
from PIL import Image
from pydicom.data import get_testdata_file

from radfound.exceptions import RadFoundError
from radfound.frames import FrameConfig, make_frames
from radfound.reading import read_study

READ, REFUSED = "read", "refused"
MEMORY_BYTES = 6 << 30
_NUMBERS = (0, 1, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_WORDS = (b"\0", b"nan", b"inf", b"-1", b"1e999", b"../../x", b"LIST", b"\xff" * 9, b"9" * 40)


def seeds() -> dict[str, bytes]:
    """Return a small valid file of each format, by name."""
    found = {}
    voxels = np.random.default_rng(0).integers(0, 900, (6, 5, 4)).astype(np.int16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = nibabel.Nifti1Image(voxels, np.diag([2.0, 2, 3, 1]))
        nibabel.save(image, folder / "a.nii")
        nibabel.save(image, folder / "b.nii.gz")
        nrrd.write(str(folder / "c.nrrd"), voxels, {"encoding": "gzip"})
        nrrd.write(str(folder / "d.nrrd"), voxels, {"encoding": "raw"})
        for name, packed in (("e.mha", False), ("f.mha", True)):
            sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / name), packed)
        Image.fromarray(voxels[:, :, 0].astype(np.uint8)).save(folder / "g.png")
        for path in folder.iterdir():
            found[path.name] = path.read_bytes()
    for name in ("CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm"):
        found[name] = Path(get_testdata_file(name, download=False)).read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("series/1.dcm", found["CT_small.dcm"])
    found["h.zip"] = packed.getvalue()
    return found


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return content with one to six changes, most of them near its beginning, where headers are."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        reach = len(data) if chance.random() < 0.3 else min(len(data), 400)
        at = chance.randrange(reach + 1)
        match chance.randrange(7):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
            case 2:
                size = chance.choice((1, 2, 4))
                number = chance.choice(_NUMBERS) & (256**size - 1)
                data[at : at + size] = number.to_bytes(size, chance.choice(("little", "big")))
            case 3:
                word = chance.choice(_WORDS)
                data[at : at + len(word)] = word
            case 4:
                del data[at : at + chance.randrange(1, 40)]
            case 5:
                data[at:at] = data[at : at + chance.randrange(1, 200)]
            case 6:
                del data[at:]
    return bytes(data)


def mutations(count: int, seed: int) -> Iterator[tuple[int, str, bytes]]:
    """Yield `count` broken files of all formats in turn: number, name, content."""
    originals = sorted(seeds().items())
    for number in range(count):
        name, content = originals[number % len(originals)]
        yield number, name, mutated(content, random.Random(f"{seed}-{number}"))


def read_it(name: str, content: bytes, folder: Path) -> tuple[str, float]:
    """Read a file down to frames; return what came of it and the seconds that it took.

    Whatever is not a RadFoundError comes back by its type and message.
    """
    path = folder / name
    path.write_bytes(content)
    began = time.monotonic()
    try:
        make_frames(read_study(path), FrameConfig())
        outcome = READ
    except RadFoundError:
        outcome = REFUSED
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    finally:
        path.unlink()
    return outcome, time.monotonic() - began


def limit_memory() -> None:
    """Let this process fail rather than fill the machine's memory."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
