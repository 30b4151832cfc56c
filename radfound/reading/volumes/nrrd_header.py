"""Parse the header of a NRRD; its affine follows the rules of ITK and 3D Slicer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from radfound.exceptions import GeometryError, StudyUnreadableError
from radfound.reading.geometry import ras_affine
from radfound.study.taxonomy import modality_of

MAX_HEADER_BYTES = 1 << 20
_MAGIC = re.compile(rb"NRRD00(0\d|\.0\d)\s*")
_LATEST_VERSION = 5
_OTHER_NAMES = {
    "datafile": "data file",
    "lineskip": "line skip",
    "byteskip": "byte skip",
    "axismins": "axis mins",
    "axismaxs": "axis maxs",
    "centers": "centerings",
}
# Signs of the axes of a named space in LPS; other spaces are taken as LPS.
_SIGNS_IN_LPS = {"right-anterior-superior": (-1, -1, 1), "left-anterior-superior": (1, -1, 1)}
_SHORT_SPACES = {
    "lps": "left-posterior-superior",
    "ras": "right-anterior-superior",
    "las": "left-anterior-superior",
}
_SPACES = {
    *_SHORT_SPACES.values(),
    "scanner-xyz",
    "3d-right-handed",
    "3d-left-handed",
}
_SPATIAL_KINDS = {"domain", "space", "???", "none", ""}


@dataclass
class NrrdHeader:
    """Fields and key/value pairs of a header, by lower-case names; axes are ordered fastest first."""

    name: str
    fields: dict[str, str]
    pairs: dict[str, str] = field(default_factory=dict)
    data_files: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    spatial: list[int] = field(default_factory=list)

    @property
    def modality(self) -> str | None:
        """The DICOM modality from a key/value pair, as in files of dcm2niix and diffusion files."""
        value = next((self.pairs[key] for key in self.pairs if key.endswith("modality")), "")
        return modality_of(value.removeprefix("DW").removesuffix("I"))

    @property
    def others(self) -> list[int]:
        """The axes that are not spatial."""
        return [axis for axis in range(len(self.sizes)) if axis not in self.spatial]


def read_header(file: BinaryIO, name: str) -> NrrdHeader:
    """Parse a header up to its final empty line, or to the end of a detached header.

    Raises
    ------
    StudyUnreadableError
        If the header does not end, or is invalid.
    GeometryError
        If it does not have two or three spatial axes.
    """
    header = _read_fields(file, name)
    fields = header.fields
    try:
        header.sizes = [int(size) for size in fields["sizes"].split()]
        dimension = len(header.sizes)
        if int(fields["dimension"]) != dimension:
            raise ValueError("dimension")
        kinds = [word.strip('"').lower() for word in fields.get("kinds", "").split()]
        header.kinds = kinds if len(kinds) == dimension else [""] * dimension
        header.spatial = _spatial_axes(fields, header.kinds)
    except (KeyError, ValueError) as error:
        raise StudyUnreadableError(
            f"{name}: the NRRD header lacks or garbles {error}; "
            "expected sizes, type, endian and encoding; export it again"
        ) from None
    if not 2 <= len(header.spatial) <= 3:
        raise GeometryError(
            f"{name}: {len(header.spatial)} spatial axes; expected 2 or 3; export it again"
        )
    return header


def nrrd_affine(header: NrrdHeader) -> tuple[np.ndarray, bool]:
    """Return the affine and whether the file states the voxel size.

    Raises
    ------
    GeometryError
        If the geometry is missing values or invalid.
    """
    fields = header.fields
    try:
        signs = _signs_in_lps(fields)
        if "space directions" in fields:
            columns, origin = _directions(fields, header.spatial), _origin(fields)
            return ras_affine(signs[:, np.newaxis] * columns, signs * origin, header.name), True
        if "spacings" in fields and ("space" in fields or "space dimension" in fields):
            raise ValueError("spacings beside a space, which needs directions,")
        columns, origin = _without_directions(header)
        if "space origin" in fields:
            origin = signs * _origin(fields)
        return ras_affine(columns, origin, header.name), "spacings" in fields
    except (TypeError, ValueError, IndexError) as error:
        raise GeometryError(
            f"{header.name}: spacing, directions or origin in the NRRD header cannot be "
            f"understood ({error}); expected a known space and numbers for each axis; "
            "repair the header or export again"
        ) from None


def _read_fields(file: BinaryIO, name: str) -> NrrdHeader:
    magic = _MAGIC.fullmatch(file.readline(16))
    if magic is None or int(magic[1].removeprefix(b".")) > _LATEST_VERSION:
        raise StudyUnreadableError(
            f"{name}: a NRRD of an unknown version; expected 1 to {_LATEST_VERSION}; export it again"
        )
    header = NrrdHeader(name, {})
    while file.tell() < MAX_HEADER_BYTES:
        line = file.readline(MAX_HEADER_BYTES).decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            return header
        key, colon, value = line.partition(":")
        key, value = key.strip().lower(), value.strip()
        key = _OTHER_NAMES.get(key, key)
        if line.startswith("#") or not colon:
            continue
        if value.startswith("="):
            header.pairs[key] = value[1:].strip()
            continue
        if key in header.fields:
            raise StudyUnreadableError(
                f"{name}: the NRRD header says {key!r} twice; expected it once; repair the header"
            )
        header.fields[key] = value
        if key == "data file" and value.split()[:1] == ["LIST"]:
            # The rest of the file is the list.
            names = file.read(MAX_HEADER_BYTES).decode("utf-8", "replace").splitlines()
            header.data_files = [each.strip() for each in names if each.strip()]
            return header
    raise StudyUnreadableError(
        f"{name}: the NRRD header does not end within {MAX_HEADER_BYTES:,} bytes; "
        "expected an empty line after it; export it again"
    )


def _spatial_axes(fields: dict[str, str], kinds: list[str]) -> list[int]:
    """Return the spatial axes, fastest first; a fourth one is time."""
    if "space directions" in fields:
        vectors = _vectors(fields["space directions"])
        if len(vectors) != len(kinds):
            raise ValueError("space directions")
        return [axis for axis, vector in enumerate(vectors) if vector is not None][:3]
    return [axis for axis, kind in enumerate(kinds) if kind in _SPATIAL_KINDS][:3]


def _vectors(text: str) -> list[np.ndarray | None]:
    """Parse `(1,0,0) none (0,1,0)`; a vector of NaN also means none."""
    vectors = [
        None if group == "none" else np.array([float(x) for x in group[1:-1].split(",")])
        for group in re.findall(r"none|\([^)]*\)", text)
    ]
    return [None if each is None or np.isnan(each).all() else each for each in vectors]


def _signs_in_lps(fields: dict[str, str]) -> np.ndarray:
    space = fields.get("space", "").lower()
    space = _SHORT_SPACES.get(space.removesuffix("t"), space).removesuffix("-time")
    if space and space not in _SPACES:
        raise ValueError(f"space {space!r}")
    return np.array(_SIGNS_IN_LPS.get(space, (1, 1, 1)), float)


def _directions(fields: dict[str, str], spatial: list[int]) -> np.ndarray:
    """Return the axis vectors as columns; for a slice the third one is its normal."""
    vectors = [each for each in _vectors(fields["space directions"]) if each is not None]
    lengths = {len(each) for each in vectors} | {_space_dimension(fields, len(vectors[0]))}
    if len(lengths) > 1:
        raise ValueError("vectors of another length than the space")
    columns = np.eye(3)
    for column, vector in enumerate(vectors[: len(spatial)]):
        columns[: len(vector[:3]), column] = vector[:3]
    if len(spatial) == 2 and len(vectors[0]) > 2:
        normal = np.cross(columns[:, 0], columns[:, 1])
        columns[:, 2] = normal / (np.linalg.norm(normal) or 1.0)
    return columns


def _space_dimension(fields: dict[str, str], default: int) -> int:
    space = fields.get("space", "").lower()
    if space:
        return 4 if space.endswith("-time") or len(space) == 4 else 3
    return int(fields.get("space dimension", default))


def _origin(fields: dict[str, str]) -> np.ndarray:
    origin = np.zeros(3)
    vectors = _vectors(fields.get("space origin", ""))
    if vectors and vectors[0] is not None:
        origin[: len(vectors[0][:3])] = vectors[0][:3]
    return origin


def _without_directions(header: NrrdHeader) -> tuple[np.ndarray, np.ndarray]:
    """Return axis vectors along LPS, and the origin from the axes' minima."""
    dimension = len(header.sizes)
    spacings = _per_axis(header.fields, "spacings", dimension)
    least = _per_axis(header.fields, "axis mins", dimension)
    most = _per_axis(header.fields, "axis maxs", dimension)
    centerings = header.fields.get("centerings", "").lower().split()
    columns, origin = np.eye(3), np.zeros(3)
    has_steps = "spacings" in header.fields or "axis maxs" in header.fields
    is_placed = has_steps and np.isfinite(least).any()
    for column, axis in enumerate(header.spatial):
        is_node = centerings[axis : axis + 1] == ["node"]
        step = spacings[axis]
        if "spacings" in header.fields:
            columns[column, column] = step
        else:
            step = (most[axis] - least[axis]) / max(1, header.sizes[axis] - is_node)
        # A cell's minimum is its edge, half a step before its centre.
        if is_placed:
            origin[column] = least[axis] if is_node else least[axis] + step / 2
    return columns, origin


def _per_axis(fields: dict[str, str], key: str, dimension: int) -> list[float]:
    numbers = [float(word) for word in fields.get(key, "").split()] or [np.nan] * dimension
    if len(numbers) != dimension:
        raise ValueError(key)
    return numbers
