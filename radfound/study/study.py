"""A study: one or more images of one patient, with geometry and source."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class StudyImage:
    """One image or volume of a study.

    Parameters
    ----------
    voxels : array, shape (D, H, W)
        Grey values indexed [k, j, i]; D is 1 for a 2D image. In Hounsfield units if `hounsfield`;
        MONOCHROME1 is inverted, so that larger is brighter.
    affine : float64 array, shape (4, 4)
        Maps (i, j, k, 1), that is (column, row, slice), to RAS in mm, as Slicer's IJKToRAS does.
    modality : str or None
        DICOM code of `radfound.study.taxonomy.MODALITIES`; None if not stated.
    view : str or None
        Projection or mammographic view, such as "PA", "LATERAL", "L CC", "R MLO".
    body_part : str or None
        The header's body part, lower case.
    hounsfield : bool
        Whether the values are Hounsfield units.
    calibrated : bool
        Whether `affine` comes from the file; False for PNG and JPEG, whose pixels have no size in mm.
    source : str
        File or folder name, for messages; no directory and no patient name.
    prior : bool
        Whether the image is from an earlier study of the patient, shown for comparison.
    """

    voxels: np.ndarray
    affine: np.ndarray
    modality: str | None = None
    view: str | None = None
    body_part: str | None = None
    hounsfield: bool = False
    calibrated: bool = True
    source: str = ""
    prior: bool = False

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel size along i, j and k in mm, shape (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def is_volume(self) -> bool:
        """Whether there is more than one slice."""
        return self.voxels.shape[0] > 1

    @cached_property
    def digest(self) -> str:
        """SHA-256 of voxels, geometry and all metadata that frames depend on; independent of the file."""
        sha = hashlib.sha256()
        meta = (
            self.voxels.shape,
            str(self.voxels.dtype),
            self.modality,
            self.view,
            self.hounsfield,
        )
        sha.update(repr(meta + (("prior",) if self.prior else ())).encode())
        sha.update(np.ascontiguousarray(self.affine, dtype="<f8").tobytes())
        sha.update(np.ascontiguousarray(self.voxels).data)
        return sha.hexdigest()


class Study:
    """Images of one patient that belong together.

    A radiograph is one image of one slice, a mammography exam four such images, a CT one image of many
    slices.

    Parameters
    ----------
    images : sequence of StudyImage, at least one
    id : str
        The caller's name of the study; if empty, the first 16 digits of the digest.
    """

    def __init__(self, images: Sequence[StudyImage], id: str = ""):
        if not images:
            raise ValueError("a study needs at least one image")
        self.images = tuple(images)
        self._given_id = id

    @property
    def id(self) -> str:
        """The caller's name of the study, or the first 16 digits of the digest."""
        # Lazy: the digest of a volume takes a while.
        return self._given_id or self.digest[:16]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the images' digests, in order."""
        return hashlib.sha256("".join(image.digest for image in self.images).encode()).hexdigest()

    @property
    def has_prior(self) -> bool:
        """Whether some images are from an earlier study, beside those of the present one."""
        return len({image.prior for image in self.images}) > 1

    @property
    def present(self) -> Study:
        """The study without the images of an earlier one."""
        if not self.has_prior:
            return self
        return Study([image for image in self.images if not image.prior], self._given_id)

    def blanked(self) -> Study:
        """Return the study with every voxel zero."""
        return Study([replace(image, voxels=np.zeros_like(image.voxels)) for image in self.images])


def display_name(path: str | os.PathLike[str]) -> str:
    """Return the last part of a path as valid text; messages show no other part."""
    return (Path(path).name or str(path)).encode("utf-8", "replace").decode()
