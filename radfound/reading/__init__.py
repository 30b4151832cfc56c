"""Load files, folders and zips as a `Study`: DICOM, NIfTI, NRRD, MetaImage, PNG and JPEG.

Heavy packages are imported when the first file is loaded.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from radfound.exceptions import (
    GeometryError,
    RadFoundError,
    ReaderFailedError,
    RequestError,
    StudyAmbiguousError,
    StudyError,
    StudyTooLargeError,
    StudyUnreadableError,
)
from radfound.reading.files import (
    FORMATS,
    Source,
    check_voxel_count,
    kind_of,
    list_folder,
    unknown_kind,
    unpack_zip,
)
from radfound.study.study import Study, StudyImage, display_name

if TYPE_CHECKING:
    from radfound.reading.dicom.header import DicomFile

__all__ = ["read_study"]

logger = logging.getLogger(__name__)

_PathLike = str | os.PathLike


def read_study(
    path: _PathLike | Sequence[_PathLike],
    *,
    series: str | None = None,
    volume: int | None = None,
    study_id: str = "",
) -> Study:
    """Load a study from a file, a folder or zip of DICOM, or a list of these.

    The format is detected from the content. DICOM slices are sorted by position along their normal.
    The images of a radiography or mammography exam in one folder become the images of one study, as
    do the members of a list, in its order.

    Parameters
    ----------
    path : path, or sequence of paths
        One file (DICOM, NIfTI, NRRD, MetaImage, PNG, JPEG), a DICOM folder or zip, or a list whose
        members become the views of the study.
    series : str, optional
        Series instance UID or series number, if a folder or zip holds several series. Damaged files
        of other series are ignored; a damaged file of this series is named in the error.
    volume : int, optional
        Index of the volume, from 0, if a file or series holds several.
    study_id : str, optional
        The caller's id of the study; the content's digest if empty.

    Returns
    -------
    Study

    Raises
    ------
    StudyUnreadableError
        If a file is missing, empty, truncated or of no known format.
    StudyAmbiguousError
        If there are several series or volumes and none was chosen, or several patients.
    GeometryError
        If slices are missing or mixed, or spacing and axes do not span three dimensions.
    IntensityError
        If voxels hold NaN or infinity.
    StudyTooLargeError
        If the size in the header exceeds the limits.
    UnsafeArchiveError
        If a zip would write outside its folder or unpacks to far more than its own size.
    RequestError
        If the `series` or `volume` does not exist.
    """
    members = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not members:
        raise RequestError("path: an empty list; expected at least one file")
    images: list[StudyImage] = []
    patients: set[str] = set()
    for member in members:
        with _reasons_for(display_name(member)):
            found, patient = _read_member(Path(member), series, volume)
        images += found
        patients |= patient
        if len(patients) > 1:
            raise StudyAmbiguousError(
                f"{display_name(member)}: images of more than one patient, alone or together with the "
                "files before it; expected one patient; load each patient's images separately"
            )
        check_voxel_count(display_name(member), [sum(image.voxels.size for image in images)])
    return Study(tuple(images), id=study_id)


@contextmanager
def _reasons_for(name: str) -> Iterator[None]:
    """Convert every error of a loader to RadFoundError, so that a batch can go on with the next study.

    The text of a library's error may quote the file, so it is left out.
    """
    try:
        yield
    except RadFoundError:
        raise
    except MemoryError:
        raise StudyTooLargeError(
            f"{name}: larger than the free memory; expected a study that fits; crop or resample it"
        ) from None
    except Exception as error:
        logger.debug("a loader failed", exc_info=True)
        raise ReaderFailedError(
            f"{name}: cannot be read ({type(error).__name__}); expected {FORMATS}; export the study "
            "again, if necessary with another program"
        ) from None


_Found = tuple[list[StudyImage], set[str]]


def _read_member(path: Path, series: str | None, volume: int | None) -> _Found:
    """Load a file, folder or zip; return its images and the patient ids in its headers."""
    name = display_name(path)
    if path.is_dir():
        return _read_folder(path, display_name(path.resolve()), series, volume)
    if not path.is_file():
        found = "not a plain file" if path.exists() else "no such file or folder"
        raise StudyUnreadableError(f"{name}: {found}; expected {FORMATS}; check the path")
    source = Source.of(path)
    if kind_of(source) == "zip":
        with tempfile.TemporaryDirectory(prefix="radfound-") as folder:
            unpack_zip(source, Path(folder))
            return _read_folder(Path(folder), name, series, volume)
    return _read_file(source, series, volume)


def _read_folder(folder: Path, name: str, series: str | None, volume: int | None) -> _Found:
    sources = list_folder(folder, name)
    if not sources:
        raise StudyUnreadableError(
            f"{name}: no files in it; expected DICOM files; give the folder or zip that holds them"
        )
    kinds = [_kind_beside(source, series) for source in sources]
    dicom = [source for source, kind in zip(sources, kinds, strict=True) if kind == "dicom"]
    if dicom:
        return _read_dicom(dicom, name, series, volume)
    others = [
        source for source, kind in zip(sources, kinds, strict=True) if kind not in (None, "zip")
    ]
    if not others:
        if "zip" in kinds:
            inner = sources[kinds.index("zip")]
            raise StudyUnreadableError(
                f"{name}: holds no image but another archive, {inner.name}; expected images; give "
                "that archive, or unpack it first"
            )
        if len(sources) == 1:
            raise unknown_kind(sources[0])
        raise StudyUnreadableError(
            f"{name}: {len(sources)} files, none of them an image; expected DICOM files; "
            "give the folder or zip that holds them"
        )
    if len(others) > 1:
        raise StudyAmbiguousError(
            f"{name}: {len(others)} images that are not DICOM, from {others[0].name} to "
            f"{others[-1].name}; expected one; give one file, or a list of files as views"
        )
    return _read_file(others[0], series, volume)


def _kind_beside(source: Source, series: str | None) -> str | None:
    """Return a file's kind; None for an unreadable file if a series was chosen."""
    try:
        return kind_of(source)
    except StudyUnreadableError:
        if series is None:
            raise
        return None


