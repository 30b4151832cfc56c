"""Unique identifiers made from ids: the same id always gives the same UID."""

from __future__ import annotations

import uuid

from radfound.question import ModelVersion

_NAMESPACE = uuid.UUID("6f0c2f5e-7a3a-5d5b-9f0e-0d6a4f1b7c21")


def instance_uid(document_id: str) -> str:
    """Return the SOP instance UID of the document made from an answer or a correction.

    Parameters
    ----------
    document_id : str
        Id of the answer or correction.

    Returns
    -------
    str
        "2.25." and the id as a number if it is a UUID, else the number of a UUID made from it
        (DICOM PS3.5 B.2).
    """
    try:
        found = uuid.UUID(document_id)
    except ValueError:
        found = uuid.uuid5(_NAMESPACE, document_id)
    return f"2.25.{found.int}"


def series_uid(document_id: str) -> str:
    """Return the series instance UID of the document made from an answer or a correction."""
    return derived_uid(f"series {document_id}")


def device_uid(model: ModelVersion) -> str:
    """Return the Device UID of a model: another one for each base revision and adapter.

    IHE AI Results asks for a new Device UID when a model is modified, for example by training.
    """
    return derived_uid(f"device {model.name} {model.revision} {model.adapter or 'base'}")


def software_version(model: ModelVersion) -> str:
    """Return base revision and adapter, for Software Versions."""
    return f"{model.revision}+{model.adapter}" if model.adapter else model.revision


def derived_uid(text: str) -> str:
    """Return a UID made from a text."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, text).int}"
