"""Evidence maps as Parametric Map objects, for viewers that lay them over the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from radfound.exceptions import RequestError
from radfound.optional import library
from radfound.question import ModelVersion

from .codes import EVIDENCE_WEIGHT, own_scheme
from .identifiers import derived_uid, software_version
from .report import MANUFACTURER, completed, contributing_equipment, restore

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SERIES = 9003
_DESCRIPTION = "RadFound evidence map (AI)"
_OF_OTHER_TEXT = "RadFound language model's map (AI), not of its own text"


def map_uid(document_id: str) -> str:
    """Return the SOP instance UID of the evidence map of an answer."""
    return derived_uid(f"map {document_id}")


def in_order(headers: Sequence[Dataset], affine: np.ndarray) -> list[Dataset]:
    """Return the headers of a series in the order of the slices of a volume made from it.

    Parameters
    ----------
    headers : sequence of Dataset
    affine : float array, shape (4, 4)
        Maps (i, j, k, 1) of the volume to RAS in mm.

    Raises
    ------
    RequestError
        If the headers are not one slice each, at different places of the volume.
    """
    places = []
    for header in headers:
        position = header.get("ImagePositionPatient")
        if position is None or int(header.get("NumberOfFrames") or 1) != 1:
            break
        x, y, z = map(float, position)
        places.append(round(float((np.linalg.inv(affine) @ (-x, -y, z, 1.0))[2])))
    if sorted(places) != list(range(len(headers))):
        raise RequestError(
            "evidence: the first series is no stack of slices, so its map cannot be laid over it; leave "
            "evidence out"
        )
    by_place = dict(zip(places, headers, strict=True))
    return [by_place[place] for place in range(len(headers))]


def evidence_map(
    document_id: str,
    values: np.ndarray,
    slices: Sequence[Dataset],
    model: ModelVersion,
    is_own_text: bool = True,
) -> Dataset:
    """Return an evidence map over the slices of one series.

    Parameters
    ----------
    document_id : str
        Id of the answer.
    values : float array, shape (D, H, W), in [0, 1]
    slices : sequence of Dataset, length D
        Whole headers of the slices with their size, in the order of `values`.
    model : ModelVersion
    is_own_text : bool
        Whether the text is the language model's, as the map is; False if the answer has an `evidence_note`.

    Raises
    ------
    RequestError
        If the map does not have the shape of the slices.
    """
    from pydicom.sr.codedict import codes

    hd = library("highdicom", "server")
    shape = (len(slices), int(slices[0].Rows), int(slices[0].Columns)) if slices else (0, 0, 0)
    if values.shape != shape:
        raise RequestError(
            f"evidence: found a map of shape {values.shape}, expected {shape} as the series"
        )
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="evidence",
        lut_explanation="weight of each voxel in the answer",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=hd.sr.CodedConcept(*EVIDENCE_WEIGHT),
    )
    made: Dataset = hd.pm.ParametricMap(
        [completed(header) for header in slices],
        values.astype(np.float32),
        series_instance_uid=derived_uid(f"map series {document_id}"),
        series_number=_SERIES,
        sop_instance_uid=map_uid(document_id),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=model.name[:64],
        software_versions=software_version(model)[:64],
        device_serial_number=model.revision[:64],
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        window_center=0.5,
        window_width=1.0,
        content_label="EVIDENCE",
        series_description=_DESCRIPTION if is_own_text else _OF_OTHER_TEXT,
        content_qualification="RESEARCH",
    )
    restore(made, slices[0])
    if side := _side(slices):
        made.Laterality = side
    made.CodingSchemeIdentificationSequence = [own_scheme()]
    made.ContributingEquipmentSequence = [
        contributing_equipment(model, "Map of where a vision-language model looked")
    ]
    made.SpecificCharacterSet = "ISO_IR 192"
    return made


def _side(slices: Sequence[Dataset]) -> str:
    """Return the side of a paired body part, "L" or "R", if all slices are of it; empty otherwise."""
    sides = {str(each.get("Laterality") or each.get("ImageLaterality") or "") for each in slices}
    return sides.pop() if sides in ({"L"}, {"R"}) else ""