def _read_file(source: Source, series: str | None, volume: int | None) -> _Found:
    kind = kind_of(source)
    if kind == "dicom":
        return _read_dicom([source], source.name, series, volume)
    if series is not None:
        raise RequestError(f"series: {source.name} has none; expected DICOM files with series=")
    if kind in ("png", "jpeg"):
        if volume not in (None, 0):
            raise RequestError(f"volume: {source.name} is a picture; expected none or 0")
        from radfound.reading.picture import read_picture

        return [read_picture(source)], set()
    if kind == "nifti":
        from radfound.reading.volumes.nifti import read_nifti as read
    elif kind == "nrrd":
        from radfound.reading.volumes.nrrd import read_nrrd as read
    elif kind == "metaimage":
        from radfound.reading.volumes.metaimage import read_metaimage as read
    else:
        raise unknown_kind(source)
    return [read(source, volume)], set()


def _read_dicom(
    sources: Sequence[Source], name: str, series: str | None, volume: int | None
) -> _Found:
    from radfound.reading.dicom.series import choose_series, read_headers, read_images

    faults: list[tuple[Source, StudyError]] = []
    headers = read_headers(sources, name, None if series is None else faults)
    files = choose_series(headers, name, series)
    _check_unreadable(files[0], faults)
    patients = {file.patient for file in files}
    try:
        return read_images(files, name, volume), patients - {""}
    except GeometryError as error:
        if not faults:
            raise
        raise GeometryError(
            f"{error}; {faults[0][0].name} cannot be read and may belong to it"
        ) from None


def _check_unreadable(chosen: DicomFile, faults: Sequence[tuple[Source, StudyError]]) -> None:
    """Raise the error of an unreadable file that belongs to the chosen series."""
    from radfound.reading.identity import identity_of

    for source, error in faults:
        uid = identity_of(source).series_uid
        if uid and uid == chosen.series_uid:
            raise error
        if not uid:
            logger.warning("a file beside the chosen series cannot be read: %s", error.code)
