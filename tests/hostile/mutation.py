"""Broken files: small valid ones of each format with seeded changes, and who reads them."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from radfound.exceptions import RadFoundError, ReaderFailedError
from radfound.reading import read_study
from radfound.reading.files import Source, kind_of
from radfound.reading.picture import read_picture
from radfound.reading.volumes.metaimage import read_metaimage
from radfound.reading.volumes.nifti import read_nifti
from radfound.reading.volumes.nrrd import read_nrrd
from radfound.study.frames import FrameConfig, make_frames
from radfound.study.study import Study

from .fields import NUMBERS, with_other_field
from .seeds import seeds

READ, REFUSED = "read", "refused"
MEMORY_BYTES = 6 << 30
READERS = {"nifti": read_nifti, "nrrd": read_nrrd, "metaimage": read_metaimage}
_WORDS = (b"\0", b"nan", b"inf", b"-1", b"1e999", b"../../x", b"LIST", b"\xff" * 9, b"9" * 40)


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
                number = chance.choice(NUMBERS) & (256**size - 1)
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
    """Yield `count` broken files of all formats in turn: number, name, content.

    Of each format every other file has its bytes changed, and every other one its fields.
    """
    originals = sorted(seeds().items())
    for number in range(count):
        name, content = originals[number % len(originals)]
        chance = random.Random(f"{seed}-{number}")
        by_bytes = (number // len(originals)) % 2
        yield (
            number,
            name,
            (mutated(content, chance) if by_bytes else with_other_field(name, content, chance)),
        )


def read_it(name: str, content: bytes, folder: Path) -> tuple[str, float]:
    """Read a file down to frames; return what came of it and the seconds that it took.

    Whatever is not a RadFoundError comes back by its type and message. A single file is given to
    its format's reader, beneath all that could turn another error into one of RadFound's.
    """
    path = folder / name
    path.write_bytes(content)
    began = time.monotonic()
    try:
        make_frames(_read(path), FrameConfig())
        outcome = READ
    except Exception as error:
        is_meant = isinstance(error, RadFoundError) and not isinstance(error, ReaderFailedError)
        outcome = REFUSED if is_meant else f"{type(error).__name__}: {error}"
    finally:
        path.unlink()
    return outcome, time.monotonic() - began


def _read(path: Path) -> Study:
    source = Source.of(path)
    kind = kind_of(source)
    if kind in ("png", "jpeg"):
        return Study([read_picture(source)])
    if kind in READERS:
        return Study([READERS[kind](source, 0)])
    return read_study(path, volume=0)


def limit_memory() -> None:
    """Let this process fail rather than fill the machine's memory."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
