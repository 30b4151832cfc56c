"""Files, folders and zips to `Study`: DICOM, NIfTI, NRRD, MetaImage, PNG and JPEG.

Nothing heavy is imported before the first file is read.
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
    """Read a study from a file, a folder or zip of DICOM, or a list of such.

    What a file is, is told by its content. DICOM slices are sorted by position along their normal.
    The images of a radiograph or mammogram exam in one folder become the images of one study, as do
    the members of a list, in its order.

    Parameters
    ----------
    path : path, or sequence of paths
        One file (DICOM, NIfTI, NRRD, MetaImage, PNG, JPEG), a DICOM folder or zip, or a list, of
        which each member becomes a view of the study.
    series : str, optional
        Series instance UID or series number, where a folder or zip holds several series. It is read
        whatever lies beside it; one of its own files that cannot be read is named in the error.
    volume : int, optional
        Which one, from 0, where a file or series holds several volumes.
    study_id : str, optional
        The name under which the caller knows the study; the content's digest if empty.

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
        If slices are missing or mixed, or spacing and axes do not span space.
    IntensityError
        If voxels hold NaN or infinity.
    StudyTooLargeError
        If the header promises more than can be read.
    UnsafeArchiveError
        If a zip would write outside its folder or unpacks to far more than it holds.
    RequestError
        If `series` or `volume` names none that exists.
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
                f"{display_name(member)}: images of more than one patient, by itself or with the "
                "files before it; expected one patient's; read each patient's by themselves"
            )
        check_voxel_count(display_name(member), [sum(image.voxels.size for image in images)])
    return Study(tuple(images), id=study_id)


@contextmanager
def _reasons_for(name: str) -> Iterator[None]:
    """Let nothing but RadFoundError leave the readers: whoever reads many studies goes on with the next.

    What a library raises may hold a part of the file, so its text is shown to nobody.
    """
    try:
        yield
    except RadFoundError:
        raise
    except MemoryError:
        raise StudyTooLargeError(
            f"{name}: larger than the memory that is free; expected a study that fits; crop or "
            "resample it"
        ) from None
    except Exception as error:
        logger.debug("a reader failed", exc_info=True)
        raise ReaderFailedError(
            f"{name}: cannot be read ({type(error).__name__}); expected {FORMATS}; export the study "
            "again, by another program if it stays so"
        ) from None


_Found = tuple[list[StudyImage], set[str]]


def _read_member(path: Path, series: str | None, volume: int | None) -> _Found:
    """Read a file, folder or zip; return its images and the patients that its headers name."""
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
    """Tell a file's kind; where a series was chosen, a file that cannot be opened is of none."""
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
    _check_strangers(files[0], faults)
    patients = {file.patient for file in files}
    try:
        return read_images(files, name, volume), patients - {""}
    except GeometryError as error:
        if not faults:
            raise
        raise GeometryError(
            f"{error}; {faults[0][0].name} cannot be read and may be of it"
        ) from None


def _check_strangers(chosen: DicomFile, faults: Sequence[tuple[Source, StudyError]]) -> None:
    """Raise the error of a file that cannot be read and says that it is of the chosen series."""
    from radfound.reading.identity import identity_of

    for source, error in faults:
        uid = identity_of(source).series_uid
        if uid and uid == chosen.series_uid:
            raise error
        if not uid:
            logger.warning("a file beside the chosen series cannot be read: %s", error.code)
