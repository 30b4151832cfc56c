"""Study and series of a DICOM file, even if the rest of its header is damaged."""

from __future__ import annotations

from dataclasses import dataclass

from radfound.reading.files import Source

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_HEAD_BYTES = 1024
_TAGS = ["StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber"]


@dataclass(frozen=True)
class Identity:
    """Study and series identifiers of a file; empty if missing or unreadable.

    Parameters
    ----------
    study_uid, series_uid, series_number : str
    """

    study_uid: str = ""
    series_uid: str = ""
    series_number: str = ""


def identity_of(source: Source) -> Identity:
    """Return the study and series identifiers of a file that may be damaged; never raises."""
    import pydicom

    try:
        with open(source.path, "rb") as file:
            if _DEFLATED in file.read(_HEAD_BYTES):  # pydicom would unpack all of it
                return Identity()
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=_TAGS)
        return Identity(*(str(header.get(tag) or "") for tag in _TAGS))
    except Exception:  # pydicom passes on any error of its parsers
        return Identity()
