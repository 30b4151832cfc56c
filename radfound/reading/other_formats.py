"""Unsupported formats, recognised so that error messages can name them."""

from __future__ import annotations

import re

_OTHERS = {
    "a PDF": rb"%PDF",
    "a TIFF": rb"II\*\0|MM\0\*",
    "a GIF": rb"GIF8",
    "a tar archive": rb".{257}ustar",
    "a gzip": rb"\x1f\x8b",
    "a bzip2 archive": rb"BZh\d",
    "a 7z archive": rb"7z\xbc\xaf\x27\x1c",
    "a xz archive": rb"\xfd7zXZ\0",
    "a zstd archive": rb"\x28\xb5\x2f\xfd",
    "a RAR archive": rb"Rar!\x1a\x07",
    "a MINC or another NetCDF": rb"CDF[\1\2]",
    "a MINC or another HDF5": rb"\x89HDF\r\n\x1a\n",
    "a FreeSurfer MGH": rb"\0\0\0\x01(\0\0..){3}\0\0..\0\0\0[\0-\x0a]",
    "a GIFTI surface": rb"<\?xml.*<GIFTI|\s*<GIFTI",
    "an AFNI header": rb"\s*type\s*=\s*\w+-attribute",
    "a Philips PAR header": rb"#.*DATA DESCRIPTION FILE",
    "an ECAT": rb"MATRIX7",
    "streamlines": rb"TRACK\0|mrtrix tracks",
    "a VTK": rb"# vtk DataFile|<VTKFile",
    "an XML": rb"<\?xml",
}


def describe(head: bytes) -> str | None:
    """Name the format of a file from its first bytes, with an article; None if unknown."""
    for name, pattern in _OTHERS.items():
        if re.match(pattern, head, re.DOTALL):
            return name
    if head and all(byte >= 32 or byte in b"\t\r\n\f" for byte in head):
        return "text"
    return None
