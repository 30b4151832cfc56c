"""An evidence map of the server: read in a job's thread, so that Slicer only has to show it."""

import zlib
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import vtk

from ..net.errors import ClientError
from ..translation import _

_TYPES = {"unsigned char": "u1", "uchar": "u1", "uint8": "u1", "float": "f4"}
_LPS = "left-posterior-superior"


@dataclass(frozen=True)
class EvidenceMap:
    """Where a model looked, on the voxels of a volume.

    Parameters
    ----------
    image : vtkImageData
        One value a voxel, not negative; at home in no scene yet.
    affine : float64 array, shape (4, 4)
        From (i, j, k) to the volume's RAS in mm.
    highest : float
        The largest value.
    strongest : (i, j, k) or None
        The middle one of the voxels with this value; None if the map is uniform.
    """

    image: Any
    affine: np.ndarray
    highest: float
    strongest: Optional[tuple]

    @classmethod
    def of(cls, voxels: np.ndarray, affine: np.ndarray) -> "EvidenceMap":
        """Return the map of these values, uint8 or float32 of shape (K, J, I), with its strongest place."""
        highest = voxels.max()
        places = np.flatnonzero(voxels == highest)
        strongest = None
        if len(places) < voxels.size:
            place = np.unravel_index(places[len(places) // 2], voxels.shape)
            strongest = tuple(int(each) for each in reversed(place))
        from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

        image = vtk.vtkImageData()
        image.SetDimensions(*reversed(voxels.shape))
        image.AllocateScalars(get_vtk_array_type(voxels.dtype), 1)
        vtk_to_numpy(image.GetPointData().GetScalars())[:] = voxels.reshape(-1)
        return cls(image, affine, float(highest), strongest)

    @classmethod
    def read(cls, file: bytes) -> "EvidenceMap":
        """Read an NRRD file as the server writes it; ClientError "protocol" if it is none.

        VTK would read it on the main thread, and stop Slicer for as long as unpacking takes.
        """
        try:
            return cls._read(file)
        except (ValueError, KeyError, IndexError, zlib.error) as error:
            raise ClientError(
                _("The server sent an unreadable evidence map; tell whoever runs it."), "protocol"
            ) from error

    @classmethod
    def _read(cls, file: bytes) -> "EvidenceMap":
        head, _blank, content = file.partition(b"\n\n")
        lines = head.decode("ascii").split("\n")
        if not lines[0].startswith("NRRD"):
            raise ValueError("another kind of file")
        fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        shape = tuple(int(size) for size in reversed(fields["sizes"].split()))
        if len(shape) != 3 or fields["space"] != _LPS or fields.get("endian", "little") != "little":
            raise ValueError("another kind of volume")
        kind = np.dtype("<" + _TYPES[fields["type"]])
        if fields["encoding"] in ("gzip", "gz"):
            content = zlib.decompress(content, 31, int(np.prod(shape)) * kind.itemsize)
        affine = np.eye(4)
        steps = [_numbers(step) for step in fields["space directions"].split()]
        affine[:3, :3] = np.array(steps).T
        affine[:3, 3] = _numbers(fields["space origin"])
        affine[:2] *= -1  # LPS to RAS
        return cls.of(np.frombuffer(content, kind).reshape(shape), affine)


def _numbers(vector: str) -> list:
    return [float(value) for value in vector.strip("()").split(",")]
