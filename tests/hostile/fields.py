"""Changes to a file that keep its structure: one field of its header says something else.

Bytes changed at random seldom get past the first check; these files are whole but for what they say.
"""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import nibabel
import numpy as np

NUMBERS = (0, 1, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
WORDS = (
    *("", " ", "0", "-1", "1", "2", "4", "nan", "inf", "-inf", "1e999", "1e-320", "9" * 40),
    *("LIST", "LIST 2", "LOCAL", "none", "../../x", "/etc/passwd", "x" * 300, "%d 0 1 1"),
    *("%s%n 0 9 1", "True", "False", "1 1 1", "0 0 0", "nan nan nan", "(0,0,0) (0,0,0) (0,0,0)"),
    *("(1,0,0) (0,1,0) (0,0,1)", "none (1,0,0) (0,1,0) (0,0,1)", "(nan,nan,nan)", "(", "()"),
    *("block", "double", "uchar", "MET_CHAR", "MET_DOUBLE", "ascii", "hex", "bzip2", "gzip"),
    *("big", "domain list domain", "RGB-color domain domain", "\0", "\u00e9\u4e00", "1\\2\\3"),
)
_REALS = (0.0, -1.0, 1e-38, 1e38, np.nan, np.inf, -np.inf, 352.0, 0.5)


def with_other_field(name: str, content: bytes, chance: random.Random) -> bytes:
    """Return a file of which one field, or a few, say something else."""
    change = next(change for ending, change in _CHANGES.items() if name.endswith(ending))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        content = change(content, chance)
    return content


def _nifti(content: bytes, chance: random.Random) -> bytes:
    kind = nibabel.Nifti2Header if content[4:7] == b"n+2" else nibabel.Nifti1Header
    if len(content) < kind.sizeof_hdr:
        return content
    header = kind(content[: kind.sizeof_hdr], check=False).structarr.copy()
    field = chance.choice(header.dtype.names)
    values = header[field].reshape(-1) if header[field].ndim else header[field][np.newaxis]
    with np.errstate(all="ignore"):
        if values.dtype.kind == "S":
            values[0] = chance.choice((b"", b"n+1", b"ni1", b"n+2", b"\xff\xff\xff"))
        elif values.dtype.kind == "f":
            values[chance.randrange(values.size)] = chance.choice(_REALS)
        else:
            bits = 8 * values.itemsize
            number = chance.choice((*NUMBERS, -1, 2, 3, 4, 16, 64, 128, 512, 1024, 1007, 2**62))
            number = number & (2**bits - 1)
            signed = (
                number - 2**bits if values.dtype.kind == "i" and number >> (bits - 1) else number
            )
            values[chance.randrange(values.size)] = signed
    if header[field].ndim == 0:
        header[field] = values[0]
    return header.tobytes() + content[kind.sizeof_hdr :]


def _packed_nifti(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.7:
        try:
            return gzip.compress(_nifti(gzip.decompress(content), chance), 1, mtime=0)
        except (EOFError, OSError, zlib.error):
            return content
    head = bytearray(content)
    match chance.randrange(3):
        case 0:
            head[3] = chance.randrange(256)
        case 1:
            head[10:10] = chance.randbytes(chance.choice((1, 30, 3_000)))
            head[3] |= chance.choice((2, 4, 8, 16))
        case 2:
            head += chance.choice((bytes(9), gzip.compress(b"more"), b"\x1f", content[:50]))
    return bytes(head)


def _text(content: bytes, chance: random.Random) -> bytes:
    """Change a line of a NRRD's or MetaImage's header; take one away, repeat it or add one."""
    separator = b": " if content.startswith(b"NRRD") else b" = "
    end = content.find(b"\n\n") if content.startswith(b"NRRD") else content.find(b"ElementDataFile")
    lines = content[: max(0, end)].split(b"\n")
    at = chance.randrange(len(lines))
    key = lines[at].split(separator)[0]
    word = chance.choice(WORDS).encode()
    match chance.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[at])
        case 2:
            names = (
                b"byte skip",
                b"line skip",
                b"data file",
                b"space",
                b"space dimension",
                b"kinds",
            )
            names += (b"axis mins", b"HeaderSize", b"ElementNumberOfChannels", b"CompressedData")
            lines.insert(at, chance.choice(names) + separator + word)
        case 3:
            numbers = lines[at].split(b" ")
            numbers[chance.randrange(len(numbers))] = word
            lines[at] = b" ".join(numbers)
        case _:
            lines[at] = key + separator + word
    return b"\n".join(lines) + content[max(0, end) :]


def _png(content: bytes, chance: random.Random) -> bytes:
    """Change, repeat or take away a chunk, with a checksum that is right again."""
    chunks = list(_png_chunks(content))
    if not chunks:
        return content
    at = chance.randrange(len(chunks))
    kind, data = chunks[at]
    match chance.randrange(4):
        case 0:
            del chunks[at]
        case 1:
            chunks.insert(chance.randrange(len(chunks)), chunks[at])
        case 2:
            kinds = (
                b"tRNS",
                b"PLTE",
                b"gAMA",
                b"iCCP",
                b"zTXt",
                b"acTL",
                b"fcTL",
                b"eXIf",
                b"sBIT",
            )
            chunks.insert(
                at + 1, (chance.choice(kinds), chance.randbytes(chance.choice((0, 3, 40))))
            )
        case _:
            chunks[at] = (kind, _with_other_number(data, chance))
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += 12 + length


def _jpeg(content: bytes, chance: random.Random) -> bytes:
    """Change a number of a segment, its marker, or its length."""
    places, at = [], 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        places.append(at)
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    if not places:
        return content
    at = chance.choice(places)
    data = bytearray(content)
    match chance.randrange(3):
        case 0:
            data[at + 1] = chance.choice((*range(0xC0, 0xD0), 0xDB, 0xDD, 0xE1, 0xEE, 0xF7, 0xFE))
        case 1:
            data[at + 2 : at + 4] = chance.choice(NUMBERS).to_bytes(4, "big")[2:]
        case 2:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            data[at + 4 : end] = _with_other_number(bytes(data[at + 4 : end]), chance)
    return bytes(data)


def _with_other_number(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    at, size = chance.randrange(len(data) + 1), chance.choice((1, 2, 4))
    changed[at : at + size] = (chance.choice(NUMBERS) & (256**size - 1)).to_bytes(size, "big")
    return bytes(changed)


def _dicom(content: bytes, chance: random.Random) -> bytes:
    """Change the value, length or VR of an element, or take it away."""
    elements = list(_elements(content))
    if not elements:
        return content
    start, vr, place, length = chance.choice(elements)
    at_length = place - (2 if place - start == 8 and vr else 4)
    value = content[place : place + length]
    match chance.randrange(8):
        case 0:
            return content[:start] + content[place + length :]
        case 1:
            return content[:start] + content[start : place + length] * 2 + content[place + length :]
        case 2:
            size = place - at_length
            number = chance.choice((*NUMBERS, 2, 4, 3)) & (256**size - 1)
            return content[:at_length] + number.to_bytes(size, "little") + content[place:]
        case 3 if vr:
            other = chance.choice((b"US", b"DS", b"IS", b"SQ", b"OB", b"UN", b"XX", b"FD", b"AT"))
            return content[: start + 4] + other + content[start + 6 :]
        case 4 if length:
            return (
                content[:place]
                + _with_other_number(value, chance)[:length]
                + content[place + length :]
            )
    size = place - at_length
    new = _value(vr, chance)
    return content[:at_length] + len(new).to_bytes(size, "little") + new + content[place + length :]


def _value(vr: bytes, chance: random.Random) -> bytes:
    if vr in (b"US", b"SS", b"UL", b"SL"):
        size = 2 if vr[1:] == b"S" else 4
        values = [
            chance.choice(NUMBERS) & (256**size - 1) for _ in range(chance.choice((0, 1, 1, 3)))
        ]
        return b"".join(value.to_bytes(size, "little") for value in values)
    if vr in (b"FD", b"FL"):
        return np.array(chance.choice(_REALS), "<f8" if vr == b"FD" else "<f4").tobytes()
    text = chance.choice(WORDS).encode()[:200]
    return text + b" " * (len(text) % 2)


def _elements(content: bytes) -> Iterator[tuple[int, bytes, int, int]]:
    """Yield start, VR, place and length of the values of all elements, those in sequences too."""
    at = 132 if content[128:132] == b"DICM" else 0
    long_form = (b"OB", b"OW", b"OF", b"OD", b"SQ", b"UT", b"UN", b"UC", b"UR")
    while at + 8 <= len(content):
        vr = content[at + 4 : at + 6]
        is_item = content[at : at + 2] == b"\xfe\xff"
        if is_item or not vr.isalpha() or not vr.isupper():
            vr, place, length = b"", at + 8, int.from_bytes(content[at + 4 : at + 8], "little")
        elif vr in long_form:
            place, length = at + 12, int.from_bytes(content[at + 8 : at + 12], "little")
        else:
            place, length = at + 8, int.from_bytes(content[at + 6 : at + 8], "little")
        goes_in = is_item or vr == b"SQ" or length == 0xFFFFFFFF
        if not goes_in and place + length <= len(content):
            yield at, vr, place, length
        at = place if goes_in else place + length


def _zip(content: bytes, chance: random.Random) -> bytes:
    """Change one of the files inside, or its name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(list(files))
    if name.endswith((".dcm", ".nhdr", ".hdr")) and chance.random() < 0.8:
        files[name] = with_other_field(name, files[name], chance)
    else:
        other = chance.choice(("../x", "/x", "a/b/c", "x.dcm", "\u00e9.raw", "x" * 250, "a:b", "."))
        files[other] = files.pop(name)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, data in files.items():
            archive.writestr(each, data)
    return packed.getvalue()


_CHANGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".nii": _nifti,
    ".hdr": _nifti,
    ".nii.gz": _packed_nifti,
    ".nrrd": _text,
    ".nhdr": _text,
    ".mha": _text,
    ".png": _png,
    ".jpg": _jpeg,
    ".dcm": _dicom,
    ".zip": _zip,
}
