"""Evidence maps as Parametric Map objects, for viewers that lay them over the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from radfound.exceptions import RequestError
from radfound.question import ModelVersion

from .identifiers import derived_uid, software_version
from .report import MANUFACTURER

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SERIES = 9003


def evidence_map(
    document_id: str, values: np.ndarray, slices: Sequence[Dataset], model: ModelVersion
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

    Raises
    ------
    RequestError
        If the map does not have the shape of the slices.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

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
        quantity_definition=hd.sr.CodedConcept("evidence", "99RADFOUND", "Evidence weight"),
    )
    made: Dataset = hd.pm.ParametricMap(
        list(slices),
        values.astype(np.float32),
        series_instance_uid=derived_uid(f"map series {document_id}"),
        series_number=_SERIES,
        sop_instance_uid=derived_uid(f"map {document_id}"),
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
        series_description="RadFound evidence map (AI)",
        content_qualification="RESEARCH",
    )
    return made
