"""Which series of a study a question is about: the written rule, and the series that are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pydicom.uid import UID

from radfound.exceptions import RequestError, StudyUnreadableError

from .archive import SeriesRow

NOT_IMAGES = frozenset(
    ("SR", "PR", "KO", "SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "REG", "DOC", "ECG", "EPS",
     "HD", "AU", "FID", "PLAN", "RESP", "STAIN", "TEXTUREMAP", "RWV", "SMR", "SM", "M3D", "POS", "ASMT",
     "LEN", "AR", "KER", "VA", "SRF", "EEG", "EMG", "EOG", "RTIMAGE", "RTINTENT", "RTRAD", "RTSEGANN",
     "ANN", "OSS", "BDUS", "CTPROTOCOL")
)  # fmt: skip
"""Modalities of series that hold no images for reading."""

PROJECTIONS = frozenset(("MG", "CR", "DX", "RG", "DR"))
CROSS_SECTIONAL = frozenset(("CT", "MR", "PT"))
_LOCALIZER = "LOCALIZER"
_PRIMARY = ("ORIGINAL", "PRIMARY")

Peek = Callable[[SeriesRow], tuple[str, tuple[str, ...]]]
"""Returns SOP class and image type of one instance of a series."""


@dataclass(frozen=True)
class Chosen:
    """The series that a question is about, in the order in which they are shown.

    Parameters
    ----------
    series : tuple of SeriesRow
    rule : str
        Why these, for people.
    """

    series: tuple[SeriesRow, ...]
    rule: str


def may_hold_images(modalities: Iterable[str]) -> bool:
    """Whether a study of these modalities may hold images; True if nothing is known."""
    known = list(modalities)
    return not known or any(modality not in NOT_IMAGES for modality in known)


def image_series(rows: Iterable[SeriesRow], peek: Peek) -> list[SeriesRow]:
    """Return the series that hold images for reading.

    Left out are reports, presentation states, segmentations, plans, waveforms and the like, parametric
    maps (among them those of this project), and localizers.
    """
    return [row for row in rows if row.modality not in NOT_IMAGES and _is_image(*peek(row))]


def choose(rows: Sequence[SeriesRow], peek: Peek, most: int, series: str | None = None) -> Chosen:
    """Choose series of one study.

    Parameters
    ----------
    rows : sequence of SeriesRow
        All series of the study.
    peek : callable
        See `Peek`.
    most : int
        Most series that are not projections.
    series : str, optional
        Series instance UID or series number; takes the place of the rule.

    Raises
    ------
    StudyUnreadableError
        If the study has no images.
    RequestError
        If there is no such series, or several have its number.
    """
    if series is not None:
        return _named(rows, series)
    candidates = [row for row in rows if row.modality not in NOT_IMAGES]
    volumes = [row for row in candidates if row.modality in CROSS_SECTIONAL]
    if volumes:
        found = _largest(volumes, peek, most)
        if found.series:
            return found
    views = image_series([row for row in candidates if row.modality in PROJECTIONS], peek)
    if views:
        return Chosen(tuple(views), "all views of the exam, by series number")
    others = [row for row in candidates if row.modality not in PROJECTIONS | CROSS_SECTIONAL]
    found = _largest(others, peek, most)
    if not found.series:
        raise StudyUnreadableError(
            f"the study has {len(rows)} series, none of them with images; expected images; choose "
            "another study, or one series with series="
        )
    return found


def _named(rows: Sequence[SeriesRow], series: str) -> Chosen:
    found = [row for row in rows if series in (row.uid, str(row.number))]
    if len(found) != 1:
        shown = ", ".join(f"{row.number} ({row.modality})" for row in rows[:20])
        raise RequestError(
            f"series: the study has {'several' if found else 'no'} series {series[:64]!r}; expected a "
            f"number of {shown}, or a series instance UID"
        )
    return Chosen(tuple(found), "the series that was asked for")


def _largest(rows: Sequence[SeriesRow], peek: Peek, most: int) -> Chosen:
    """Choose the series with the most images; original images come before derived ones."""
    by_size = sorted(rows, key=lambda row: (-(row.instances or 0), row.number, row.uid))
    originals: list[SeriesRow] = []
    derived: list[SeriesRow] = []
    for row in by_size:
        if len(originals) == most:
            break
        sop_class, image_type = peek(row)
        if _is_image(sop_class, image_type):
            is_original = tuple(image_type[:2]) in (_PRIMARY, ())
            (originals if is_original else derived).append(row)
    found = sorted((originals + derived)[:most], key=lambda row: (row.number, row.uid))
    total = sum(row.modality not in NOT_IMAGES for row in rows)
    rule = f"{len(found)} of {total} series: those with the most images, original before derived"
    return Chosen(tuple(found), rule + ", without localizers; shown by series number")


def _is_image(sop_class: str, image_type: Sequence[str]) -> bool:
    name = UID(sop_class).name if sop_class else "Image"
    return "Image" in name and _LOCALIZER not in image_type
