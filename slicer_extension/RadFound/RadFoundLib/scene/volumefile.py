"""A volume's voxels and geometry as an NRRD file, identified by its hash.

NRRD rather than NIfTI: it stores the geometry in full precision, and colour images unchanged.
"""

import hashlib
import io
import tempfile
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable, Optional

import numpy as np

from ..net.cancellation import Cancellation
from ..net.errors import ClientError
from ..translation import _

_CHUNK_BYTES = 1 << 20
_TYPES = {
    "i1": "int8",
    "u1": "uint8",
    "i2": "int16",
    "u2": "uint16",
    "i4": "int32",
    "u4": "uint32",
    "f4": "float",
    "f8": "double",
}
_COLOURS = {3: "RGB-color", 4: "RGBA-color"}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class VolumeContent:
    """A volume's voxels and geometry, without its name or any patient data.

    Parameters
    ----------
    voxels : array, shape (K, J, I), or (K, J, I, C) with 3 or 4 colours
        As returned by `slicer.util.arrayFromVolume`: a view without a copy. It keeps the memory
        alive; VTK allocates new voxels elsewhere meanwhile.
    affine : float64 array, shape (4, 4)
        From (i, j, k) to RAS in mm.
    """

    voxels: np.ndarray
    affine: np.ndarray

    def __post_init__(self) -> None:
        if self.voxels.ndim not in (3, 4) or self.voxels.shape[3:] not in ((), (3,), (4,)):
            raise ClientError(
                _(
                    "This kind of volume cannot be sent: expected voxels with one value or a colour."
                ),
                "request",
            )
        if self.voxels.dtype.str[1:] not in _TYPES:
            raise ClientError(
                _("Volumes of type {type} cannot be sent: cast it to a smaller type first.").format(
                    type=self.voxels.dtype.name
                ),
                "request",
            )
        if not np.isfinite(self.affine).all() or abs(np.linalg.det(self.affine[:3, :3])) < 1e-12:
            raise ClientError(
                _("The volume has no extent in one direction: check its spacing in Volumes."),
                "request",
            )

    @property
    def size(self) -> int:
        """Size of the uncompressed file in bytes."""
        return len(self.header()) + self.voxels.nbytes

    def header(self, encoding: str = "raw") -> bytes:
        """Return the NRRD header."""
        colours = self.voxels.shape[3:]
        sizes = [*colours, *reversed(self.voxels.shape[:3])]
        # RAS to LPS, which every NRRD loader supports.
        steps = self.affine[:3, :3].T * (-1, -1, 1)
        origin = self.affine[:3, 3] * (-1, -1, 1)
        directions = ["none"] * len(colours) + [_vector(step) for step in steps]
        kinds = [_COLOURS[count] for count in colours] + ["domain"] * 3
        little = self.voxels.dtype.newbyteorder("=").str[0] != ">"
        lines = [
            "NRRD0004",
            f"type: {_TYPES[self.voxels.dtype.str[1:]]}",
            f"dimension: {len(sizes)}",
            "space: left-posterior-superior",
            "sizes: " + " ".join(str(size) for size in sizes),
            "space directions: " + " ".join(directions),
            "kinds: " + " ".join(kinds),
            f"endian: {'little' if little else 'big'}",
            f"encoding: {encoding}",
            f"space origin: {_vector(origin)}",
        ]
        return "\n".join([*lines, "", ""]).encode("ascii")

    def digest(
        self, progress: Optional[Progress] = None, cancel: Optional[Cancellation] = None
    ) -> str:
        """Return the SHA-256 of the uncompressed file, in hex."""
        sha = hashlib.sha256(self.header())
        flat = self._flat()
        for start in range(0, len(flat), _CHUNK_BYTES):
            _check(cancel)
            sha.update(flat[start : start + _CHUNK_BYTES])
            if progress is not None:
                progress(min(start + _CHUNK_BYTES, len(flat)), len(flat))
        return sha.hexdigest()

    def open(self) -> BinaryIO:
        """Open the uncompressed file in memory, without copying the voxels."""
        return io.BufferedReader(_Joined([memoryview(self.header()), self._flat()]), _CHUNK_BYTES)

    def open_compressed(
        self, progress: Optional[Progress] = None, cancel: Optional[Cancellation] = None
    ) -> BinaryIO:
        """Open the file with compressed voxels; it is temporary and removed when closed."""
        try:
            file: Any = tempfile.TemporaryFile(prefix="radfound-")
        except OSError as error:
            raise _unpacked(error) from error
        try:
            file.write(self.header("gzip"))
            # Level 1: in a hospital's network, better compression takes longer than sending.
            packer = zlib.compressobj(1, wbits=31)
            flat = self._flat()
            for start in range(0, len(flat), _CHUNK_BYTES):
                _check(cancel)
                file.write(packer.compress(flat[start : start + _CHUNK_BYTES]))
                if progress is not None:
                    progress(min(start + _CHUNK_BYTES, len(flat)), len(flat))
            file.write(packer.flush())
            file.seek(0)
        except OSError as error:
            file.close()
            raise _unpacked(error) from error
        except BaseException:
            file.close()
            raise
        return file

    def _flat(self) -> memoryview:
        return np.ascontiguousarray(self.voxels).reshape(-1).view(np.uint8).data


class _Joined(io.RawIOBase):
    """Several memory buffers as one file."""

    def __init__(self, pieces: Any):
        self._pieces = pieces
        self._size = sum(len(piece) for piece in pieces)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = min(max(base + offset, 0), self._size)
        return self._at

    def readinto(self, buffer: Any) -> int:
        start = self._at
        for piece in self._pieces:
            if start < len(piece):
                part = piece[start : start + len(buffer)]
                buffer[: len(part)] = part
                self._at += len(part)
                return len(part)
            start -= len(piece)
        return 0


def _vector(values: Any) -> str:
    return "(" + ",".join(repr(float(value) + 0.0) for value in values) + ")"


def _unpacked(error: OSError) -> ClientError:
    message = _("The volume cannot be compressed on this disk ({why}).")
    return ClientError(message.format(why=error.strerror), "request")


def _check(cancel: Optional[Cancellation]) -> None:
    if cancel is not None and cancel.is_set:
        raise ClientError(_("Stopped."), "cancelled")
